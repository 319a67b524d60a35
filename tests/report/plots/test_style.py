import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from drawn_evidence import HOSTILE, contrast, luminance, make_evidence
from hypothesis import given
from hypothesis import strategies as st

from kdbench.report.plots import pictures, style
from kdbench.stats.aggregate import aggregate

FLOATS = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=30)


def test_palette_is_distinguishable_in_grey() -> None:
    """Compare the lightness of the colours in one panel, and of each colour with the paper."""
    seeds, few = luminance(style.SEEDS, 0.6), luminance(style.SEEDS, 0.55)
    together = [
        [seeds, luminance(style.MEAN), luminance(style.LINES)],
        [luminance(style.CURVE), luminance(style.BASELINE), luminance(style.STUDENT)],
        [luminance(style.CURVE), few],
        [luminance(style.CURVE), luminance(style.MEAN)],
    ]
    for panel in together:
        for first, second in itertools.combinations(panel, 2):
            assert contrast(first, second) > 1.5
    for colour in (style.MEAN, style.LINES, style.CURVE, style.BASELINE, style.STUDENT):
        assert contrast(luminance(colour), 1.0) > 3
    assert contrast(seeds, 1.0) > 2 and contrast(few, 1.0) > 2


@given(FLOATS, st.lists(st.floats(-1e6, 1e6), max_size=3))
def test_window_contains_the_values_to_keep(values: list[float], keep: list[float]) -> None:
    low, high = style.window(values, keep)
    assert low < high
    if any(value == value for value in values):
        assert all(low <= value <= high for value in keep)
        # At least half of all values are inside.
        finite = [value for value in values if value == value]
        assert sum(low <= value <= high for value in finite) >= len(finite) / 2


def test_window_leaves_out_outliers() -> None:
    low, high = style.window([80, 81, 81.5, 82, 10])
    assert 78 < low < 80 and 82 < high < 84
    assert style.window([80, 81, 81.5, 82, 10], keep=[10])[0] < 10
    # A point slightly further out than the others is not an outlier.
    assert style.window([90, 90.1, 90.2, 90.3, 88])[0] < 88


@given(st.text(max_size=400), st.integers(8, 60))
def test_name_becomes_one_short_line(text: str, most: int) -> None:
    line = style.plain(text, most)
    assert len(line) <= max(most, 0) and line.isprintable()
    if len(text) <= most and text.isprintable():
        assert line == text
    if len(text) > most and text.isprintable():
        head, tail = line.split("…", 1) if text.count("…") == 0 else ("", "")
        assert text.startswith(head) and text.endswith(tail)


def test_width_grows_with_the_text() -> None:
    assert 0 < style.width("at") < style.width("at+semckd") < style.width("at+semckd", 12)
    assert style.widest([]) == 0 and style.widest(["a", "abc"]) == style.width("abc")
    with style.paper():
        assert all(style.width(style.plain(name)) > 0 for name in HOSTILE)


@pytest.mark.parametrize(
    ("pairs", "rows", "count"),
    [(0, 0, 0), (7, 26, 7), (style.PANELS, 4, style.PANELS), (29, 4, style.FEW), (5, 600, 1)],
)
def test_number_of_pairs_is_limited(pairs: int, rows: int, count: int) -> None:
    assert len(style.first([str(i) for i in range(pairs)], rows)) == count


def test_coordinates_are_rounded_and_letters_keep_their_shape() -> None:
    drawing = pictures.svg(pictures.every_seed(make_evidence()).figure)
    root = ET.fromstring(drawing)
    values = [
        number
        for element in root.iter()
        for key in ("d", "x", "y")
        for number in re.findall(r"-?\d+\.\d+", element.get(key, ""))
    ]
    assert values and max(len(value.split(".")[1]) for value in values) <= 2
    assert b"scale(0.015625)" in drawing


def test_matplotlibrc_has_no_effect() -> None:
    statistics = aggregate(make_evidence())
    plain = pictures.pictures(statistics)
    user_settings = {
        "font.size": 30,
        "axes.grid": True,
        "svg.fonttype": "none",
        "text.parse_math": True,
    }
    with matplotlib.rc_context(user_settings):  # type: ignore[arg-type]
        assert pictures.pictures(statistics) == plain
        assert matplotlib.rcParams["font.size"] == 30
