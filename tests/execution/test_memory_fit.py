"""Memory: the free amount, the need of a cohort, cohorts that fit, learners that run out."""

import gc
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import CPU, alone, numbers, taught, train

from kdbench.cost.cohort_memory import LAZY, footprint, process_bytes
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.cost.peak_memory import PeakMemory
from kdbench.execution import local, worker
from kdbench.execution.memory_fit import USABLE, JobSizing, MemoryFit
from kdbench.execution.work import Work
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Slurm
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.training import memory
from kdbench.training.cohort import Cohort
from kdbench.training.learner import Learner
from tests.whole.test_invariants import plugin

GB = 2.0**30
TEACHER = alone(student="r8w4")
METHODS = ("kd", "at", "sp", "semckd")

# --- counting ------------------------------------------------------------------------------------


def test_tensors_that_are_alive_at_once_are_counted() -> None:
    before = torch.zeros(1000)
    with PeakMemory() as peak:
        a = before + 1  # 4000 bytes
        b = (a * 2).view(10, 100)  # 4000 more; a view needs none
        b += before.view(10, 100)
        del a
        c = b.sum()
    assert (peak.now, peak.max_bytes) == (4004, 8000)
    del b, c
    assert peak.now == 0


def test_activations_of_a_step_count_until_the_backward_pass() -> None:
    x = torch.zeros(1000, requires_grad=True)
    with PeakMemory() as peak:
        y = (x.exp().exp().exp()).sum()
        kept = peak.now
        torch.autograd.grad(y, x)
    assert kept >= 3 * 4000
    assert peak.now < kept < peak.max_bytes + 4000


# --- a cohort ------------------------------------------------------------------------------------

SIZES = st.floats(0, 1e10)
COSTS = st.builds(RunCost, held=SIZES, working=SIZES)


@given(st.lists(COSTS, min_size=1, max_size=16), SIZES)
def test_a_cohort_needs_more_than_its_largest_and_less_than_all_apart(
    costs: list[RunCost], process: float
) -> None:
    together = footprint(costs, process).total
    apart = [footprint([cost], process).total for cost in costs]
    assert max(apart) * (1 - 1e-9) <= together <= sum(apart) * (1 + 1e-9)
    assert footprint(costs[::-1], process).total == pytest.approx(together)


def test_only_the_most_expensive_step_counts_and_shared_memory_counts_once() -> None:
    small = RunCost(
        held=10, working=100, teacher=1000, teacher_forward=50, teacher_features=20, data=5
    )
    large = RunCost(
        held=30, working=300, teacher=1000, teacher_forward=50, teacher_features=20, data=5
    )
    failing = RunCost(problem="skipped: why")
    assert footprint([small, large, failing], 7.0).total == 7 + LAZY + 5 + 2000 + 20 + 40 + 300
    assert footprint([small, large]).total == 5 + 1000 + 20 + 40 + 300  # on a GPU
    assert footprint([failing], 7.0).total == 7


def test_memory_of_this_process_is_plausible() -> None:
    assert 2**25 < process_bytes() < 2**37


# --- what is free --------------------------------------------------------------------------------


def system(folder: Path, available: int, cgroup: str = "") -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(f"MemTotal: 999 kB\nMemAvailable:   {available} kB\n")
    (folder / "self" / "cgroup").write_text(cgroup)
    return folder


def group(folder: Path, names: Sequence[str], values: Sequence[object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, values, strict=True):
        (folder / name).write_text(f"{value}\n")


def test_free_memory_is_the_kernels_or_what_a_limit_leaves(tmp_path: Path) -> None:
    proc = system(tmp_path / "proc", 1000, "1:cpu,memory:/job/step\n0::/job/step\n")
    groups = tmp_path / "cgroup"
    assert memory.free_memory(proc, groups) == 1024_000
    new = ("memory.max", "memory.current", "memory.stat")
    group(groups / "job" / "step", new, ("max", 5, "anon 1\ninactive_file 1"))
    assert memory.free_memory(proc, groups) == 1024_000
    group(groups / "job", new, (9000, 5000, "anon 1\ninactive_file 700"))
    assert memory.free_memory(proc, groups) == 4700
    old = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    group(groups / "memory", old, (4000, 1000, "total_inactive_file 50"))
    assert memory.free_memory(proc, groups) == 3050


def test_without_system_files_free_memory_is_all_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.free_memory(tmp_path, tmp_path) == pytest.approx(memory_of_this_machine())

    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(memory.os, "sysconf", unknown)
    assert memory.free_memory(tmp_path, tmp_path) is None


def memory_of_this_machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# --- cohorts that fit ----------------------------------------------------------------------------


def students(n: int) -> list[Run]:
    return [taught(TEACHER, METHODS[i % 4], gamma=1.0 + i) for i in range(n)]


@pytest.fixture
def hundred(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MemoryFit]:
    """Create limits for which every learner holds 100 bytes, and nothing else counts."""
    lines: list[str] = []

    def create(limit: float | None) -> MemoryFit:
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
    assert hundred.lines[0].startswith("r8w4 -> r8w3, kd: needs about 0.0 GB of memory")


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
        task = Work((), Path(), Path(), Executor(device=name), workers, memory=1.0)
        memory_fit = worker._memory_fit(task, device)
        assert memory_fit.gpu
        return memory_fit.limit

    assert limit(2, "auto") == 8 * GB
    assert limit(3, "cuda") == 4 * GB
    assert limit(2, "cuda:1") == 4 * GB
    task = Work((), Path(), Path(), Executor(), 2, memory=5.0)
    assert worker._memory_fit(task, CPU).limit == 5.0


# --- running out ---------------------------------------------------------------------------------

GREEDY = '''
"""A method that runs out of memory in its fifth step (2020)."""
import torch
from kdbench.method import Method


class Exhausts(Method):
    def loss(self, s, t, batch):
        if batch.step == 5:
            raise {error}
        return s.logits.square().mean()
'''


@pytest.mark.parametrize(
    "error", ['torch.OutOfMemoryError("CUDA out of memory.")', 'MemoryError("no more")']
)
def test_learner_without_memory_fails_alone(tmp_path: Path, error: str) -> None:
    train([TEACHER], tmp_path / "runs")
    name = error.partition("(")[0].rpartition(".")[2]
    path = plugin(tmp_path, f"exhausts_{name.lower()}", GREEDY.format(error=error))
    good, bad = taught(TEACHER, "kd"), taught(TEACHER, path)
    written = train([bad, good], tmp_path / "runs")
    assert written[good.id].status == "done"
    assert written[bad.id].status == "failed"
    assert written[bad.id].reason.startswith(f"{name}: ")
    assert written[bad.id].reason.endswith("a smaller executor.cohort or batch_size needs less)")
    without_bad = tmp_path / "alone"
    train([TEACHER], without_bad)
    train([good], without_bad)
    assert numbers(without_bad, good) == numbers(tmp_path / "runs", good)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("a bug"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_exhausted_memory_are_recognised(error: Exception, expected: bool) -> None:
    assert memory.is_out_of_memory(error) is expected


# --- one learner's activations at a time ---------------------------------------------------------


def test_activations_are_freed_before_the_next_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([TEACHER], tmp_path)
    maps: list[weakref.ref[torch.UntypedStorage]] = []
    alive: list[int] = []
    loss, step = Learner._loss, Learner.train_step

    def note_maps(self: Learner, s: Any, t: Any, batch: Any) -> torch.Tensor:
        own = [weakref.ref(x.untyped_storage()) for x in (s.stem, *s.stages, s.logits)]
        assert all(ref() is not None for ref in own)
        maps.extend(own)
        return loss(self, s, t, batch)

    def count_alive(self: Learner, *args: Any) -> None:
        alive.append(sum(ref() is not None for ref in maps))
        maps.clear()
        step(self, *args)

    monkeypatch.setattr(Learner, "_loss", note_maps)
    monkeypatch.setattr(Learner, "train_step", count_alive)
    gc.disable()  # activations must be freed without it
    try:
        train([taught(TEACHER, name) for name in ("kd", "semckd", "fitnets", "crd")], tmp_path)
    finally:
        gc.enable()
    assert len(alive) > 40
    assert not any(alive)
    assert all(record.status == "done" for record in records.load(tmp_path, [TEACHER.id]).values())
