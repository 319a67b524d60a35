"""Memory of a cohort."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_grids import first

from benchmarks import memory
from benchmarks.memory import Setting, predicted
from kdbench.cost.cohort_memory import CUDA, LAZY, footprint, process_bytes, streams
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.cost.peak_memory import PeakMemory
from kdbench.grid.grid import Executor


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
def test_cohort_needs_more_than_its_largest_run_and_less_than_all_alone(
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
    assert footprint([failing], 7.0).total == 7


def test_gpu_holds_contexts_buffers_and_a_step_of_each_stream() -> None:
    shared = RunCost(teacher=1000, teacher_forward=50, teacher_features=20, data=5, batch=3)
    small, large = replace(shared, held=10, working=100), replace(shared, held=30, working=300)
    eager = footprint([small, large])
    assert eager.total == CUDA + 5 + 3 + 1000 + 20 + 40 + 300
    graphs = footprint([small, large] * 8, streams=4)
    # Two sets of buffers; the teacher's graph keeps what its forward pass needs.
    assert graphs.total == CUDA + 5 + 2 * 3 + 1000 + 2 * 20 + 8 * 40 + (50 - 20) + 4 * 300
    # A stream without a learner needs nothing.
    assert footprint([large], streams=4).working == 30 + 300
    assert footprint([RunCost(problem="skipped: why")]).total == CUDA
    assert footprint([small, large], 0.0).data == 5  # on a CPU as before


def test_executor_says_how_many_graphs_run_at_once() -> None:
    assert [streams(Executor(graphs=graphs)) for graphs in ("auto", "always", "never")] == [4, 4, 0]
    assert streams(Executor(streams=8)) == 8


def test_tf32_needs_what_fp32_needs() -> None:
    fp32, tf32 = (
        first("kd", protocol={"preset": "demo", "precision": p}) for p in ("fp32", "tf32")
    )
    assert fp32.id != tf32.id
    assert Estimator()(fp32) == Estimator()(tf32)


def test_memory_of_this_process_is_plausible() -> None:
    assert 2**25 < process_bytes() < 2**37


def test_benchmark_compares_a_gpu_with_the_prediction_for_it() -> None:
    cpu = Setting("r8w3", "r8w4", "digits", ("kd", "at", "sp"), 16, "fp32")
    gpu = replace(cpu, device="cuda:0", streams=2)
    costs = [Estimator()(run) for run in gpu.runs()]
    assert predicted(gpu) == footprint(costs, streams=2).total / 2**20
    eager = replace(gpu, graphs="never")
    assert predicted(eager) == footprint(costs).total / 2**20 < predicted(gpu)
    assert predicted(cpu) == footprint(costs, process_bytes()).total / 2**20


def test_benchmark_measures_what_torch_reserved_and_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver counts 900 MB, of which torch knows 500; it once had reserved 700."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 * 2**20, 1000 * 2**20))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500 * 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 700 * 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 600 * 2**20)
    assert memory.gpu_peak(torch.device("cuda:0")) == {
        "peak_mb": 1100,
        "reserved_mb": 700,
        "allocated_mb": 600,
        "cuda_mb": 400,
    }
