"""No operation waits for the device within an epoch, because a GPU would then be idle."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import CPU, alone, data, taught, train
from torch.utils._python_dispatch import TorchDispatchMode

from kdbench.grid.run import Run
from kdbench.grid.settings import Training
from kdbench.registry import lookup
from kdbench.runs import records
from kdbench.training import teacher as teachers
from kdbench.training.cohort import Cohort
from kdbench.training.context import TrainingContext

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "equal", "is_nonzero", "bincount", "histc",
}  # fmt: skip
"""Operations whose result, or its shape, is needed on the host."""
READS = ("cpu", "numpy", "tolist", "__array__")
"""Methods of a tensor that copy it to the host."""


class Waits(TorchDispatchMode):
    """Counter of operations that would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if name in WAITS or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def waits(monkeypatch: pytest.MonkeyPatch, folder: Path, runs: list[Run]) -> list[str]:
    """Return the names of operations that wait while a cohort trains."""
    loaded = data()
    assert runs[0].teacher
    teacher = teachers.load(folder, runs[0].teacher, num_classes=10, in_channels=1, device=CPU)
    counter = Waits()
    with monkeypatch.context() as patch, counter:
        for name in READS:
            original = getattr(torch.Tensor, name)

            def read(
                self: Any, *args: Any, _name: str = name, _original: Any = original, **kw: Any
            ) -> Any:
                counter.seen.append(_name)
                return _original(self, *args, **kw)

            patch.setattr(torch.Tensor, name, read)
        context = TrainingContext(folder, CPU, checkpoint_seconds=1e9, beat_seconds=0)
        Cohort(runs, teacher, loaded, context).train()
    ended = records.load(folder, (run.id for run in runs))
    assert {ended[run.id].status for run in runs} == {"done"}
    return counter.seen


@pytest.mark.timeout(900)  # trains every method twice, each operation seen by Python
def test_no_method_waits_within_an_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Count the waits of every method: twice the steps per epoch cause no more waits."""
    base = alone(student="r8w4")
    train([base], tmp_path)
    counts = []
    for batch_size in (16, 8):
        training = Training(epochs=2, batch_size=batch_size, pretrain_epochs=1, flip=True)
        runs = []
        for name in lookup.names():
            # Strong views are made on the CPU, image by image, and wait for no device.
            if lookup.describe(name).needs_teacher and lookup.load(name).views == 1:
                changes: dict[str, Any] = {"student": "r8w4", "training": training}
                runs.append(taught(base, name, seed=batch_size, **changes))
        counts.append(waits(monkeypatch, tmp_path, runs))
    few, many = ({name: seen.count(name) for name in seen} for seen in counts)
    assert few
    assert few == many


def test_waiting_method_is_detected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Count the waits of a method that reads a value in each step: they grow with the steps."""

    def loss(self: Any, s: Any, t: Any, batch: Any) -> torch.Tensor:
        return s.logits.sum() * float(s.logits.sum().item() > 0)

    monkeypatch.setattr(lookup.load("kd"), "loss", loss)
    base = alone()
    train([base], tmp_path)
    seen = []
    for batch_size in (16, 8):
        run = taught(base, "kd", beta=1.0, training=Training(epochs=1, batch_size=batch_size))
        seen.append(waits(monkeypatch, tmp_path, [run]).count("_local_scalar_dense"))
    assert seen[1] == seen[0] + 4  # 4 and 8 steps
