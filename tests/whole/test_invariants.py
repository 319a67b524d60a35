"""The training engine's invariants; each test fails if its invariant is broken."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import CPU, DATASET, TRAINING, alone, data, numbers, stop_after, taught, train

from kdbench.grid.run import Run
from kdbench.method import Features
from kdbench.runs import environment, records
from kdbench.training import checkpoint
from kdbench.training import teacher as teachers
from kdbench.training.build import dry_run
from kdbench.training.cohort import Cohort, Stopped
from kdbench.training.context import TrainingContext
from kdbench.training.learner import Learner

RAISES = '''
"""A method that raises (2020)."""
from kdbench.method import Method


class Raises(Method):
    def loss(self, s, t, batch):
        if batch.step == 5:
            raise RuntimeError("a bug in step 5")
        return s.logits.square().mean()
'''

REFUSES = '''
"""A method that fits nothing (2020)."""
from kdbench.method import Incompatible, Method


class Refuses(Method):
    def __init__(self, setup):
        super().__init__(setup)
        raise Incompatible(f"needs three eyes: student {list(setup.student.logits.shape)}")

    def loss(self, s, t, batch):
        return s.logits.sum()
'''

GREEDY = '''
"""A method that draws from torch's global generator as much as it likes (2020)."""
import torch
from kdbench.method import Method


class Greedy(Method):
    def loss(self, s, t, batch):
        return (s.logits * torch.rand(1000)[:10]).square().mean()
'''


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Return a folder of runs with a trained teacher."""
    folder = tmp_path_factory.mktemp("school")
    teacher = alone(student="r8w4")
    assert train([teacher], folder)[teacher.id].status == "done"
    return folder, teacher


def plugin(folder: Path, name: str, text: str) -> str:
    """Write a method's file, and return its path."""
    path = folder / f"{name}.py"
    path.write_text(text.lstrip())
    return str(path)


def copied(school: tuple[Path, Run], folder: Path) -> Path:
    """Copy the trained teacher into a separate folder of runs."""
    source, teacher = school
    target = folder / "runs"
    for file in records.folder(source, teacher.id).iterdir():
        (target / teacher.id).mkdir(parents=True, exist_ok=True)
        (target / teacher.id / file.name).write_bytes(file.read_bytes())
    return target


METHODS = ["kd", "at", "semckd", "semckd+at", "vid", "fitnets"]


# --- 1: a cohort never changes a number -----------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cohort_gives_the_same_bits_as_single_runs(
    school: tuple[Path, Run], tmp_path: Path, precision: str
) -> None:
    _, teacher = school
    training = TRAINING.model_copy(update={"precision": precision})
    runs = [taught(teacher, name, training=training) for name in METHODS]
    runs.append(taught(teacher, "fitnets", hyper={"stages": "two"}, training=training))
    runs.append(taught(teacher, "kd", student="v5w4", training=training))
    runs.append(taught(teacher, plugin(tmp_path, "greedy", GREEDY), training=training))
    together = copied(school, tmp_path / "together")
    train(runs, together)
    apart = copied(school, tmp_path / "apart")
    for run in runs:
        train([run], apart)
        assert numbers(together, run) == numbers(apart, run), run.method
    assert len({numbers(together, run)[0].weights for run in runs}) == len(runs)


def test_learner_that_ends_early_does_not_affect_the_others(
    school: tuple[Path, Run], tmp_path: Path
) -> None:
    _, teacher = school
    good = taught(teacher, "at")
    diverging = taught(teacher, "sp", beta=1e30)
    raising = taught(teacher, plugin(tmp_path, "raises", RAISES))
    refusing = taught(teacher, plugin(tmp_path, "refuses", REFUSES))
    bad = copied(school, tmp_path / "bad")
    results = train([diverging, raising, good, refusing], bad)
    quiet = copied(school, tmp_path / "quiet")
    train([good], quiet)
    assert numbers(bad, good) == numbers(quiet, good)
    assert results[diverging.id].status == "diverged"
    assert results[refusing.id].status == "skipped"
    assert results[refusing.id].reason == "needs three eyes: student [2, 10]"
    failed = results[raising.id]
    assert (failed.status, failed.reason) == ("failed", "RuntimeError: a bug in step 5")
    assert 'raise RuntimeError("a bug in step 5")' in failed.traceback
    assert failed.result is not None
    assert failed.result.epoch == 1


# --- 2: resuming never changes a number -----------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "precision"),
    [*((steps, "fp32") for steps in (1, 3, 4, 6, 9, 13)), (3, "bf16"), (9, "bf16")],
)
def test_resumed_runs_give_the_same_bits(
    school: tuple[Path, Run], tmp_path: Path, steps: int, precision: str
) -> None:
    _, teacher = school
    names = ["kd", "semckd+at", "vid"]
    training = TRAINING.model_copy(update={"precision": precision})
    runs = [taught(teacher, name, training=training) for name in names]
    runs.append(taught(teacher, "fitnets", hyper={"stages": "two"}, training=training))
    unbroken = copied(school, tmp_path / "unbroken")
    train(runs, unbroken)
    broken = copied(school, tmp_path / "broken")
    stops = 0
    while any(records.read(broken, run.id) is None for run in runs):
        todo = [run for run in runs if records.read(broken, run.id) is None]
        try:
            train(todo, broken, stop=stop_after(steps))
        except Stopped:
            stops += 1
        assert stops < 40
    assert stops
    for run in runs:
        assert numbers(unbroken, run) == numbers(broken, run), run.method


def test_learners_at_different_steps_resume_together(
    school: tuple[Path, Run], tmp_path: Path
) -> None:
    _, teacher = school
    early, late = taught(teacher, "kd"), taught(teacher, "at")
    unbroken = copied(school, tmp_path / "unbroken")
    train([early, late], unbroken)
    other = copied(school, tmp_path / "other")
    with pytest.raises(Stopped):
        train([early], other, stop=stop_after(6))  # the first run is in epoch 2 ...
    train([late, early], other)  # ... when the second run begins
    for run in (early, late):
        assert numbers(unbroken, run) == numbers(other, run)


def test_initial_weights_do_not_depend_on_the_method(school: tuple[Path, Run]) -> None:
    folder, teacher = school
    weights: dict[str, list[list[int]]] = {}
    images = data()
    for name in ("kd", "semckd"):
        run = taught(teacher, name)
        loaded = teachers.load(folder, run.teacher, num_classes=10, in_channels=1, device=CPU)  # type: ignore[arg-type]
        learner = Learner(
            run,
            num_classes=10,
            in_channels=1,
            size=8,
            train_labels=images.train_labels,
            teacher=dry_run(loaded.network, 1, 8),
            teacher_head=loaded.head(),
            teacher_network=loaded.network,
            device=CPU,
        )
        weights[name] = [p.tolist() for p in learner.student.parameters()]
    assert weights["kd"] == weights["semckd"]


# --- 3: the teacher is unchanged ------------------------------------------------------------------


def test_teacher_is_unchanged(school: tuple[Path, Run], tmp_path: Path) -> None:
    _, teacher = school
    folder = copied(school, tmp_path)
    runs = [taught(teacher, name) for name in METHODS]
    images = data()
    loaded = teachers.load(folder, runs[0].teacher, num_classes=10, in_channels=1, device=CPU)  # type: ignore[arg-type]
    before = [checkpoint.digest(net.state_dict()) for net in (loaded.network, loaded.fast)]
    Cohort(runs, loaded, images, TrainingContext(folder, CPU)).train()
    after = [checkpoint.digest(net.state_dict()) for net in (loaded.network, loaded.fast)]
    assert before == after
    assert not any(p.requires_grad or p.grad is not None for p in loaded.fast.parameters())
    assert not loaded.fast.training
    record = records.read(folder, runs[0].id)
    assert record is not None
    assert record.result is not None
    assert record.result.teacher_weights == before[0]


def test_teacher_whose_weights_differ_from_its_record_is_refused(
    school: tuple[Path, Run], tmp_path: Path
) -> None:
    _, teacher = school
    folder = copied(school, tmp_path)
    path = records.folder(folder, teacher.id)
    state = checkpoint.read(path / "checkpoint.pt")
    state["model"]["fc.bias"][0] += 1
    checkpoint.save(path, state, final=True)
    with pytest.raises(teachers.TeacherError, match="not the weights"):
        train([taught(teacher, "kd")], folder)


# --- 5: divergence is a result --------------------------------------------------------------------


def test_divergence_is_recorded(school: tuple[Path, Run], tmp_path: Path) -> None:
    folder = copied(school, tmp_path)
    run = taught(school[1], "at", training=TRAINING.model_copy(update={"lr": 1e18}))
    record = train([run], folder)[run.id]
    assert record.status == "diverged"
    assert record.reason.startswith("loss not finite in epoch")
    assert not (records.folder(folder, run.id) / "progress.json").exists()


# --- 6: the same batches for all methods; a last smaller batch is dropped -------------------------

LISTENS = '''
"""A method that writes down its samples (2020)."""
from pathlib import Path
from kdbench.method import Method


class Listens(Method):
    def __init__(self, setup, *, to=""):
        super().__init__(setup)
        self.to = to

    def loss(self, s, t, batch):
        line = f"{batch.epoch} {batch.step} {batch.index.tolist()} {batch.images.sum().item()!r}\\n"
        with Path(self.to).open("a") as file:
            file.write(line)
        return s.logits.square().mean()
'''


def test_every_method_sees_the_same_batches(school: tuple[Path, Run], tmp_path: Path) -> None:
    _, teacher = school
    folder = copied(school, tmp_path)
    path = plugin(tmp_path, "listens", LISTENS)
    heard = []
    for i, others in enumerate(([], ["semckd", "kd"])):
        to = str(tmp_path / f"heard{i}")
        listener = taught(teacher, path, hyper={"to": to})
        train([*(taught(teacher, name) for name in others), listener], folder)
        heard.append(Path(to).read_text())
    assert heard[0] == heard[1]
    lines = heard[0].splitlines()
    assert len(lines) == 3 * 4
    first = [eval(line.split(" ", 2)[2].rpartition(" ")[0]) for line in lines[:4]]
    assert all(len(index) == 16 for index in first)
    assert len({i for index in first for i in index}) == 64


# --- 7: last epoch is the headline, best is stored, validation is held out ------------------------


def test_last_best_and_validation_accuracies_are_recorded(
    school: tuple[Path, Run], tmp_path: Path
) -> None:
    dataset = DATASET.model_copy(update={"per_class": 20, "validation": 0.2})
    run = alone(dataset=dataset)
    result = train([run], tmp_path)[run.id].result
    assert result is not None
    with (tmp_path / run.id / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0])[:5] == ["epoch", "train_loss", "train_acc", "test_loss", "test_acc"]
    accs = [float(row["test_acc"]) for row in rows]
    assert result.test_acc == accs[-1]
    assert result.best_acc == max(accs)
    assert result.best_epoch == accs.index(max(accs)) + 1
    vals = [float(row["val_acc"]) for row in rows]
    assert result.val_acc == vals[-1]
    assert result.selected_acc == accs[vals.index(max(vals))]
    assert result.n_train == 160
    assert result.n_test == 1797 - 200
    assert result.steps == 3 * 10


def test_record_is_complete(school: tuple[Path, Run], tmp_path: Path) -> None:
    folder = copied(school, tmp_path)
    run = taught(school[1], "vid")
    record = train([run], folder)[run.id]
    assert record.cost is not None
    assert record.cost.params_extra > 0
    assert record.cost.params_deployed == record.cost.params
    assert record.cost.step_ms > 0
    assert record.cost.teacher_seconds > 0
    assert {"versions", "device", "threads", "host", "started", "ended"} <= set(record.environment)
    assert record.environment["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert record.environment["onednn_limit"] == environment.onednn_limit()
    state = checkpoint.read(folder / run.id / "checkpoint.pt")
    assert record.result is not None
    assert checkpoint.digest(state["model"]) == record.result.weights
    assert "optimizer" not in state


def test_first_phase_trains_its_modules_and_then_freezes_those_of_the_method(
    school: tuple[Path, Run], tmp_path: Path
) -> None:
    folder = copied(school, tmp_path)
    run = taught(school[1], "fitnets", hyper={"stages": "two"})
    with pytest.raises(Stopped):
        train([run], folder, stop=stop_after(2 * 5 + 2))  # two epochs, and two steps
    before = checkpoint.load(folder / run.id)
    assert before is not None
    assert (before["phase"], before["epoch"]) == ("train", 1)
    train([run], folder)
    after = checkpoint.read(folder / run.id / "checkpoint.pt")
    for name, value in before["methods"].items():
        assert torch.equal(value, after["methods"][name]), name
    changed = [n for n, v in before["model"].items() if not torch.equal(v, after["model"][n])]
    assert "fc.weight" in changed


PHASE = '''
"""A method whose pretraining phase trains an adapter alone, which its loss then uses (2020)."""
import torch
from kdbench.method import Method


class Phase(Method):
    def __init__(self, setup):
        super().__init__(setup)
        self.adapter = torch.nn.Linear(10, 10)
        self.other = torch.nn.Linear(10, 10)

    def pretrain(self, student):
        return [self.adapter]

    def pretrain_loss(self, s, t, batch):
        return (self.adapter(s.logits) - t.logits).square().mean()

    def loss(self, s, t, batch):
        return (self.other(self.adapter(s.logits)) - t.logits).square().mean()
'''


def test_modules_trained_in_a_phase_and_frozen_after_it(
    school: tuple[Path, Run], tmp_path: Path
) -> None:
    folder = copied(school, tmp_path)
    run = taught(school[1], plugin(tmp_path, "phase", PHASE))
    states = []
    for steps in (1, 9, 3):  # one step into the phase, at its end, two steps into training
        with pytest.raises(Stopped):
            train([run], folder, stop=stop_after(steps))
        state = checkpoint.load(folder / run.id)
        assert state is not None
        states.append(state)
    start, end, later = states
    assert [state["phase"] for state in states] == ["pretrain", "train", "train"]

    def moved(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], part: str) -> bool:
        return any(not torch.equal(a[k], b[k]) for k in a if part in k)

    assert moved(start["methods"], end["methods"], "adapter")
    assert not moved(start["methods"], end["methods"], "other")
    assert not moved(start["model"], end["model"], "")
    assert not moved(end["methods"], later["methods"], "adapter")
    assert moved(end["methods"], later["methods"], "other")
    assert moved(end["model"], later["model"], "fc.weight")


def test_method_without_a_teacher_needs_none(tmp_path: Path) -> None:
    text = REFUSES.replace("raise Incompatible", "self.x = str").replace(
        "class Refuses(Method):", "class Quiet(Method):\n    needs_teacher = False\n"
    )
    run = replace(taught(alone(), plugin(tmp_path, "quiet", text)), teacher=None, alpha=0.0)
    assert train([run], tmp_path / "runs")[run.id].status == "done"


def test_runs_of_a_cohort_must_share_seed_and_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="share"):
        train([alone(0), alone(1)], tmp_path)


def test_too_small_data_set_gives_a_failed_record(tmp_path: Path) -> None:
    run = alone(training=TRAINING.model_copy(update={"batch_size": 512}))
    record = train([run], tmp_path)[run.id]
    assert record.status == "failed"
    assert "70 training images do not fill a batch of 512" in record.reason


def test_bf16_trains_and_has_another_run_id(school: tuple[Path, Run], tmp_path: Path) -> None:
    folder = copied(school, tmp_path)
    half = TRAINING.model_copy(update={"precision": "bf16"})
    runs = [taught(school[1], name, training=half) for name in ("kd", "semckd")]
    assert runs[0].id != taught(school[1], "kd").id
    results = train(runs, folder)
    assert [results[run.id].status for run in runs] == ["done", "done"]


def test_teachers_features_follow_the_contract(school: tuple[Path, Run]) -> None:
    folder, teacher = school
    run = taught(teacher, "kd")
    loaded = teachers.load(folder, run.teacher, num_classes=10, in_channels=1, device=CPU)  # type: ignore[arg-type]
    features = loaded(torch.zeros(3, 1, 8, 8))
    assert isinstance(features, Features)
    assert not features.logits.requires_grad
    torch.testing.assert_close(
        features.logits, loaded.network(torch.zeros(3, 1, 8, 8)).logits, rtol=1e-5, atol=1e-6
    )
