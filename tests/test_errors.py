"""Suggestions in error messages: one rule for grids, methods, models, tables and commands."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from kdbench import models
from kdbench.cli import main
from kdbench.errors import UserError, did_you_mean, nearest, visible
from kdbench.grid import published
from kdbench.grid.mistakes import unknown
from kdbench.models import zoo
from kdbench.registry import lookup


def test_nearest_names_come_first() -> None:
    assert nearest("semkd", ["kd", "semckd", "at"]) == ["semckd"]
    assert nearest("semkd", ["sekd", "semckd", "at"], n=2) == ["semckd", "sekd"]
    assert nearest("xyz", ["kd", "semckd", "at"]) == []
    assert nearest("xyz", []) == []


def test_case_is_ignored() -> None:
    assert nearest("RKD", ["kd", "rkd"]) == ["rkd"]
    assert nearest("wrn_16_2", ["WRN_16_2"]) == ["WRN_16_2"]


def test_other_capitals_come_before_another_depth() -> None:
    assert zoo.suggest("resnet18")[0] == "ResNet18"
    assert zoo.suggest("resnet9")[0] == "resnet8"


def test_long_names_are_not_compared() -> None:
    assert nearest("x" * 10**6, ["x" * 10**6]) == []


def test_messages_are_short_lines_without_control_characters() -> None:
    text = str(UserError(f"\x1b[31m{'x' * 10_000}: unknown\nsecond line"))
    assert text.startswith("\\x1b[31mxxx") and text.endswith("x: unknown\nsecond line")
    assert all(len(line) < 2000 and line.isprintable() for line in text.splitlines())
    assert visible("a\u202eb\xa0c\u2028") == "a\\u202eb c\\u2028"


def test_lower_cutoff_gives_more_names() -> None:
    assert nearest("table", ["abacus"]) == []
    assert nearest("table", ["abacus"], cutoff=0.1) == ["abacus"]


def test_hint_is_empty_if_nothing_is_near() -> None:
    assert did_you_mean("angel", ["angle", "distance"]) == " (did you mean angle?)"
    assert did_you_mean("xyz", ["angle", "distance"]) == ""
    assert did_you_mean(3, ["angle", "distance"]) == ""


def _message(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match="unknown") as caught:
        call()
    return str(caught.value)


def test_all_lookups_suggest_names() -> None:
    assert "(did you mean semckd?)" in _message(lambda: lookup.find("SEMKD"))
    assert "(did you mean factor?)" in _message(lambda: lookup.hyper("semckd", {"FACTOR": 1}))
    assert "(did you mean ShuffleV1" in _message(lambda: models.entry("shufflev1"))
    message = _message(lambda: published.datasets("REVIEWKD (cvpr 2021)/imagenet"))
    assert "(did you mean ReviewKD (CVPR 2021)/ImageNet README?)" in message
    assert unknown("SEED", ["seeds"]).endswith("(did you mean seeds?)")
    result = CliRunner().invoke(main, ["REPROT"])
    assert "Did you mean report?" in result.output
