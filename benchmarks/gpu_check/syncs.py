"""Steps of every method counted for waits: a step must not wait for the device."""

import warnings
from itertools import islice
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.subjects import seen
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.method import Incompatible
from kdbench.training import device as devices
from kdbench.training.teacher import LoadedTeacher

WAITING = ("kdsvd",)
"""Methods that wait in every step, and say so."""
STEPS, WARM = 3, 2


class Reads(TorchDispatchMode):
    """Counter of values that are read from tensors; what a CPU has instead of waits."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero")
        return func(*args, **(kwargs or {}))


def run(check: Check) -> None:
    """Count the waits of three steps of every method."""
    sizes = check.sizes
    data = subjects.noise_images(check, min(sizes.images, 4_096))
    loaded = subjects.teacher(data, sizes.small_pair[0], check.device)
    devices.prepare(check.device)
    waiting = []
    for name in sizes.methods:
        if not check.has_time(name):
            break
        try:
            count, where = waits(name, sizes.small_pair, data, loaded, check.device)
        except Incompatible as reason:
            check.line(what=name, refused=str(reason))
            continue
        waiting += [name] if count else []
        allowed = name in WAITING
        check.expect(not count or allowed, f"{name} does not wait", waits=count, where=where)
    check.outcome.headline = f"waiting: {', '.join(waiting) or 'none'}"


def waits(
    method: str,
    pair: tuple[str, str],
    data: LoadedData,
    loaded: LoadedTeacher,
    device: torch.device,
) -> tuple[int, str]:
    """Return how often three steps wait for the device, and the line of code that did so first.

    Raises:
        Incompatible: the method cannot work on this pair.
    """
    batch = 16
    learner = subjects.learner(subjects.run(method, pair, batch=batch), data, loaded, device)
    batches = train_batches(data, batch_size=batch, seed=0, epoch=1, crop_pad=4, flip=True)
    inputs = [(*b, *seen(learner, b[0], loaded)) for b in islice(batches, WARM + STEPS)]
    for values in inputs[:WARM]:
        learner.train_step(*values)
    if device.type != "cuda":
        with Reads() as reads:
            for values in inputs[WARM:]:
                learner.train_step(*values)
        return reads.count, ""
    torch.cuda.synchronize(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for values in inputs[WARM:]:
                learner.train_step(*values)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [x for x in caught if "synchronizing" in str(x.message)]
    return len(found), f"{found[0].filename}:{found[0].lineno}" if found else ""
