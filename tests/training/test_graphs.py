"""Steps recorded and replayed give the bits of ordinary steps; a tape stands in for CUDA graphs."""

import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from method_variants import ALL
from tape_recorder import Kept, TapeRecorder
from tiny_runs import TRAINING, alone, numbers, stop_after, taught, train

from kdbench.grid.optimizers import Dot, Optimizer
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.training import cohort, schedule
from kdbench.training.cohort import Stopped
from kdbench.training.learner import Learner
from kdbench.training.steps import GraphSteps

VARIANTS = [(name, hyper) for name, hyper in ALL if name not in ("fcfd", "kdsvd", "mlkd")]
"""Methods whose cohorts are recorded as a whole; test_views.py has MLKD."""

METHOD = '''
"""A method for tests (2020)."""
import torch
from kdbench.method import Method


class {name}(Method):
    def __init__(self, setup):
        super().__init__(setup)
        self.count = 0
        self.last = None
        self.seen = []

    def get_extra_state(self):
        return {{"count": self.count, "last": self.last, "seen": list(self.seen)}}

    def set_extra_state(self, state):
        self.count, self.last, self.seen = state["count"], state["last"], list(state["seen"])

    def loss(self, s, t, batch):
        {body}
'''
REFUSED = {
    "progress": (
        "return batch.progress * s.logits.square().mean()",
        "a method reads batch.progress, which changes in every step",
    ),
    "step": (
        "return (batch.step % 3) * s.logits.square().mean()",
        "a method reads batch.step, which changes in every step",
    ),
    "counter": (
        "self.count += 1; return self.count * s.logits.square().mean()",
        "Counter.count changes from step to step",
    ),
    "memory": (
        "old, self.last = self.last, s.logits.detach(); "
        "return (s.logits - (0 if old is None else old)).square().mean()",
        "Memory.last changes from step to step",
    ),
    "teacher": (
        "old, self.last = self.last, (t.logits, batch.labels); "
        "a, b = self.last if old is None else old; "
        "return (s.logits - a - torch.nn.functional.one_hot(b, 10)).square().mean()",
        "Teacher.last changes from step to step",
    ),
    "keeps": (
        "self.seen.append(1); return len(self.seen) * s.logits.square().mean()",
        "Keeps.seen changes from step to step",
    ),
    "waits": (
        "return s.logits.square().mean() * (2 if s.logits.sum().item() > 0 else 1)",
        "waits for the device",
    ),
    "draws": (
        "return (s.logits * torch.rand(10)).square().mean()",
        "a method draws from torch's global generator; batch.generator can be recorded",
    ),
}
GENERATORS = (
    'a, b = batch.generator(1, "x"), batch.generator(1, "x"); '
    "return (s.logits * torch.rand(10, generator=a) * torch.rand(10, generator=b)).square().mean()"
)


@pytest.fixture(autouse=True)
def steps_as_on_a_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ordinary steps, too: keep the rate in a tensor, as on a GPU, and gradients, as a tape."""
    compute = Learner.compute

    def init(self: schedule.Rate, device: torch.device) -> None:
        self.value, self.tensor = float("nan"), torch.zeros(())

    def kept(self: Learner, *args: Any) -> Any:
        with Kept():
            return compute(self, *args)

    monkeypatch.setattr(schedule.Rate, "__init__", init)
    monkeypatch.setattr(Learner, "compute", kept)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Return a folder of runs with a trained teacher."""
    folder = tmp_path_factory.mktemp("school")
    teacher = alone(student="r14w3")  # FSP needs equal channels
    assert train([teacher], folder)[teacher.id].status == "done"
    return folder, teacher


Taped = Callable[..., tuple[dict[str, records.Record], TapeRecorder, list[str]]]


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> Taped:
    """Return ``train`` with steps on a tape, its recorder and the lines that it reports."""

    def run(
        runs: Sequence[Run], folder: Path, lanes: int = 3, **context: Any
    ) -> tuple[dict[str, records.Record], TapeRecorder, list[str]]:
        recorder, lines = TapeRecorder(lanes), list[str]()

        def report(beats: object, line: str) -> None:
            lines.extend([line] if line else [])

        with monkeypatch.context() as patch:
            make = partial(GraphSteps, recorder=recorder)
            patch.setattr(cohort, "make_steps", make)
            done = train(runs, folder, report=report, **context)
        return done, recorder, [line for line in lines if "graph" in line]

    return run


def copied(school: tuple[Path, Run], folder: Path) -> Path:
    """Copy the trained teacher into a separate folder of runs."""
    source, teacher = school
    target = folder / teacher.id
    target.mkdir(parents=True)
    for file in records.folder(source, teacher.id).iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return folder


def plugin(folder: Path, name: str, body: str) -> str:
    """Write a method's file, and return its path."""
    path = folder / f"{name}.py"
    path.write_text(METHOD.format(name=name.capitalize(), body=body).lstrip())
    return str(path)


def assert_same(runs: Sequence[Run], folder: Path, other: Path) -> None:
    """Compare results and curves, weights included, bit for bit."""
    different = [run.method for run in runs if numbers(folder, run) != numbers(other, run)]
    assert not different


@pytest.mark.timeout(900)
def test_replayed_steps_of_every_method_give_the_bits_of_ordinary_steps(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path
) -> None:
    eager, graph = (copied(school, tmp_path / name) for name in ("eager", "graph"))
    runs = [taught(school[1], name, hyper=hyper, beta=0.01) for name, hyper in VARIANTS]
    done = train(runs, eager)
    assert {record.status for record in done.values()} == {"done"}
    _, recorder, lines = taped(runs, graph)
    assert not lines, lines
    assert_same(runs, eager, graph)
    # Each learner once, those with a pretraining phase twice, those that read the epoch each epoch.
    twice = sum(run.pretrain is not None for run in runs)
    each_epoch = {"dkd", "reviewkd"}
    again = sum(2 for name, hyper in VARIANTS if name in each_epoch and hyper.get("warmup") != 0)
    assert len(recorder.records) >= 1 + len(runs) + twice + again
    assert recorder.replays > 10 * len(runs) / 2


def test_replayed_steps_of_dot_give_the_bits_of_ordinary_steps(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path
) -> None:
    eager, graph = (copied(school, tmp_path / name) for name in ("eager", "graph"))
    training = TRAINING.model_copy(update={"optimizer": Optimizer(dot=Dot())})
    runs = [taught(school[1], name, training=training) for name in ("kd", "fitnets", "srrl")]
    train(runs, eager)
    _, recorder, lines = taped(runs, graph)
    assert not lines, lines
    assert_same(runs, eager, graph)
    assert recorder.replays > len(runs)


@pytest.mark.parametrize(
    "name, epochs_recorded", [("kd", 1), ("dkd", 3), ("reviewkd", 3), ("ab", 2), ("crd", 1)]
)
def test_recordings_depend_on_phase_and_if_a_method_reads_it_on_the_epoch(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path, name: str, epochs_recorded: int
) -> None:
    folder = copied(school, tmp_path / "runs")
    _, recorder, _ = taped([taught(school[1], name)], folder, lanes=1)
    assert recorder.records.count(0) == epochs_recorded
    assert recorder.records.count(1) == 1  # batch and teacher


@pytest.mark.parametrize("steps", [1, 3, 5, 6, 10])
def test_run_stopped_and_resumed_with_graphs_equals_an_ordinary_run(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path, steps: int
) -> None:
    eager, graph = (copied(school, tmp_path / name) for name in ("eager", "graph"))
    runs = [taught(school[1], name) for name in ("semckd", "crd", "ab", "dkd", "vid")]
    train(runs, eager)
    with pytest.raises(Stopped):
        taped(runs, graph, stop=stop_after(steps))
    # A learner alone resumes first, so the others join it later.
    taped(runs[:1], graph)
    taped(runs, graph)
    assert_same(runs, eager, graph)


@pytest.mark.parametrize("name", REFUSED)
def test_step_that_changes_from_step_to_step_is_run_without_graph(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path, name: str
) -> None:
    body, reason = REFUSED[name]
    eager, graph = (copied(school, tmp_path / name) for name in ("eager", "graph"))
    method = plugin(tmp_path, name, body)
    runs = [taught(school[1], method, beta=0.1), taught(school[1], "kd")]
    train(runs, eager)
    done, _, lines = taped(runs, graph)
    assert {record.status for record in done.values()} == {"done"}
    assert len(lines) == 1 and reason in lines[0]
    assert lines[0].startswith("r14w3 -> r8w3, seed 0, ")
    assert_same(runs, eager, graph)


def test_generators_of_a_batch_are_seeded_for_each_replay(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path
) -> None:
    eager, graph = (copied(school, tmp_path / name) for name in ("eager", "graph"))
    runs = [taught(school[1], plugin(tmp_path, "twice", GENERATORS), beta=0.1)]
    train(runs, eager)
    _, recorder, lines = taped(runs, graph)
    assert not lines and recorder.replays
    assert_same(runs, eager, graph)


def test_graphs_always_fails_a_run_that_cannot_be_recorded(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path
) -> None:
    folder = copied(school, tmp_path / "runs")
    runs = [
        taught(school[1], plugin(tmp_path, "counter", REFUSED["counter"][0])),
        taught(school[1], "kd"),
    ]
    done, _, _ = taped(runs, folder, graphs="always")
    assert done[runs[0].id].status == "failed"
    assert "executor.graphs: always, but Counter.count changes" in done[runs[0].id].reason
    assert done[runs[1].id].status == "done"


@pytest.mark.parametrize("graphs", ["auto", "always"])
def test_method_that_declares_to_wait_is_named_or_refused(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path, graphs: str
) -> None:
    folder = copied(school, tmp_path / "runs")
    file = Path(plugin(tmp_path, "slow", "return s.logits.square().mean()"))
    code = file.read_text()
    file.write_text(code.replace("    def __init__", "    capturable = False\n\n    def __init__"))
    run = taught(school[1], str(file))
    done, _, lines = taped([run], folder, graphs=graphs)
    reason = f"steps of {run.terms[0].method} cannot be recorded"
    if graphs == "always":
        assert done[run.id].status == "failed"
        assert f"executor.graphs: always, but {reason}" in done[run.id].reason
    else:
        assert done[run.id].status == "done"
        assert [line for line in lines if line.endswith(f"slower: {reason}")] == lines[:1] != []


def test_learners_without_teacher_share_batches_only(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path
) -> None:
    eager, graph = tmp_path / "eager", tmp_path / "graph"
    runs = [alone(student=name) for name in ("r8w3", "r8w4")]
    train(runs, eager)
    _, recorder, lines = taped(runs, graph)
    assert not lines and recorder.replays
    assert_same(runs, eager, graph)


def test_failed_recording_leaves_no_trace(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, graph = (copied(school, tmp_path / name) for name in ("eager", "graph"))
    runs = [taught(school[1], name) for name in ("kd", "crd")]
    train(runs, eager)
    record = TapeRecorder.record

    def refuse(self: TapeRecorder, *args: Any) -> Any:
        record(self, *args)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(TapeRecorder, "record", refuse)
    _, recorder, lines = taped(runs, graph)
    assert not recorder.replays
    assert [line.partition(":")[0] for line in lines] == [
        "batches and teacher",
        "r14w3 -> r8w3, seed 0, kd",
        "r14w3 -> r8w3, seed 0, crd",
    ]
    assert_same(runs, eager, graph)


def test_inputs_in_other_memory_are_recorded_again(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, graph = (copied(school, tmp_path / name) for name in ("eager", "graph"))
    runs = [taught(school[1], "kd")]
    train(runs, eager)
    begin = GraphSteps.begin_epoch

    def other_memory(self: GraphSteps, *args: Any) -> None:
        self._feed = None
        begin(self, *args)

    monkeypatch.setattr(GraphSteps, "begin_epoch", other_memory)
    _, recorder, _ = taped(runs, graph, lanes=1)
    assert recorder.records.count(0) == 3
    assert_same(runs, eager, graph)


def test_memory_of_a_cohort_is_free_at_its_end(
    school: tuple[Path, Run], taped: Taped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(school, tmp_path / "runs")
    steps: list[weakref.ref[GraphSteps]] = []
    begin = GraphSteps.begin_epoch

    def noted(self: GraphSteps, *args: Any) -> None:
        steps.append(weakref.ref(self))
        begin(self, *args)

    monkeypatch.setattr(GraphSteps, "begin_epoch", noted)
    gc.disable()  # a cycle of references would last until the next collection
    try:
        taped([taught(school[1], "kd")], folder)
        assert steps and not any(ref() for ref in steps)
    finally:
        gc.enable()
