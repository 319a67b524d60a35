"""``kdbench doctor --tune`` on a pretended GPU: uses, summary, advice, and what is saved."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console, RenderableType

from kdbench.cost import rehearsal, saved_tuning, tune, tune_gpu
from kdbench.cost.saved_tuning import GpuTuning, MeasuredSplit, Tuning
from kdbench.cost.throughput import Workload
from kdbench.cost.tune_gpu import LEARNERS, GpuUse, Measured, gpu_uses, measure_use
from kdbench.errors import UserError

SMALL = Workload("r8w4", "r8w3", batch_size=4, channels=1, size=8, classes=10)
GPU = torch.device("cuda:0")


def text(renderable: RenderableType) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(renderable, highlight=False, markup=False)
    return captured.get()


def rate(use: GpuUse) -> float:
    """A GPU on which four streams are nearly as fast as eight, and bf16 pays."""
    own = {1: 100.0, 2: 150.0, 4: 200.0, 8: 204.0}[use.streams] if use.graphs else 50.0
    return own * {"fp32": 1.0, "tf32": 1.01, "bf16": 2.0}[use.precision]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Workload, GpuUse]]:
    """Pretend that there is a GPU with the rates above; return what is measured."""
    measured: list[tuple[Workload, GpuUse]] = []

    def measure(workload: Workload, use: GpuUse, device: torch.device) -> Measured:
        measured.append((workload, use))
        if use == GpuUse("tf32", True, 8):
            return Measured(problem="out of memory")
        return Measured((0.9 * rate(use), rate(use), 1.1 * rate(use)))

    monkeypatch.setattr(tune_gpu, "measure_use", measure)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setenv("KDBENCH_MACHINE", str(tmp_path / "machine.json"))
    return measured


def test_precisions_graphs_and_streams_are_measured() -> None:
    uses = gpu_uses()
    assert len(uses) == len(set(uses)) == 15
    assert uses[0] == GpuUse("fp32", False, 1)
    for precision in ("fp32", "tf32", "bf16"):
        ways = [(use.graphs, use.streams) for use in uses if use.precision == precision]
        assert ways == [(False, 1), (True, 1), (True, 2), (True, 4), (True, 8)]


def test_tuning_of_a_gpu_is_shown_and_saved(card: Any) -> None:
    output = text(tune.tune(SMALL))
    assert [use for _, use in card] == gpu_uses()
    assert "3 GPUs: one worker each" in output
    assert "executor: {graphs: auto, streams: 4}   # the default" in output
    assert "tf32 trains at 1.01 times the speed of fp32 on a GPU: leave precision at" in output
    assert (
        "bf16 trains at 2.00 times the speed of fp32 on a GPU: protocol.precision: bf16 pays"
        in (output)
    )
    rows = [line.split() for line in output.splitlines()]
    assert ["fp32", "no", "50.0", "45.0", "to", "55.0", "200", "1.00"] in rows
    assert ["bf16", "yes", "4", "400.0", "360.0", "to", "440.0", "1,600", "8.00"] in rows
    assert ["tf32", "yes", "8", "-", "out", "of", "memory"] in rows
    kept = saved_tuning.load_gpu("a GPU")
    assert kept is not None and len(kept.uses) == 14
    assert str(kept.best()) == "{graphs: auto, streams: 4}"
    assert saved_tuning.load_gpu("another GPU") is None


def test_papers_batch_is_measured_without_a_grid(card: Any) -> None:
    tune.tune(Workload())
    assert {workload.batch_size for workload, _ in card} == {64}
    card.clear()
    tune.tune(SMALL)
    assert {workload for workload, _ in card} == {SMALL}


def test_gpu_and_cores_are_saved_side_by_side(card: Any, tmp_path: Path) -> None:
    cores = Tuning(
        subject="x", ways=(MeasuredSplit(workers=2, threads=1, steps_per_s=3.0),), bf16=0.5
    )
    saved_tuning.save(cores)
    tune.tune(SMALL)
    assert saved_tuning.load() == cores
    assert json.loads((tmp_path / "machine.json").read_bytes()).keys() == {
        saved_tuning.machine_name(),
        saved_tuning.gpu_key("a GPU"),
    }


def test_best_use_has_few_streams_and_no_other_precision() -> None:
    tuning = tune_gpu.summary("x", {use: Measured((rate(use),)) for use in gpu_uses()})
    assert str(tuning.best()) == "{graphs: auto, streams: 4}"
    best = tuning.best("bf16")
    assert best is not None and (best.precision, best.steps_per_s) == ("bf16", 400.0)
    eager = GpuTuning(
        subject="x",
        uses=tuple(
            use.model_copy(update={"steps_per_s": 1.0 if use.graphs else 9.0})
            for use in tuning.uses
        ),
    )
    assert str(eager.best()) == "{graphs: never}"
    assert tune_gpu.advice(eager, "X")[0] == (
        "executor: {graphs: never}   # set this in a grid; it changes no result"
    )
    assert eager.model_copy(update={"uses": eager.uses[:1]}).best("tf32") is None


def test_gpu_that_cannot_train_gives_one_line(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_gpu, "measure_use", lambda *_: Measured(problem="RuntimeError: x"))
    with pytest.raises(UserError, match=r"^measuring on a GPU: RuntimeError: x$"):
        tune.tune(SMALL)


def test_a_cohort_really_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_gpu, "SECONDS", 0.0)
    monkeypatch.setattr(rehearsal, "BLOCK", 4)
    made: list[rehearsal.Rehearsal] = []
    original = tune_gpu.Rehearsal

    class Noted(original):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            made.append(self)
            self.options, self.trained = named, self.learners

    monkeypatch.setattr(tune_gpu, "Rehearsal", Noted)
    result = measure_use(SMALL, GpuUse("bf16", False), torch.device("cpu"))
    assert len(result.rates) == tune_gpu.ROUNDS and result.rate > 0
    (loop,) = made
    assert loop.options == {"graphs": "never", "streams": 1}  # type: ignore[attr-defined]
    learners = loop.trained  # type: ignore[attr-defined]
    assert len({x.run.id for x in learners}) == LEARNERS
    assert len({x.run.shared for x in learners}) == 1
    assert all(x.run.training.precision == "bf16" and x.steps_done == 16 for x in learners)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("CUDA error:\nno kernel"), "RuntimeError: CUDA error: no kernel"),
    ],
)
def test_use_that_fails_is_a_row(
    monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    def fails(*arguments: object, **named: object) -> object:
        raise error

    monkeypatch.setattr(tune_gpu, "Rehearsal", fails)
    assert measure_use(SMALL, GpuUse(), GPU) == Measured(problem=problem)
    results = {GpuUse(streams=2): Measured((1.0,)), GpuUse(): Measured(problem=problem)}
    assert problem in text(tune_gpu.table("x", SMALL, results))


def test_steps_that_could_not_be_graphs_are_not_shown_as_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tune_gpu, "SECONDS", 0.0)
    monkeypatch.setattr(rehearsal, "BLOCK", 2)
    result = measure_use(SMALL, GpuUse(), torch.device("cpu"))  # a CPU has none
    assert result == Measured(problem="no CUDA graph: no")


def test_workload_of_the_grid_is_kept() -> None:
    runs = tune_gpu.runs(replace(SMALL, student="r8w5"), "tf32")
    assert {run.student for run in runs} == {"r8w5"}
    assert {run.training.batch_size for run in runs} == {SMALL.batch_size}
    assert {run.training.precision for run in runs} == {"tf32"}
