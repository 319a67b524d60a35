"""Methods that look ahead, in the engine: cohorts, resuming, divergence, and who trains what."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import step_operations
import torch
from tiny_runs import TRAINING, alone, numbers, stop_after, taught, train

from kdbench.grid.optimizers import Dot, Optimizer
from kdbench.grid.run import Run
from kdbench.method import Batch, Incompatible, Inner, Method
from kdbench.runs import records
from kdbench.training import checkpoint
from kdbench.training.cohort import Stopped
from kdbench.training.learner import Learner
from kdbench.training.meta_training import MetaTraining
from kdbench.training.ranks import World
from kdbench.training.sgd import Sgd

METHOD = '''
"""A method for tests (2020)."""
import torch
from torch import nn
from kdbench.method import Method


class Weighted(Method):
    def __init__(self, setup, *, lr: float = 1.0):
        super().__init__(setup)
        self.scale = nn.Linear(1, 1)
        self.other = nn.Linear(10, 10)

    def meta(self):
        return {meta}

    def weight(self, s):
        return self.scale(torch.ones(1, 1)).square().mean()

    def loss(self, s, t, batch):
        return self.weight(s) * (self.other(s.logits) - t.logits).square().mean()

    def adapt(self, inner):
        {body}
'''
BODY = """
        state = inner.start()
        state = inner.step(state, lambda s: self.loss(s, inner.t, inner.batch))
        task = lambda s: nn.functional.cross_entropy(s.logits, inner.batch.labels)
        inner.learn(inner.loss(state, task))
"""
Plugin = Callable[..., str]


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    """Return a function that writes a method which looks ahead, and returns its path."""

    def write(body: str = BODY, meta: str = "[self.scale]") -> str:
        path = tmp_path / "weighted.py"
        path.write_text(METHOD.format(body=body.strip(), meta=meta).lstrip())
        return str(path)

    return write


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Return a folder of runs with a trained teacher."""
    folder = tmp_path_factory.mktemp("school")
    teacher = alone(student="r14w3")
    assert train([teacher], folder)[teacher.id].status == "done"
    return folder, teacher


def copied(school: tuple[Path, Run], folder: Path) -> Path:
    """Copy the trained teacher into a separate folder of runs."""
    source, teacher = school
    target = folder / teacher.id
    target.mkdir(parents=True)
    for file in records.folder(source, teacher.id).iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return folder


def test_alone_and_in_a_cohort(school: tuple[Path, Run], plugin: Plugin, tmp_path: Path) -> None:
    names = ("l2tww", "at", plugin(), f"l2tww+{plugin()}", "kd")
    runs = [taught(school[1], name) for name in names]
    together, apart = copied(school, tmp_path / "together"), copied(school, tmp_path / "apart")
    assert {x.status for x in train(runs, together).values()} == {"done"}
    for run in runs:
        train([run], apart)
        assert numbers(together, run) == numbers(apart, run), run.method


@pytest.mark.parametrize("steps", [1, 3, 6, 9, 11])
def test_resumed(school: tuple[Path, Run], tmp_path: Path, steps: int) -> None:
    run = taught(school[1], "l2tww", alpha=0.0)
    parts, whole = copied(school, tmp_path / "parts"), copied(school, tmp_path / "whole")
    with pytest.raises(Stopped):
        train([run], parts, stop=stop_after(steps))
    state = checkpoint.load(records.folder(parts, run.id))
    assert state and state["meta_optimizer"][0][0]["step"] == state["steps_done"]
    train([run], parts)
    train([run], whole)
    assert numbers(parts, run) == numbers(whole, run)


def test_checkpoint_from_before_look_aheads_is_resumed(
    school: tuple[Path, Run], tmp_path: Path
) -> None:
    run = taught(school[1], "at")
    parts, whole = copied(school, tmp_path / "parts"), copied(school, tmp_path / "whole")
    with pytest.raises(Stopped):
        train([run], parts, stop=stop_after(6))
    folder = records.folder(parts, run.id)
    state = checkpoint.load(folder)
    assert state and state.pop("meta_optimizer") == []
    checkpoint.save(folder, state)
    train([run], parts)
    train([run], whole)
    assert numbers(parts, run) == numbers(whole, run)


def test_each_step_leaves_student_and_momenta_and_trains_the_meta_parameters(
    school: tuple[Path, Run], plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, update = Learner.compute, Sgd.update
    after: list[dict[str, Any]] = []
    learners: list[Learner] = []
    moved = []

    def noted(self: Any, *args: Any) -> None:
        update(self, *args)
        after.append(everything(learners[-1]))

    def watched(self: Learner, batch: Batch, t: Any) -> Any:
        learners.append(self)
        meta = [p for params in self.phases.meta.values() for p in params]
        assert meta and not any(p.requires_grad for p in meta)
        own = {id(p) for p in self.optimizer.param_groups[0]["params"]}
        assert not own & {id(p) for p in meta}
        result = compute(self, batch, t)
        assert all(p.grad is None and not p.requires_grad for p in meta)
        names = {id(p): name for name, p in self.methods.named_parameters()}
        now = everything(self)
        different = {n for n, x in after[-1].items() if not torch.equal(x, now[n])}
        # The batch norms of the student see the batch once, in the forward pass before.
        assert different <= {f"methods {names[id(p)]}" for p in meta}
        moved.append(len(different))
        return result

    monkeypatch.setattr(Learner, "compute", watched)
    monkeypatch.setattr(Sgd, "update", noted)
    folder = copied(school, tmp_path / "runs")
    for name, count in (("l2tww", 36), (plugin(), 2)):
        moved.clear()
        run = taught(school[1], name)
        assert train([run], folder)[run.id].status == "done"
        assert moved == [count] * 12


def everything(learner: Learner) -> dict[str, torch.Tensor]:
    """Return copies of a learner's tensors, momenta included."""
    found = {f"student {n}": x for n, x in learner.student.state_dict().items()}
    found |= {f"methods {n}": x for n, x in learner.methods.state_dict().items()}
    for i, state in enumerate(learner.optimizer.state.values()):
        if state.get("momentum_buffer") is not None:
            found[f"momentum {i}"] = state["momentum_buffer"]
    return {name: x.clone() for name, x in found.items()}


def test_meta_parameters_do_not_decay(
    school: tuple[Path, Run], plugin: Plugin, tmp_path: Path
) -> None:
    """Without a look ahead they stay at their initial values."""
    run = taught(school[1], plugin("return"))
    folder = copied(school, tmp_path / "runs")
    with pytest.raises(Stopped):
        train([run], folder, stop=stop_after(1))
    first = copy.deepcopy(checkpoint.load(records.folder(folder, run.id)))
    with pytest.raises(Stopped):
        train([run], folder, stop=stop_after(8))
    later = checkpoint.load(records.folder(folder, run.id))
    assert first and later
    same = {n for n, x in first["methods"].items() if torch.equal(x, later["methods"][n])}
    assert same == {"0.scale.weight", "0.scale.bias"}


def test_loss_of_the_look_ahead_that_is_not_finite_ends_the_run_as_diverged(
    school: tuple[Path, Run], plugin: Plugin, tmp_path: Path
) -> None:
    body = BODY.replace("inner.loss(state, task)", "inner.loss(state, task) / 0")
    runs = [taught(school[1], plugin(body)), taught(school[1], "at")]
    done = train(runs, copied(school, tmp_path / "runs"))
    assert [done[run.id].status for run in runs] == ["diverged", "done"]
    assert done[runs[0].id].reason.startswith("loss not finite in epoch 1")


def test_look_ahead_is_not_in_half_precision(
    school: tuple[Path, Run], plugin: Plugin, tmp_path: Path
) -> None:
    body = "assert inner.loss(inner.start(), lambda s: s.logits.sum()).dtype == torch.float32"
    method = plugin(f"assert not torch.is_autocast_enabled('cpu'); {body}")
    run = taught(school[1], method, training=TRAINING.model_copy(update={"precision": "bf16"}))
    done = train([run], copied(school, tmp_path / "runs"))
    assert done[run.id].status == "done", done[run.id].traceback


@pytest.mark.parametrize(
    ("body", "meta", "reason"),
    [
        (BODY, "[]", "Weighted.adapt calls learn, but meta returns no modules"),
        (BODY, "[nn.Linear(1, 1)]", "Weighted.meta returned what is not one of the method's own"),
        ("inner.batch.images.zero_()", "[self.scale]", "Weighted changes batch.images"),
    ],
)
def test_mistakes_of_a_method_end_its_run_with_one_line(
    school: tuple[Path, Run], plugin: Plugin, tmp_path: Path, body: str, meta: str, reason: str
) -> None:
    run = taught(school[1], plugin(body, meta))
    done = train([run, taught(school[1], "kd")], copied(school, tmp_path / "runs"))
    assert [x.status for x in done.values()] == ["failed", "done"]
    assert reason in done[run.id].reason


def test_meta_without_adapt_is_an_error(
    school: tuple[Path, Run], plugin: Plugin, tmp_path: Path
) -> None:
    path = plugin()
    Path(path).write_text(Path(path).read_text().replace("def adapt", "def other"))
    run = taught(school[1], path)
    done = train([run], copied(school, tmp_path / "runs"))
    assert done[run.id].reason == "Weighted.meta returns modules, but Weighted has no adapt"


def test_other_optimisers_are_refused(school: tuple[Path, Run], tmp_path: Path) -> None:
    dot = TRAINING.model_copy(update={"optimizer": Optimizer(dot=Dot(delta=0.075))})
    runs = [taught(school[1], name, training=dot) for name in ("l2tww", "at")]
    done = train(runs, copied(school, tmp_path / "runs"))
    assert [done[run.id].status for run in runs] == ["skipped", "done"]
    assert done[runs[0].id].reason == "L2TWW looks ahead with SGD, not with DOT with delta 0.075"


def test_several_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = step_operations.learner("l2tww", {}, "r14w3", "r8w3")
    monkeypatch.setattr(type(one.terms[0]), "one_rank", False)
    for reason in (r"looks ahead, .*: set one_rank", "trains on one rank, this run has 2"):
        with pytest.raises(Incompatible, match=f"^L2TWW {reason}"):
            MetaTraining(one.student, one.phases, one.run.training, World(0, 2))
        monkeypatch.undo()


def test_only_methods_that_look_ahead_are_called(
    school: tuple[Path, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Method, inner: Inner) -> None:
        raise AssertionError

    monkeypatch.setattr(Method, "adapt", refuse)
    run = taught(school[1], "at")
    assert train([run], copied(school, tmp_path / "runs"))[run.id].status == "done"
