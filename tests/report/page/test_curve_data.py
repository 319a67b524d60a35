import math
from itertools import pairwise

import large_page
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.report.page import curve_data, embedded_plots
from kdbench.runs.evidence import History

ACCURACIES = st.lists(st.floats(0, 100) | st.sampled_from([math.nan, math.inf]), max_size=50)


@given(ACCURACIES)
def test_decoded_curve_is_close_to_the_original(values: list[float]) -> None:
    back = curve_data.decode(curve_data.encode(values))
    assert len(back) == len(values)
    for value, decoded in zip(values, back, strict=True):
        if math.isfinite(value):
            assert decoded == pytest.approx(value, abs=50 / curve_data.LEVELS + 1e-9)
        else:
            assert math.isnan(decoded)


@given(st.integers(1, 1000), st.integers(2, 300))
def test_thinning_keeps_the_ends_and_is_even(length: int, points: int) -> None:
    rows = [(epoch, float(epoch)) for epoch in range(1, length + 1)]
    thin = curve_data.thin(rows, points)
    assert len(thin) == min(length, points)
    assert thin[0] == rows[0] and thin[-1] == rows[-1]
    steps = {b[0] - a[0] for a, b in pairwise(thin)}
    assert max(steps, default=1) - min(steps, default=1) <= 1


def history(run_id: str) -> History:
    return [{"epoch": e, "test_acc": float(e % 100)} for e in range(1, 201)]


def test_curves_are_thinned_or_left_out_to_fit_the_budget() -> None:
    ids = [f"{i:016x}" for i in range(10)]
    packed, points = curve_data.pack(ids, history, budget=4000)
    assert points == 200 and len(packed) == 10
    assert packed[ids[0]][:2] == [1, 200]
    _, points = curve_data.pack(ids, history, budget=1300)
    assert points == 60
    assert curve_data.pack(ids, history, budget=500) == ({}, 0)


def test_page_reports_that_curves_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = large_page.evidence(("kd",), (("vgg13", "vgg8"),))
    monkeypatch.setattr(curve_data.pack, "__defaults__", (10,))
    assert "Learning curves are left out to limit the page's size" in large_page.html(evidence)


def test_runs_without_a_history_have_no_curve() -> None:
    packed, _ = curve_data.pack(["a", "b"], lambda run_id: history(run_id) if run_id == "a" else [])
    assert list(packed) == ["a"]


def test_figures_are_images_and_too_large_figures_are_only_named() -> None:
    small = '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg width="90pt"><g id="a"/>\n  "#%é</svg>'
    first, second, third = embedded_plots.embed(
        {"One": small, "Two": "<svg>" + "x" * 900 + "</svg>", "Three": small}, budget=600
    )
    assert first.source.startswith("data:image/svg+xml,%3Csvg width=%2290pt%22%3E")
    assert first.width == 120
    assert not set('<>"#\n') & set(first.source)
    assert (second.title, second.source) == ("Two", "")
    assert third.source == first.source
