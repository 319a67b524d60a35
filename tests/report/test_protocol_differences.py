"""Differences of two grids' protocols that concern single students and methods."""

from typing import Any

import pytest
from fake_grids import PAIRS, PROTOCOL, evidence_of, make_cells, make_grid, make_records, typical

from kdbench.grid.optimizers import Dot, Optimizer
from kdbench.report.protocol_differences import common_rows, differing, option_differences
from kdbench.report.several_grids import merged
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import LeaderboardError
from kdbench.stats.headline import chooses_on_held_out


def evidence(*methods: str, **changes: Any) -> Evidence:
    protocol = PROTOCOL.model_copy(update=changes.pop("protocol", {}))
    pairs = changes.pop("pairs", PAIRS)
    grid = make_grid(pairs, protocol=protocol, **changes)
    cells = make_cells(grid, methods or ("kd", "at"))
    return evidence_of(grid, cells, make_records(cells, typical))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"small": 0.01}, ["lr of small 0.05 and 0.01"]),
        ({"small": 0.05}, []),
        ({"other": 0.01}, []),
        ({"small": 0.01, "tiny": 0.02}, ["lr of small 0.05 and 0.01", "lr of tiny 0.05 and 0.02"]),
    ],
)
def test_rates_of_students_in_both_grids_are_compared(
    rates: dict[str, float], expected: list[str]
) -> None:
    assert differing(evidence(), evidence(protocol={"lr_of": rates})) == expected
    pairs = [("big", "middle")]  # no student in common
    assert differing(evidence(), evidence(pairs=pairs, protocol={"lr_of": rates})) == []


def test_rate_of_one_pair_is_compared() -> None:
    grid = evidence()
    other = evidence(protocol={"lr_of": {"small": 0.02}})
    usual = other.grid.protocol.model_copy(update={"lr_of": {}})
    # As ``pairs: [{lr: 0.02}]``: the protocol has another rate than the runs.
    set_there = Evidence(
        other.grid.model_copy(update={"protocol": usual}), other.cells, other.records, other.history
    )
    assert differing(grid, set_there) == ["lr of big -> small 0.05 and 0.02"]
    assert differing(set_there, grid) == ["lr of big -> small 0.02 and 0.05"]


def test_another_general_rate_is_named_once() -> None:
    assert differing(evidence(), evidence(protocol={"lr": 0.1})) == ["lr 0.05 and 0.1"]


def test_another_optimizer_is_named() -> None:
    dot = Optimizer(dot=Dot(delta=0.05))
    expected = ["optimizer unset and DOT with delta 0.05"]
    assert differing(evidence(), evidence(protocol={"optimizer": dot})) == expected


def test_options_of_methods_count_for_rows_with_these_methods() -> None:
    first = evidence(
        "kd", "at+sp", protocol={"methods": {"sp": {"beta": 1}, "sp+at": {"gamma": 2}}}
    )
    second = evidence("kd", "at+sp", protocol={"methods": {"sp": {"beta": 3}, "kd": {"alpha": 1}}})
    assert option_differences(first, second, ["at+sp"]) == [
        "at+sp.gamma 2 and unset",
        "sp.beta 1 and 3",
    ]
    assert option_differences(first, second, ["kd"]) == ["kd.alpha unset and 1"]
    assert option_differences(first, second, ["student"]) == []
    assert common_rows(first, evidence("kd", "at")) == ["teacher", "student", "kd"]


def test_one_table_needs_the_same_options_of_rows_in_both_grids() -> None:
    other = evidence(protocol={"methods": {"at": {"beta": 3}}})
    with pytest.raises(LeaderboardError, match=r"different protocols \(at\.beta unset and 3\)"):
        merged([evidence(), other])
    assert merged([evidence(), other], mix=True) is None
    assert merged([evidence("kd"), other]) is not None


def test_sweeps_of_merged_grids_are_kept() -> None:
    held = make_grid().dataset.model_copy(update={"validation": 0.2})
    grids = [evidence(dataset=held), evidence(dataset=held, sweep={"at.beta": (1, 2)})]
    found = merged(grids)
    assert found and chooses_on_held_out(found.grid)
