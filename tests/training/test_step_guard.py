"""No method changes the numbers of others, and one whose run could not be resumed fails at once."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tape_recorder import TapeRecorder
from tiny_runs import alone, data, numbers, stop_after, taught, train

from kdbench.data.batches import train_batches
from kdbench.grid.run import Run
from kdbench.registry.process_state import SETTINGS
from kdbench.training import cohort
from kdbench.training.cohort import Stopped
from kdbench.training.steps import GraphSteps

METHOD = '''"""A method for tests (2020)."""
import os, random, signal, warnings
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F
from kdbench.method import Method
{top}

class Mine(Method):
    def __init__(self, setup):
        super().__init__(setup)
        self.setup = setup
        {init}

    def loss(self, s, t, batch):
        {loss}
        return F.mse_loss(s.logits, t.logits)

    {more}
'''
HOOK = """
class Hook(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return grad
"""

WRITES = {
    "labels": ("batch.labels[::2] = 0", "batch.labels"),
    "images": ("batch.images.mul_(0.5).add_(0.5 * batch.images.flip(0))", "batch.images"),
    "index": ("batch.index.zero_()", "batch.index"),
    "whole index": ("batch.index._base.zero_()", "batch.index"),
    "logits": ("q = t.logits; q -= q.mean(1, keepdim=True)", "the teacher's logits"),
    "stages": ("t.stages[1].relu_().mul_(2)", r"the teacher's stages\[1\]"),
    "preacts": ("t.preacts[0].clamp_(max=0.1)", r"the teacher's (preacts|stages)\[0\]"),
    "embedding": ("F.normalize(t.embedding, out=t.embedding)", "the teacher's embedding"),
    "stem": ("t.stem.detach()[0].fill_(7)", "the teacher's stem"),
    "data": ("t.logits.data.mul_(3)", "the teacher's logits"),
    "numpy": ("batch.images.numpy()[:] = 0", "batch.images"),
    "other memory": ("t.logits.data = torch.zeros_like(t.logits)", "the teacher's logits"),
    "gradient": ("t.logits.requires_grad_()", "the teacher's logits"),
    "then raises": ("batch.labels.zero_(); raise KeyError('x')", "batch.labels"),
    "later": ("batch.labels.zero_() if batch.step == 6 else None", "batch.labels"),
}
SETS = {
    "grad": ("torch.set_grad_enabled(False)", "torch.set_grad_enabled"),
    "inference": (
        "type(self).g = torch.inference_mode(); type(self).g.__enter__()",
        ".*inference_mode",
    ),
    "dtype": ("torch.set_default_dtype(torch.float64)", "torch.set_default_dtype"),
    "device": ("torch.set_default_device('meta')", "torch.set_default_device"),
    "threads": ("torch.set_num_threads(torch.get_num_threads() + 1)", "torch.set_num_threads"),
    "deterministic": (
        "torch.use_deterministic_algorithms(True)",
        "torch.use_deterministic_algorithms",
    ),
    "anomaly": ("torch.autograd.set_detect_anomaly(True)", "torch.autograd.set_detect_anomaly"),
    "denormal": ("torch.set_flush_denormal(True)", "torch.set_flush_denormal"),
    "matmul": (
        "torch.set_float32_matmul_precision('medium')",
        "torch.set_float32_matmul_precision",
    ),
    "cudnn": ("torch.backends.cudnn.allow_tf32 = False", "torch.backends.cudnn.allow_tf32"),
    "onednn": ("torch._C._set_mkldnn_enabled(False)", "torch.backends.mkldnn.enabled"),
    "folder": ("os.chdir('/')", "os.chdir"),
    "signal": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal.signal"),
    "function": ("F.huber_loss = F.mse_loss", "functions of torch"),
    "operation": ("torch.bincount = torch.argsort", "functions of torch"),
    "method of tensors": ("torch.Tensor.median = torch.Tensor.sum", "functions of torch"),
}
LATE = {
    "layer": (
        "if not hasattr(self, 'fc'): self.fc = nn.Linear(2, 2)",
        r"Mine makes or changes fc.weight, fc.bias in a step: .* in __init__",
    ),
    "buffer": ("self.register_buffer('b', torch.zeros(2))", "Mine makes or changes b in a step"),
    "list": (
        "self.kept = getattr(self, 'kept', []) + [nn.Linear(2, 2)]",
        r"Mine keeps kept where the optimiser does not train it: .* nn.ModuleList",
    ),
    "leaf": (
        "self.kept = {'w': [torch.zeros(2, requires_grad=True)]}",
        "Mine keeps kept where the optimiser does not train it",
    ),
    "counter": (
        "self.n = getattr(self, 'n', 0) + 1; return self.n * s.logits.mean()",
        r"Mine changes n in a step, which a checkpoint does not hold, .*register_buffer",
    ),
    "counter in an object": (
        "self.kept = getattr(self, 'kept', [[0]]); self.kept[0][0] += 1",
        "Mine changes kept in a step",
    ),
    "generator": (
        "self.g = getattr(self, 'g', torch.Generator().manual_seed(0)); "
        "return (s.logits * torch.rand(10, generator=self.g)).mean()",
        "Mine changes g in a step",
    ),
    "item": ("return F.mse_loss(s.logits, t.logits).item()", "Mine.loss returned float, expected"),
    "detached": ("return s.logits.mean().detach()", "Mine.loss has no gradient: is something"),
    "vector": ("return s.logits.mean(1)", r"Mine.loss has shape \[16\], expected a scalar"),
    "python's random": ("random.random()", "Mine.loss uses the global generator of Python's"),
    "numpy": ("np.random.seed(3)", "Mine.loss uses the global generator of numpy.random"),
}


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Check that tests leave the process as it was, so that none hides what another finds."""
    watched = [setting for setting in SETTINGS if setting.name != "os.environ"]
    before = [setting.get() for setting in watched]
    yield
    assert [setting.get() for setting in watched] == before


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, dict[str, Any]]:
    """Return a folder with a trained teacher, its run, and the numbers of KD and AT alone."""
    folder = tmp_path_factory.mktemp("school")
    teacher = alone(student="r8w4")
    train([teacher], folder)
    expected = {}
    for name in ("kd", "at"):
        run = taught(teacher, name)
        train([run], folder)
        expected[name] = numbers(folder, run)
    return folder, teacher, expected


School = tuple[Path, Run, dict[str, Any]]


def plugin(folder: Path, *, top: str = "", init: str = "", loss: str = "", more: str = "") -> str:
    """Write a method's file, and return its path."""
    path = folder / "mine.py"
    path.write_text(METHOD.format(top=top, init=init or "pass", loss=loss or "pass", more=more))
    return str(path)


def reason(school: School, folder: Path, method: str, at: int = 0, **context: Any) -> str:
    """Train a method with KD and AT, which must be as alone; return its reason, "" if it is done.

    Args:
        at: place of the method among the three.
    """
    source, teacher, expected = school
    if not (folder / "runs").exists():
        shutil.copytree(source / teacher.id, folder / "runs" / teacher.id)
    mine, kd, attention = (taught(teacher, name) for name in (method, "kd", "at"))
    runs = [kd, attention]
    runs.insert(at, mine)
    done = train(runs, folder / "runs", **context)
    assert numbers(folder / "runs", kd) == expected["kd"]
    assert numbers(folder / "runs", attention) == expected["at"]
    record = done[mine.id]
    assert record.status == ("failed" if record.reason else "done")
    assert "\n" not in record.reason
    return record.reason


@pytest.mark.parametrize("name", WRITES)
def test_write_into_what_others_read_fails_the_writer_alone(
    school: School, tmp_path: Path, name: str
) -> None:
    loss, what = WRITES[name]
    at = 1 if name == "images" else 0
    found = reason(school, tmp_path, plugin(tmp_path, loss=loss), at)
    assert re.match(f"Mine changes {what}, which other methods read: work on a copy", found), found


@pytest.mark.parametrize("name", SETS)
def test_change_of_the_process_is_undone_and_named(
    school: School, tmp_path: Path, name: str
) -> None:
    loss, what = SETS[name]
    found = reason(school, tmp_path, plugin(tmp_path, loss=loss))
    assert re.match(f"Mine changes ({what}).* for the whole process", found), found


@pytest.mark.parametrize("name", LATE)
def test_run_that_could_not_be_resumed_or_learns_nothing_fails_at_once(
    school: School, tmp_path: Path, name: str
) -> None:
    loss, message = LATE[name]
    found = reason(school, tmp_path, plugin(tmp_path, loss=loss))
    assert re.match(message, found), found


PRETRAIN = """def pretrain(self, student):
        {}
        return student.trunk()

    def pretrain_loss(self, s, t, batch):
        {}
        return F.mse_loss(s.logits, t.logits)
"""
PREDICT = """def predict(self, s):
        {}
        return s.logits
"""
TRACE = """def trace(self, s, t):
        {}
        return {{}}
"""
THREADS = "torch.set_num_threads(torch.get_num_threads() + 1)"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"init": THREADS}, "Mine changes torch.set_num_threads"),
        ({"init": "setup.train_labels[::2] = 0"}, "Mine.__init__ changes setup.train_labels"),
        (
            {"init": "setup.train_labels.numpy()[:] = 0"},
            "Mine.__init__ changes setup.train_labels",
        ),
        ({"init": "setup.teacher.logits.zero_()"}, "Mine.__init__ changes setup.teacher.logits"),
        (
            {"init": "setup.teacher_head.weight.data.zero_()"},
            "Mine.__init__ changes the teacher head's weight",
        ),
        ({"more": PRETRAIN.format(THREADS, "pass")}, "Mine.pretrain changes torch.set_num"),
        ({"more": PRETRAIN.format("pass", THREADS)}, "Mine changes torch.set_num_threads"),
        (
            {"more": PRETRAIN.format("pass", "t.logits.zero_()")},
            "Mine changes the teacher's logits",
        ),
        ({"more": PREDICT.format(THREADS)}, "Mine changes torch.set_num_threads"),
        (
            {"more": PREDICT.format("None if torch.is_grad_enabled() else os.chdir('/')")},
            "Mine changes os.chdir",
        ),
        ({"more": TRACE.format(THREADS)}, "Mine changes torch.set_num_threads"),
        ({"more": TRACE.format("t.logits.data.zero_()")}, "Mine changes the teacher's logits"),
        (
            {"top": HOOK, "loss": "return F.mse_loss(Hook.apply(s.logits), t.logits)"},
            "Mine changes torch.set_num_threads",
        ),
        ({"top": "torch.set_default_dtype(torch.float64)"}, r".*mine.py: the import changes torch"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_all_code_of_a_method_is_watched(
    school: School, tmp_path: Path, parts: dict[str, str], message: str
) -> None:
    found = reason(school, tmp_path, plugin(tmp_path, **parts))
    assert re.match(message, found), found


@pytest.mark.parametrize(
    "parts",
    [
        {"top": "warnings.simplefilter('error')", "loss": "warnings.simplefilter('error')"},
        {"top": "os.environ['MINE'] = '1'", "init": "os.environ.pop('HOME', None)"},
        {"loss": "torch.manual_seed(0)"},
        {"loss": "torch.rand(3)", "more": PREDICT.format("torch.rand(3)")},
        {"init": "setup.teacher_head.requires_grad_(); self.head = setup.teacher_head"},
        {"init": "self.setup.train_labels.add(1)", "loss": "t.logits.clone().zero_()"},
        {"loss": "batch.generator(1, 'x').manual_seed(3)"},
        {"init": "self.table = None", "loss": "self.table = self.table or {'size': (3, 4.5)}"},
    ],
    ids=lambda parts: "; ".join(parts.values()),
)
def test_harmless_code_is_allowed(school: School, tmp_path: Path, parts: dict[str, str]) -> None:
    assert not reason(school, tmp_path, plugin(tmp_path, **parts))


def test_random_prediction_does_not_depend_on_the_learners_before(
    school: School, tmp_path: Path
) -> None:
    noise = PREDICT.replace("return s.logits", "return s.logits + 9 * torch.randn_like(s.logits)")
    method = plugin(tmp_path, more=noise.format("pass"))
    mine = taught(school[1], method)
    seen = []
    for at in (0, 2):
        assert not reason(school, tmp_path / str(at), method, at)
        seen.append(numbers(tmp_path / str(at) / "runs", mine))
    assert seen[0] == seen[1]


def test_import_that_draws_does_not_change_the_initial_weights(
    school: School, tmp_path: Path
) -> None:
    """The first of several runs imports the file, the others do not."""
    method = plugin(tmp_path, top="torch.rand(5)", init="self.head = nn.Linear(2, 2)")
    seen = []
    for folder in ("imports", "has imported"):
        (tmp_path / folder).mkdir()
        assert "no gradient" not in reason(school, tmp_path / folder, method)
        saved = tmp_path / folder / "runs" / taught(school[1], method).id / "checkpoint.pt"
        seen.append(torch.load(saved, weights_only=True)["methods"])
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


SAVED = """def get_extra_state(self):
        return {"n": self.n}

    def set_extra_state(self, state):
        self.n = state["n"]
"""


def test_python_state_in_the_checkpoint_is_allowed_and_resumes(
    school: School, tmp_path: Path
) -> None:
    count = "self.n += 1; return self.n * F.mse_loss(s.logits, t.logits)"
    method = plugin(tmp_path, init="self.n = 0", loss=count, more=SAVED)
    assert not reason(school, tmp_path / "whole", method)
    mine = taught(school[1], method)
    for steps in (2, 3, 100):
        with contextlib.suppress(Stopped):
            reason(school, tmp_path / "parts", method, stop=stop_after(steps))
    assert numbers(tmp_path / "whole" / "runs", mine) == numbers(tmp_path / "parts" / "runs", mine)


@pytest.mark.parametrize(
    "loss",
    [
        "batch.labels.zero_()",
        "t.logits.data.mul_(3)",
        "batch.labels.zero_() if batch.epoch == 2 else None",
        THREADS,
    ],
)
def test_recorded_steps_are_watched(
    school: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    monkeypatch.setattr(cohort, "make_steps", partial(GraphSteps, recorder=TapeRecorder(2)))
    folder, teacher, _ = school
    runs = {name: taught(teacher, name) for name in ("kd", "at")}
    copied = tmp_path / "alone"
    shutil.copytree(folder / teacher.id, copied / teacher.id)
    for run in runs.values():
        train([run], copied)
    expected = {name: numbers(copied, run) for name, run in runs.items()}  # a tape's last bits
    found = reason((folder, teacher, expected), tmp_path, plugin(tmp_path, loss=loss))
    assert found.startswith("Mine changes ")


def test_batches_and_labels_share_no_memory_with_the_data_set() -> None:
    loaded = data()
    parts = list(train_batches(loaded, batch_size=8, seed=0, epoch=1))
    stored = {x.untyped_storage().data_ptr() for x in (loaded.train_images, loaded.train_labels)}
    assert not stored & {x.untyped_storage().data_ptr() for part in parts for x in part}
