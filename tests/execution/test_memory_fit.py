"""Cohorts that fit into memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_grids import PLUGIN
from tiny_runs import CPU, alone, numbers, taught

from kdbench.cost import cohort_memory
from kdbench.cost.cohort_memory import CUDA, footprint, process_bytes
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.execution import local, worker
from kdbench.execution.memory_fit import USABLE, JobSizing, MemoryFit
from kdbench.execution.work import Work
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Slurm
from kdbench.grid.run import Run
from kdbench.training.cohort import Cohort

GB = 2.0**30
TEACHER = alone(student="r8w4")
METHODS = ("kd", "at", "sp", "semckd")


def students(n: int) -> list[Run]:
    return [taught(TEACHER, METHODS[i % 4], gamma=1.0 + i) for i in range(n)]


@pytest.fixture
def hundred(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MemoryFit]:
    """Create limits for which each learner needs 100 bytes and everything else none."""
    lines: list[str] = []

    def create(limit: float | None) -> MemoryFit:
        monkeypatch.setattr(cohort_memory, "CUDA", 0.0)
        memory_fit = MemoryFit(limit, gpu=True, warn=lines.append)
        monkeypatch.setattr(MemoryFit, "_certainly_fits", lambda self, runs: False)
        monkeypatch.setattr(MemoryFit, "_cost", lambda self, run: RunCost(held=100))
        return memory_fit

    create.lines = lines  # type: ignore[attr-defined]
    return create


@pytest.mark.parametrize("n", [1, 2, 7, 16])
@pytest.mark.parametrize("room", [None, 50, 120, 450, 99999])
def test_pieces_fit_and_hold_each_run_once(hundred: Any, n: int, room: float | None) -> None:
    runs = students(n)
    pieces = hundred(room).pieces(runs)
    assert sorted(run.id for piece in pieces for run in piece) == sorted(run.id for run in runs)
    if room is None:
        assert len(pieces) == 1
        return
    most = max(1, int(0.8 * room / 100))
    assert max(map(len, pieces)) <= most
    assert len(pieces) == 1 or len(pieces) - 1 < n / most * 2


def test_run_too_large_even_alone_is_tried_with_one_warning(hundred: Any) -> None:
    memory_fit = hundred(50)
    runs = [taught(TEACHER, "kd", seed=seed) for seed in range(3)]
    assert [len(piece) for piece in memory_fit.pieces(runs)] == [1, 1, 1]
    assert len(hundred.lines) == 1
    assert hundred.lines[0].startswith("r8w4 -> r8w3, kd: needs about 0.0 GB of GPU memory")


def test_small_networks_fit_and_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count(self: Estimator, run: Run) -> RunCost:
        raise AssertionError("counted")

    monkeypatch.setattr(Estimator, "__call__", count)
    assert len(MemoryFit(8 * GB).pieces(students(16))) == 1


def test_job_is_limited_to_the_memory_that_it_requests() -> None:
    runs = students(4)
    narrow = Executor(kind="slurm", device="cpu", slurm=Slurm(memory="1 MB"))
    lines: list[str] = []
    assert not JobSizing(narrow, lines.append).fits(runs)
    assert JobSizing(narrow, lines.append).fits(runs[:1]) and len(lines) == 1
    wide = Executor(kind="slurm", device="cpu", slurm=Slurm(memory="24 GB"))
    gpu = Executor(kind="slurm", device="cuda", slurm=Slurm(memory="1 MB"))
    none = Executor(kind="slurm", device="cpu")
    assert all(JobSizing(executor, lines.append).fits(runs) for executor in (wide, gpu, none))


def test_runner_trains_in_cohorts_that_fit_and_no_result_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [TEACHER, *students(4)]
    executor = Executor(kind="debug", device="cpu")
    sizes: list[int] = []
    train = Cohort.train

    def note_size(self: Cohort) -> None:
        sizes.append(len(self.runs))
        train(self)

    monkeypatch.setattr(Cohort, "train", note_size)
    list(local.run_all(runs, tmp_path / "together", Path("data"), executor))
    assert sizes == [1, 4]
    two = footprint([Estimator()(run) for run in runs[1:3]], process_bytes()).total
    monkeypatch.setattr(MemoryFit, "_certainly_fits", lambda self, runs: False)
    monkeypatch.setattr(local, "free_memory", lambda: two / USABLE * 1.0001)
    big = RunCost(held=two)  # no two of them fit

    def cost(self: MemoryFit, run: Run) -> RunCost:
        return big if run.terms else RunCost()

    monkeypatch.setattr(MemoryFit, "_cost", cost)
    sizes.clear()
    list(local.run_all(runs, tmp_path / "apart", Path("data"), executor))
    assert sizes == [1, 1, 1, 1, 1]
    for run in runs:
        assert numbers(tmp_path / "together", run) == numbers(tmp_path / "apart", run)


def test_free_memory_of_a_gpu_is_shared_by_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device = torch.device("cuda:1")

    def limit(workers: int, name: str) -> float | None:
        task = Work((), Path(), Path(), Executor(device=name, streams=3), workers, memory=1.0)
        memory_fit = worker._memory_fit(task, device)
        assert (memory_fit.gpu, memory_fit.streams) == (True, 3)
        return memory_fit.limit

    assert limit(2, "auto") == 8 * GB
    assert limit(3, "cuda") == 4 * GB
    assert limit(2, "cuda:1") == 4 * GB
    task = Work((), Path(), Path(), Executor(), 2, memory=5.0)
    assert worker._memory_fit(task, CPU).limit == 5.0


def test_learners_that_a_gpu_trains_at_once_must_fit_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryFit, "_certainly_fits", lambda self, runs: False)
    monkeypatch.setattr(MemoryFit, "_cost", lambda self, run: RunCost(working=GB))
    runs, limit = students(8), (CUDA + 3.5 * GB) / USABLE  # three steps fit, four do not

    def sizes(**settings: Any) -> list[int]:
        pieces = MemoryFit.on_gpu(limit, Executor(**settings)).pieces(runs)
        return [len(piece) for piece in pieces]

    assert sizes() == [3, 3, 2]
    assert sizes(streams=2) == [8]
    assert sizes(graphs="never") == [8]


def test_card_too_small_gives_a_line_and_no_dead_grid() -> None:
    lines: list[str] = []
    pieces = MemoryFit.on_gpu(GB, Executor(), lines.append).pieces(students(3))
    assert [len(piece) for piece in pieces] == [1, 1, 1]
    assert len(lines) == 3
    assert all("GB of GPU memory, but 1.0 GB are available; it is trained" in x for x in lines)


def test_plugin_that_cannot_be_counted_stops_no_worker(tmp_path: Path) -> None:
    """Its run fails alone, when it is built."""
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    runs = [taught(TEACHER, "kd"), taught(TEACHER, str(path))]
    path.write_text(f"import nowhere_to_be_found\n{PLUGIN}")
    assert MemoryFit(8 * GB).pieces(runs) == [tuple(runs)]


def test_plugin_that_exits_when_it_is_counted_stops_no_worker(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        PLUGIN.replace("return (s.logits - t.logits).pow(2).mean()", "raise SystemExit('bye')")
    )
    runs = [taught(TEACHER, "kd"), taught(TEACHER, str(path))]
    assert MemoryFit(8 * GB).pieces(runs) == [tuple(runs)]
