"""Estimates of durations from measured speeds; the speeds themselves are not tested."""

from typing import Any

import pytest
from small_grids import first

from kdbench.cost import speed
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.cost.speed import Speed, machine_flops
from kdbench.grid.run import Run


class Fixed(Speed):
    """A speed without measurements; the rate identifies the kind of measurement."""

    flops = 1e9

    def _measure(self, kind: str, name: str, run: Run, shape: Any, batch: int) -> float:
        return {"step": 1e6, "test": 2e6, "teacher": 4e6}[kind]


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


def test_unmeasured_network_is_as_fast_as_the_nearest_in_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[str] = []

    def measure(self: Speed, kind: str, name: str, *arguments: Any) -> float:
        measured.append(name)
        return {"r8w3": 1.0, "r8w32": 2.0}[name]

    monkeypatch.setattr(Speed, "_measure", measure)
    speeds = Speed(seconds=1e9)
    run = first("student")
    shape = speed.data_shape(run.dataset)
    for name in ("r8w3", "r8w32"):
        speeds._rate("step", name, run, shape, 64)
    speeds.seconds = 0.0
    assert speeds._rate("step", "r8w4", run, shape, 64) == 1.0
    assert speeds._rate("step", "r8w24", run, shape, 64) == 2.0
    assert measured == ["r8w3", "r8w32"]


def test_measuring_changes_neither_generator_nor_threads() -> None:
    import torch

    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    run = first("kd")
    assert Speed().seconds_of(run, Estimator()(run)) > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_machine_flops_are_measured() -> None:
    assert machine_flops(seconds=0.01) > 1e8
