"""``kdbench doctor --tune`` on a GPU: precision, CUDA graphs and streams that train fastest.

A cohort with a method each learner trains on noise, in every use of the GPU. One worker per GPU is
what ``kdbench run`` starts, so the number of workers is not measured.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from kdbench.cost import saved_tuning
from kdbench.cost.counting import DataShape
from kdbench.cost.rehearsal import Rehearsal
from kdbench.cost.saved_tuning import GpuTuning, MeasuredGpuUse, precision_advice
from kdbench.cost.throughput import Precision, Workload
from kdbench.errors import UserError
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run, Teacher
from kdbench.grid.settings import Dataset, Training
from kdbench.training.memory import is_out_of_memory
from kdbench.wording import counted

LEARNERS = 8
"""Learners of the measured cohort, enough for the largest number of streams."""
STREAMS = (1, 2, 4, 8)
ROUNDS = 3
SECONDS = 0.8
"""Least duration of a round in seconds."""
BATCH = 64
"""Batch size if no grid is given: that of the papers' protocols."""


@dataclass(frozen=True)
class GpuUse:
    """A use of a GPU by one worker."""

    precision: Precision = "fp32"
    graphs: bool = True
    streams: int = 1


@dataclass(frozen=True)
class Measured:
    """Steps per second of all learners together, in each round; or why there are none."""

    rates: tuple[float, ...] = ()
    problem: str = ""

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates) if self.rates else 0.0


Results = Mapping[GpuUse, Measured]


def gpu_uses() -> list[GpuUse]:
    """Return the uses to measure: each precision without graphs, and with 1, 2, 4, 8 streams."""
    precisions: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
    ways = ((False, 1), *((True, n) for n in STREAMS))
    return [GpuUse(precision, graphs, n) for precision in precisions for graphs, n in ways]


def tune_gpu(workload: Workload, device: torch.device) -> Group:
    """Measure a GPU for about a minute, save the result, and return it.

    Raises:
        UserError: the GPU cannot train at all.
        OSError: the result cannot be saved.
    """
    if workload == Workload():
        workload = replace(workload, batch_size=BATCH)
    name, n = torch.cuda.get_device_name(device), torch.cuda.device_count()
    results = {use: measure_use(workload, use, device) for use in gpu_uses()}
    measured = {use: result for use, result in results.items() if result.rates}
    if not measured:
        problem = next(iter(results.values())).problem
        raise UserError(f"measuring on {name}: {problem}")
    subject = f"{LEARNERS} learners, {workload}"
    tuning = summary(subject, measured)
    file = saved_tuning.save_gpu(name, tuning)
    lines = [
        f"{counted(n, 'GPU')}: one worker each, as kdbench run does by default.",
        *advice(tuning, name),
        f"saved in {file} for {saved_tuning.gpu_key(name)}",
    ]
    return Group(table(f"{subject}, on {name}", workload, results), *map(Text, lines))


def measure_use(workload: Workload, use: GpuUse, device: torch.device) -> Measured:
    """Measure one use; a failure, e.g. for lack of memory, is part of the result."""
    shape = DataShape(
        workload.channels, workload.size, workload.classes, 100 * workload.batch_size, 1
    )
    graphs = "auto" if use.graphs else "never"
    try:
        with torch.random.fork_rng(devices=()):
            loop = Rehearsal(
                runs(workload, use.precision), shape, device, graphs=graphs, streams=use.streams
            )
            try:
                seconds = loop.rounds(ROUNDS, SECONDS)
                graphed = loop.learners[0].graphed
            finally:
                loop.close()
    except RuntimeError as error:
        if is_out_of_memory(error):
            return Measured(problem="out of memory")
        return Measured(problem=" ".join(f"{type(error).__name__}: {error}".split())[:200])
    if use.graphs and graphed != "yes":
        return Measured(problem=f"no CUDA graph: {graphed}")
    return Measured(tuple(LEARNERS / step for step in seconds))


def runs(workload: Workload, precision: Precision) -> list[Run]:
    """Return the runs of a cohort: KD with several weights, a run each."""
    training = Training(batch_size=workload.batch_size, lr=1e-4, precision=precision)
    return [
        Run(
            student=workload.student,
            teacher=Teacher(workload.teacher, "0" * 16),
            dataset=Dataset(name="synthetic"),
            training=training,
            gamma=1.0 + i,
            alpha=1.0,
            temperature=4.0,
            terms=(),
            seed=0,
        )
        for i in range(LEARNERS)
    ]


def summary(subject: str, measured: Results) -> GpuTuning:
    """Return the tuning given by the medians over rounds."""
    return GpuTuning(
        subject=subject,
        uses=tuple(
            MeasuredGpuUse(
                precision=use.precision,
                graphs=use.graphs,
                streams=use.streams,
                steps_per_s=round(result.rate, 2),
            )
            for use, result in measured.items()
        ),
    )


def advice(tuning: GpuTuning, name: str) -> list[str]:
    """Return the recommended settings of ``executor``, and the recommended precision."""
    best = tuning.best()
    assert best is not None
    default = best.graphs and best.streams == Executor().streams
    note = "the default" if default else "set this in a grid; it changes no result"
    lines = [f"executor: {best}   # {note}"]
    for precision in ("tf32", "bf16"):
        other = tuning.best(precision)
        if other is not None and best.precision == "fp32":
            ratio = other.steps_per_s / best.steps_per_s
            lines.append(precision_advice(ratio, name, True, precision))
    return lines


def table(title: str, workload: Workload, results: Results) -> Table:
    """Return a table of all uses: median steps per second, range, and ratio to the first use."""
    heads: Sequence[str] = ("steps/s", "rounds", "images/s", "times")
    result = Table(
        "precision",
        "graphs",
        *(Column(head, justify="right") for head in ("streams", *heads)),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=title,
        title_justify="left",
        title_style="",
    )
    first = next(x.rate for x in results.values() if x.rates)
    for use, measured in results.items():
        row = [use.precision, "yes" if use.graphs else "no", str(use.streams) if use.graphs else ""]
        if measured.rates:
            rate = measured.rate
            row += [
                f"{rate:.1f}",
                f"{min(measured.rates):.1f} to {max(measured.rates):.1f}",
                f"{rate * workload.batch_size:,.0f}",
                f"{rate / first:.2f}",
            ]
        else:
            row += ["-", measured.problem, "", ""]
        result.add_row(*row)
    return result
