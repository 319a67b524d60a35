"""Memory of cohorts, compared with the prediction of ``kdbench plan``.

python -m benchmarks.memory [--student S] [--teacher T] [--sizes 1 2 4 8 16] [--methods M ...]
                            [--precision bf16] [--device cuda] [--graphs never] [--streams N]

The defaults are cohorts of 1 to 16 methods, resnet32x4 -> resnet8x4, batch 64, 50,000 random images
of 3x32x32 in 100 classes, fp32, one thread, no trained weights. Each cohort is trained in a fresh
process: a few steps of every phase and an evaluation, with a checkpoint and a record at the end as
usual. The measured value is the peak memory of the process (VmHWM); on a GPU that of the GPU: the
most that torch reserved, and what the driver counts besides, so nothing else may use the GPU.
"""

import argparse
import json
import os
import platform
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from kdbench.cost.cohort_memory import footprint, process_bytes
from kdbench.cost.estimate import Estimator
from kdbench.data.dataset import LoadedData
from kdbench.errors import UserError
from kdbench.execution.devices import choose_device
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.run import Run, Teacher, Term
from kdbench.grid.settings import Dataset, Training
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.registry import lookup
from kdbench.training.cohort import Cohort
from kdbench.training.context import TrainingContext
from kdbench.training.device import prepare
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

METHODS = (
    "kd", "fitnets", "at", "sp", "cc", "vid", "rkd", "pkt",
    "ab", "ft", "fsp", "nst", "crd", "irg", "hkd", "semckd",
)  # fmt: skip
STEPS = 4
"""Steps to train of each phase."""
TESTED = 1000
"""Images of the evaluation: two batches."""
LIMIT_MB = 6 * 1024
"""Limit for a cohort of sixteen, including teacher, torch and data."""
EXPECTED = (": done", ": skipped", "not a CUDA graph")
"""Parts of the lines that a training may report."""
WITHIN = 0.2
"""Largest relative error of a prediction."""


@dataclass(frozen=True)
class Setting:
    """A cohort to measure.

    Attributes:
        student: architecture.
        teacher: architecture; None: students alone.
        dataset: name of the data set with the shape of the images.
        methods: one per learner.
        batch: number of images.
        precision: "fp32", "tf32" or "bf16".
        device: "cpu" or a GPU.
        graphs: as ``executor.graphs``.
        streams: as ``executor.streams``.
    """

    student: str
    teacher: str | None
    dataset: str
    methods: tuple[str, ...]
    batch: int
    precision: str
    device: str = "cpu"
    graphs: str = "auto"
    streams: int = 4

    @property
    def on_gpu(self) -> bool:
        """Whether the memory of a GPU is measured."""
        return self.device != "cpu"

    def runs(self) -> list[Run]:
        """Return a run per method; runs without a teacher differ in their learning rate."""
        return [self._run(i, method) for i, method in enumerate(self.methods)]

    def _run(self, i: int, method: str) -> Run:
        training = Training(
            batch_size=self.batch,
            epochs=1,
            lr=1e-4 * (1 if self.teacher else 1 + i),
            crop_pad=4,
            precision=self.precision,  # type: ignore[arg-type]
        )
        teacher = Teacher(self.teacher, "0" * 16) if self.teacher else None
        about = lookup.describe(method) if teacher else None
        return Run(
            student=self.student,
            teacher=teacher,
            dataset=Dataset.model_validate({"name": self.dataset}),
            training=training,
            gamma=1.0,
            alpha=1.0 if teacher else 0.0,
            temperature=4.0,
            terms=(Term(method, about.beta, about.hyper),) if about else (),
            pretrain=(1, 1e-4) if about and about.has_pretrain else None,
            seed=0,
            method=method if about else "student",
        )


class Short(Cohort):
    """Cohort that trains only the last steps of every epoch."""

    def _train_epoch(self, phase: str, epoch: int, group: list[Learner]) -> None:
        for learner in group:
            learner.step = max(learner.step, learner.steps - STEPS)
        super()._train_epoch(phase, epoch, group)


def random_data(name: str, device: torch.device) -> LoadedData:
    """Return noise in the shape of a data set, with few test images."""
    from kdbench.cost.estimate import data_shape

    facts = data_shape(Dataset.model_validate({"name": name}))
    size = (facts.size, facts.size, facts.channels)
    test = torch.randint(256, (facts.test, *size), dtype=torch.uint8)[:TESTED]
    return LoadedData(
        name=name,
        title=name,
        classes=tuple(map(str, range(facts.classes))),
        train_images=torch.randint(256, (facts.train, *size), dtype=torch.uint8).to(device),
        train_labels=(torch.arange(facts.train) % facts.classes).to(device),
        test_images=test.to(device),
        test_labels=(torch.arange(facts.test) % facts.classes)[:TESTED].to(device),
        val_images=None,
        val_labels=None,
        mean=(0.5,) * facts.channels,
        std=(0.25,) * facts.channels,
        digest="",
    )


def untrained(name: str, data: LoadedData) -> LoadedTeacher:
    """Return an untrained teacher, prepared as for a cohort."""
    network = zoo.create(name, num_classes=data.num_classes, in_channels=data.channels)
    network.eval().requires_grad_(False)
    fast = folded(network).to(data.train_images.device).to(memory_format=torch.channels_last)
    return LoadedTeacher(network, fast, None, "")


def resident(key: str = "VmHWM") -> float:
    """Return the memory of this process in MB: its peak (VmHWM) or its present value (VmRSS)."""
    match = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) / 1024


def measured(setting: Setting) -> dict[str, float]:
    """Train a cohort in this process; return MB at the start and at the peak."""
    torch.set_num_threads(1)
    device = torch.device(setting.device)
    prepare(device, setting.precision)
    before = gpu_used(device) if setting.on_gpu else resident("VmRSS")
    data = random_data(setting.dataset, device)
    teacher = untrained(setting.teacher, data) if setting.teacher else None
    runs = setting.runs()
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        tell = lambda beats, line: lines.append(line) if line else None  # noqa: E731
        place = TrainingContext(
            Path(folder),
            device,
            checkpoint_seconds=1e9,
            graphs=setting.graphs,
            streams=setting.streams,
            report=tell,
        )
        Short(runs, teacher, data, place).train()
    if wrong := [line for line in lines if not any(x in line for x in EXPECTED)]:
        raise RuntimeError("; ".join(wrong))
    if not setting.on_gpu:
        return {"before_mb": before, "peak_mb": resident()}
    return {"before_mb": before, **gpu_peak(device)}


def gpu_peak(device: torch.device) -> dict[str, float]:
    """Return the peak memory of this process on a GPU in MB, and its parts."""
    unknown_to_torch = gpu_used(device) - torch.cuda.memory_reserved(device) / 2**20
    reserved = torch.cuda.max_memory_reserved(device) / 2**20
    return {
        "peak_mb": reserved + unknown_to_torch,
        "reserved_mb": reserved,
        "allocated_mb": torch.cuda.max_memory_allocated(device) / 2**20,
        "cuda_mb": unknown_to_torch,
    }


def gpu_used(device: torch.device) -> float:
    """Return the memory of a GPU that is in use, by any process, in MB."""
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**20


def predicted(setting: Setting) -> float:
    """Return the memory of a cohort as ``kdbench plan`` predicts it, in MB."""
    costs = list(map(Estimator(), setting.runs()))
    if not setting.on_gpu:
        return footprint(costs, process_bytes()).total / 2**20
    lanes = 0 if setting.graphs == "never" else setting.streams
    return footprint(costs, streams=lanes).total / 2**20


def compare(setting: Setting) -> dict[str, object]:
    """Measure and predict a cohort's memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        memory = pool.submit(measured, setting).result()
    expected = predicted(setting)
    ratio = round(expected / memory["peak_mb"], 3)
    row: dict[str, object] = {
        "what": f"memory predicted / measured, {setting.teacher} -> {setting.student}",
        "n": len(setting.methods),
        "ratio": ratio,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "dataset": setting.dataset,
        "batch": setting.batch,
        "precision": setting.precision,
        "measured_mb": round(memory["peak_mb"]),
        "predicted_mb": round(expected),
        "before_mb": round(memory["before_mb"]),
        "torch": torch.__version__,
        "target": [1 - WITHIN, 1 + WITHIN],
        "reached": abs(ratio - 1) <= WITHIN,
    }
    if setting.on_gpu:
        row |= {key: round(memory[key]) for key in ("reserved_mb", "allocated_mb", "cuda_mb")}
        row |= {
            "machine": torch.cuda.get_device_name(torch.device(setting.device)),
            "graphs": setting.graphs,
            "streams": setting.streams,
        }
    elif setting.methods == METHODS and setting.student == "resnet8x4":
        row |= {"target_mb": LIMIT_MB}
        row["reached"] = row["reached"] and memory["peak_mb"] <= LIMIT_MB
    return row


def main() -> None:
    """Print a JSON line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="resnet8x4", metavar="NAME")
    parser.add_argument(
        "--teacher", default="resnet32x4", metavar="NAME", help="Architecture, or none."
    )
    parser.add_argument("--dataset", default="cifar100", choices=sorted(DATASETS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16"))
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="METHOD")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu).")
    parser.add_argument("--graphs", default="auto", choices=("auto", "never"))
    parser.add_argument("--streams", type=int, default=4, metavar="N")
    parser.add_argument("--sizes", nargs="+", type=int, default=None)
    options = parser.parse_args()
    teacher = None if options.teacher == "none" else options.teacher
    try:
        device = str(choose_device(options.device, key="--device"))
    except UserError as error:
        parser.error(str(error))
    most = len(options.methods)
    for size in options.sizes or sorted({min(n, most) for n in (1, 2, 4, 8, 16)}):
        methods = tuple(options.methods[:size])
        setting = Setting(
            options.student,
            teacher,
            options.dataset,
            methods,
            options.batch,
            options.precision,
            device,
            options.graphs,
            options.streams,
        )
        print(json.dumps(compare(setting)), flush=True)


if __name__ == "__main__":
    main()
