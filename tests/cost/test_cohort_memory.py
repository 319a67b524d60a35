"""Memory of a cohort."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.cost.cohort_memory import LAZY, footprint, process_bytes
from kdbench.cost.estimate import RunCost
from kdbench.cost.peak_memory import PeakMemory


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
    assert footprint([small, large]).total == 5 + 1000 + 20 + 40 + 300  # on a GPU
    assert footprint([failing], 7.0).total == 7


def test_memory_of_this_process_is_plausible() -> None:
    assert 2**25 < process_bytes() < 2**37
