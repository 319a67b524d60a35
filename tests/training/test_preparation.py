"""``Method.prepare``: what it sees, when it is called, and that its results survive a stop."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import CPU, alone, data, numbers, stop_after, taught, train
from torch import Tensor

from kdbench.data.batches import eval_batches
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.training import checkpoint
from kdbench.training import teacher as teachers
from kdbench.training.cohort import Stopped

METHOD = '''"""A method for tests (2020)."""
import torch
import torch.nn.functional as F
from kdbench.method import Method

class Mine(Method):
    {attributes}

    def __init__(self, setup):
        super().__init__(setup)
        n = len(setup.train_labels)
        self.register_buffer("logits", torch.zeros(n, setup.num_classes))
        self.register_buffer("labels", torch.zeros(n, dtype=torch.long))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def prepare(self, examples):
        {prepare}
        assert not torch.is_grad_enabled()
        first = 0
        for t, labels in examples:
            self.logits[first : first + len(labels)] = t.logits
            self.labels[first : first + len(labels)] = labels
            first += len(labels)
        assert first == len(self.labels)
        self.calls += 1

    def loss(self, s, t, batch):
        return F.mse_loss(s.logits, self.logits[batch.index])
'''


def plugin(folder: Path, prepare: str = "", attributes: str = "family = 'logit'") -> str:
    path = folder / "mine.py"
    path.write_text(METHOD.format(prepare=prepare or "pass", attributes=attributes))
    return str(path)


def methods_state(folder: Path, run: Run) -> dict[str, Tensor]:
    """Return the state of the methods at the end of a run."""
    record = records.read(folder, run.id)
    assert record is not None
    state: dict[str, Tensor] = checkpoint.trained(
        records.folder(folder, run.id) / "checkpoint.pt", record
    )["methods"]
    return state


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, and the method trained alone."""
    folder = tmp_path_factory.mktemp("prepared")
    teacher = alone(student="r8w4")
    train([teacher], folder)
    train([taught(teacher, plugin(folder))], folder)
    return folder


def test_prepare_sees_every_training_image_once_in_order(trained: Path) -> None:
    run = taught(alone(student="r8w4"), plugin(trained))
    state = methods_state(trained, run)
    assert int(state["0.calls"]) == 1
    loaded = data()
    assert run.teacher is not None
    teacher = teachers.load(trained, run.teacher, num_classes=10, in_channels=1, device=CPU)
    [(images, labels)] = eval_batches(loaded.train_images, loaded.train_labels, loaded, 500)
    assert torch.equal(state["0.labels"], labels)
    assert torch.equal(state["0.logits"], teacher(images).logits)


def test_alone_in_a_cohort_and_resumed_are_the_same(trained: Path, tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    run = taught(teacher, plugin(trained))
    for name, steps in (("cohort", 0), ("resumed", 2), ("late", 7)):
        folder = tmp_path / name
        train([teacher], folder)
        runs = [taught(teacher, "kd"), run, taught(teacher, "semckd")] if not steps else [run]
        if steps:
            with pytest.raises(Stopped):
                train(runs, folder, stop=stop_after(steps))
        assert train(runs, folder)[run.id].status == "done"
        assert numbers(folder, run) == numbers(trained, run)
        assert int(methods_state(folder, run)["0.calls"]) == 1


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        ("self.mean = 1.0", "Mine changes mean in prepare, which a checkpoint does not hold"),
        ("import random; random.random()", "Mine.prepare uses the global generator of Python's"),
        ("torch.set_num_threads(torch.get_num_threads() + 1)", "torch.set_num_threads"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_faults_of_prepare_end_the_run_alone(
    trained: Path, tmp_path: Path, prepare: str, reason: str
) -> None:
    teacher = alone(student="r8w4")
    run, other = taught(teacher, plugin(tmp_path, prepare)), taught(teacher, "kd")
    folder = tmp_path / "runs"
    train([teacher], folder)
    found = train([run, other], folder)
    assert found[run.id].status == "failed"
    assert reason in found[run.id].reason
    assert found[other.id].status == "done"


def test_prepare_without_a_teacher_is_refused(tmp_path: Path) -> None:
    attributes = "needs_teacher = False"
    name = plugin(tmp_path, attributes=attributes)
    run = replace(taught(alone(), name), teacher=None, alpha=0.0)
    record = train([run], tmp_path / "runs")[run.id]
    assert record.status == "failed"
    assert record.reason == "Mine.prepare needs a teacher: set needs_teacher = True"
