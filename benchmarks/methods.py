"""Cost of a training step with each method, compared with KD's; both include the teacher's forward.

resnet32x4 -> resnet8x4, batch 64, 3x32x32, 100 classes, 50,000 training labels, fp32, one thread,
random images and weights. A step of KD precedes every step of a method, and the ratio is the median
over rounds of the ratios of two neighbours. Time is the processor time of the process: other
programs slow both steps down and change the ratio little. ``flop_floor`` is the ratio of the FLOPs
of convolutions and matrix products, that is, the ratio if nothing else took time.
``peak_mb_above_kd`` compares the peaks of fresh processes that train four steps. For networks that
learn together, ``ratio_to_student`` compares with the step of one student alone, in the same way.

``--operations`` prints a table of the operations of a step instead, at batch 4: of the student's
forward pass, the loss, the backward pass and the optimiser, without the teacher's forward. Most of
them are a kernel on a GPU; views and allocations, which are none, are left out. The columns are the
forms for CPUs and for GPUs; see ``kdbench.device_forms``.
"""

import argparse
import contextlib
import json
import platform
import re
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.subjects import CLASSES, learner, machine, noise, seen, teacher
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.device_forms import gpu_forms
from kdbench.registry import lookup
from kdbench.training.memory import keep_memory
from kdbench.training.teacher import LoadedTeacher

BATCH = 64
TARGET = 1.20
"""Largest ratio to KD's step, for every method without another target."""
LOGIT = 1.05
"""The same for methods that use logits only, of one view."""
LOOK_AHEAD = {"l2tww": 8.5}
"""Method that looks ahead -> largest ratio to KD's step, with two steps ahead."""
FOUR_PEERS = {"okddip": 1.9, "cl_ilr": 1.9}
"""Four networks with shared stages -> largest ratio to one student's step without a teacher."""
ALONE = "label_smoothing"
"""A method whose step is that of a student alone, within what can be measured."""
ABOVE_FLOOR = {"semckd": 1.08}
"""Method -> largest ratio to its own ``flop_floor``."""
MEMORY = {"crd": 150.0, "nst": 100.0}
"""Method -> largest peak above KD's, in MB."""

SAMPLES = 50_000


class Inputs(NamedTuple):
    """A data set of noise, a batch of it, and a teacher."""

    data: LoadedData
    images: Tensor
    labels: Tensor
    positions: Tensor
    teacher: LoadedTeacher


def inputs() -> Inputs:
    """Return the same inputs in every process."""
    data = noise(SAMPLES, CLASSES)
    batch = next(train_batches(data, batch_size=BATCH, seed=0, epoch=1, crop_pad=4, flip=True))
    return Inputs(data, *batch, teacher(data))


class MethodInTraining:
    """A method in training, in one of its phases."""

    def __init__(self, method: str, phase: str, given: Inputs) -> None:
        self.given = given
        self.learner = learner(method, given.data, given.teacher, pretrain=True)
        self.phases = list(dict.fromkeys([str(self.learner.phase), "train"]))
        if self.learner.phase != phase:
            self.learner.next_epoch()
        self.method, self.phase = method, phase

    def step(self) -> float:
        """Return the processor seconds of one step, including the teacher's forward."""
        images, labels, positions = self.given[1:4]
        start = time.process_time()
        t, *views = seen(self.learner, images, self.given.teacher)
        self.learner.train_step(images, labels, positions, t, *views)
        return time.process_time() - start

    def flops(self) -> int:
        """Return the FLOPs of one step."""
        counter = FlopCounterMode(display=False)
        with counter:
            self.step()
        return counter.get_total_flops()


def peak(method: str, phase: str) -> float:
    """Return this process's peak memory in MB after four steps; call it in a fresh process."""
    torch.set_num_threads(1)
    keep_memory()
    given = inputs()
    training = MethodInTraining(method, phase, given)
    for _ in range(4):
        training.step()
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss includes the peak of the parent process
        match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if match:
            return int(match[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if platform.system() == "Darwin" else 1024)


def peak_of(training: MethodInTraining) -> float:
    """Return ``peak`` of a method, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak, training.method, training.phase).result()


def compare(names: list[str], rounds: int) -> None:
    """Print a JSON line per method and phase."""
    given = inputs()
    kd = MethodInTraining("kd", "train", given)
    alone = MethodInTraining(ALONE, "train", given)
    alone.step()
    floor, of_kd = kd.flops(), statistics.median(peak_of(kd) for _ in range(3))
    for name in names:
        for phase in MethodInTraining(name, "train", given).phases:
            training = MethodInTraining(name, phase, given)
            flops = training.flops() / floor  # this step warms up, too
            times = [(kd.step(), training.step()) for _ in range(rounds)]
            row: dict[str, Any] = {
                "what": name,
                "phase": phase,
                "ratio": round(statistics.median(mine / other for other, mine in times), 3),
                "flop_floor": round(flops, 3),
                "peak_mb_above_kd": round(peak_of(training) - of_kd, 1),
                "n": rounds,
                "step_ms": round(1e3 * statistics.median(mine for _, mine in times), 1),
                "kd_ms": round(1e3 * statistics.median(other for other, _ in times), 1),
                "kd_peak_mb": round(of_kd, 1),
            }
            if lookup.describe(name).brings_peers:
                pairs = [(alone.step(), training.step()) for _ in range(rounds)]
                ratio = statistics.median(mine / other for other, mine in pairs)
                row |= {"ratio_to_student": round(ratio, 3)}
            print(json.dumps(row | judged(row) | machine()), flush=True)


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """Return the target, and whether it was reached."""
    name, ratio = row["what"], row["ratio"]
    about = lookup.describe(name)
    plain_logits = about.family == "logit" and not {"views", "last", "stages"} & {*about.uses}
    target = LOOK_AHEAD.get(name, LOGIT if plain_logits else TARGET)
    if name in ABOVE_FLOOR:
        target = round(ABOVE_FLOOR[name] * row["flop_floor"], 3)
    if name in FOUR_PEERS:
        target, ratio = FOUR_PEERS[name], row["ratio_to_student"]
    room = MEMORY.get(name)
    reached = ratio <= target and (room is None or row["peak_mb_above_kd"] <= room)
    return {"target": target, "reached": reached} | ({"target_mb": room} if room else {})


class Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = [value.alias_info for value in func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in returned)
        name = func.overloadpacket.__name__
        allocates = name.startswith(("empty", "new_empty", "detach", "_unsafe_view"))
        self.number += not (view or allocates or func.namespace == "profiler")
        return func(*args, **(kwargs or {}))


def operations(
    name: str, data: LoadedData, of: LoadedTeacher, batches: list[Any]
) -> dict[str, Any]:
    """Return the number of operations of a method's second step, in both forms and each phase."""
    row: dict[str, Any] = {"what": name}
    for form, context in (("cpu", contextlib.nullcontext), ("gpu", gpu_forms)):
        one = learner(name, data, of, pretrain=True, batch_size=len(batches[0][0]))
        for phase in dict.fromkeys((str(one.phase), "train")):
            for images, labels, index in batches:
                t, *views = seen(one, images, of)
                with context(), Operations() as counted:
                    one.train_step(images, labels, index, t, *views)
            row[form if phase == "train" else f"{form}_{phase}"] = counted.number
            one.next_epoch()
    return row


def count(names: list[str]) -> None:
    """Print a table of ``operations``, one method a line."""
    data = noise(SAMPLES, CLASSES)
    order = train_batches(data, batch_size=4, seed=0, epoch=1, crop_pad=4, flip=True)
    batches, of = list(islice(order, 2)), teacher(data)
    print("| method | operations on a CPU | on a GPU |\n|---|---:|---:|")
    for name in names:
        row = operations(name, data, of, batches)
        print(f"| {name} | {row['cpu']} | {row['gpu']} |", flush=True)
        if "cpu_pretrain" in row:
            first = f"{row['cpu_pretrain']} | {row['gpu_pretrain']}"
            print(f"| {name}, before training | {first} |", flush=True)


def main() -> None:
    """Measure all methods, or those of ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=lookup.names(), metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--operations", action="store_true", help="count operations instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    if options.operations:
        count(options.only)
    else:
        compare(options.only, options.rounds)


if __name__ == "__main__":
    main()
