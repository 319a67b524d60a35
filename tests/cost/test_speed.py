"""The speed of this machine; how fast it is, is not tested."""

from typing import Any

import pytest
from small_grids import first

from kdbench.cost import speed
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.cost.speed import Speed, machine_flops
from kdbench.grid.run import Run


class Fixed(Speed):
    """Without a look at the clock; the rate tells what would have been measured."""

    flops = 1e9

    def _measured(self, what: str, name: str, run: Run, of: Any, batch: int) -> float:
        return {"step": 1e6, "test": 2e6, "ask": 4e6}[what]


def test_each_part_of_a_run_has_its_own_speed() -> None:
    run = first("semckd", methods=["semckd"])
    cost = Estimator()(run)
    parts = cost.operations
    assert min(parts.student, parts.teacher, parts.methods, parts.evaluation) > 0
    expected = parts.student / 1e6 + parts.evaluation / 2e6 + (parts.teacher + parts.methods) / 4e6
    assert Fixed().seconds_of(run, cost) == pytest.approx(expected)
    assert Fixed().seconds_of(run, RunCost(problem="skipped: why")) == 0
    alone = first("student")
    cost = Estimator()(alone)
    parts = cost.operations
    expected = parts.student / 1e6 + parts.evaluation / 2e6
    assert Fixed().seconds_of(alone, cost) == pytest.approx(expected)


def test_what_is_not_measured_is_like_the_nearest_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measured(self: Speed, what: str, name: str, *given: Any) -> float:
        asked.append(name)
        return {"r8w3": 1.0, "r8w32": 2.0}[name]

    monkeypatch.setattr(Speed, "_measured", measured)
    it = Speed(seconds=1e9)
    run = first("student")
    of = speed.shape(run.dataset)
    for name in ("r8w3", "r8w32"):
        it._rate("step", name, run, of, 64)
    it.seconds = 0.0
    assert it._rate("step", "r8w4", run, of, 64) == 1.0
    assert it._rate("step", "r8w24", run, of, 64) == 2.0
    assert asked == ["r8w3", "r8w32"]


def test_networks_are_measured_and_leave_no_trace() -> None:
    import torch

    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    run = first("kd")
    assert Speed().seconds_of(run, Estimator()(run)) > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_this_machine_computes() -> None:
    assert machine_flops(seconds=0.01) > 1e8
