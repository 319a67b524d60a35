"""The decision of a whole grid, from records."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from drawn_evidence import make_evidence
from fake_grids import ended

from kdbench.grid.run import Run
from kdbench.stats.aggregate import aggregate
from kdbench.stats.decision import Decision

SHIFT = {"at": 3.0, "rkd": -3.0, "student": -4.0}


def _accuracy(run: Run) -> float:
    """Return an accuracy: at is about 3 points better than kd, and rkd 3 points worse."""
    noise = random.Random(f"{run.student} {run.method} {run.seed}").gauss(0, 0.2)
    return 70 + SHIFT.get(run.method, 0.0) + run.seed + noise


METHODS = ("kd", "at", "sp", "cc", "rkd")
PAIRS = (("big", "small"), ("big", "tiny"))


def _decision(**changes: Any) -> Decision:
    return aggregate(make_evidence(PAIRS, METHODS, _accuracy, **changes)).decision


def test_decision_compares_every_row_but_the_teacher() -> None:
    decision = _decision()
    assert list(decision.pairs) == ["big → small", "big → tiny"]
    rows = {row for key in decision.over.contrasts for row in key}
    assert rows == {"student", *METHODS}
    assert (decision.baseline, decision.student) == ("kd", "student")
    assert set(decision.recommendation.state) == set(METHODS)
    assert decision.rows == 6
    assert decision.other is None


def test_pair_alone_agrees_with_its_column() -> None:
    decision = _decision()
    for name, one in decision.pairs.items():
        placed, states = one.standings or {}, decision.on_pair[name].state
        for method, state in states.items():
            assert placed[method].leading == (state != "behind")


def test_method_with_a_failed_run_is_never_leading() -> None:
    evidence = make_evidence(PAIRS, METHODS, _accuracy, seeds=(0, 1, 2))
    assert aggregate(evidence).decision.recommendation.leader == "at"
    run = next(cell.runs[0] for cell in evidence.cells if cell.method == "at")
    lost = {run.id: ended(run, "diverged", "the loss became infinite")}
    decision = aggregate(replace(evidence, records={**evidence.records, **lost})).decision
    assert decision.troubled == ("at",)
    assert decision.recommendation.state["at"] == "unplaced"
    assert decision.recommendation.why["at"][0] == "troubled"
    assert decision.recommendation.leader != "at"


def test_times_are_relative_to_the_baseline() -> None:
    decision = _decision()
    assert decision.times["kd"] == pytest.approx(1.0)
    assert not any(math.isnan(time) for time in decision.times.values())


def test_grid_without_baseline_or_results() -> None:
    evidence = make_evidence(PAIRS, ("at", "sp"), _accuracy)
    assert aggregate(evidence).decision.baseline is None
    empty = aggregate(replace(evidence, records={})).decision
    assert empty.over.means == {} and empty.recommendation.leader is None
    assert empty.rows == 0


def test_one_seed_decides_nothing() -> None:
    decision = _decision(seeds=(0,))
    assert decision.over.standings is None
    assert decision.recommendation.state == {}
    assert decision.over.contrasts["at", "kd"].diff == pytest.approx(3.0, abs=1.0)
