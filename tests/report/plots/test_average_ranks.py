import math

import numpy as np
import pytest
from drawn_evidence import HOSTILE, points, texts, ticks

from kdbench.report.plots import pictures, style


def test_best_method_is_on_top_with_its_interval() -> None:
    axis = pictures.average_ranks("T", {"b": (2.5, 2, 3), "a": (1.5, 1, 2)}).axes[0]
    assert ticks(axis) == ["a", "b"]
    assert points(axis) == [(1.5, 0), (2.5, 1)]
    segments = [np.asarray(s).tolist() for s in axis.collections[1].get_segments()]  # type: ignore[attr-defined]
    assert segments == [[[1, 0], [2, 0]], [[2, 1], [3, 1]]]
    bottom, top = axis.get_ylim()
    assert bottom > top


def test_unknown_ranks_are_not_drawn() -> None:
    nan = math.nan
    axis = pictures.average_ranks("T", {"x": (nan, nan, nan), "one": (1, nan, nan)}).axes[0]
    assert ticks(axis) == ["one", "x"] and texts(axis) == ["no rank"]
    assert points(axis) == [(1, 0)] and not axis.collections[1].get_paths()
    assert pictures.svg(pictures.average_ranks("T", {"x": (nan, nan, nan)}))


def test_names_are_shown_literally_and_methods_are_limited() -> None:
    figure = pictures.average_ranks("$", dict.fromkeys(HOSTILE, (1, 1, 2)))
    assert ticks(figure.axes[0])[:2] == ["$x_1$", "_a_"]
    assert pictures.svg(figure)
    many = pictures.average_ranks("T", {str(i): (i, i, i) for i in range(500)})
    assert len(ticks(many.axes[0])) == style.ROWS
    assert "first 120 of 500 methods" in many.get_suptitle()
    assert points(many.axes[0])[-1] == pytest.approx((119, 119))
