import json

import large_page
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.report import numbers
from kdbench.report.page import comparison_data
from kdbench.stats import contrasts
from kdbench.stats.aggregate import aggregate
from kdbench.stats.paired_differences import Contrast

VALUES = st.floats(-99, 99)


@given(VALUES, st.floats(0.01, 20), st.floats(0, 1))
def test_packed_digits_are_those_that_are_printed(diff: float, half: float, p: float) -> None:
    contrast = Contrast(
        "a", "b", 1, 3, diff, se=1.0, df=2.0, low=diff - half, high=diff + half, p=p, p_adj=p
    )
    packed = comparison_data._packed(contrast)
    printed = [numbers.signed(value) for value in (contrast.diff, contrast.low, contrast.high)]
    assert [_text(number) for number in packed[:3]] == printed
    thousandths = "< 0.001" if packed[3] == 0 else f"{packed[3] / 1000:.3f}"
    assert thousandths == numbers.p_value(p)


def _text(hundredths: int) -> str:
    """Print as the page's script does."""
    sign = "+" if hundredths > 0 else "−"
    return (sign if hundredths else "") + f"{abs(hundredths) / 100:.2f}"


def test_each_two_rows_are_packed_once() -> None:
    decision = aggregate(large_page.evidence(only_finished=True)).decision
    packed = comparison_data.pack(decision)
    rows = packed["rows"]
    assert set(rows) == {*large_page.METHODS, "student"}
    assert len(packed["over"]) == len(rows) * (len(rows) - 1) // 2
    assert list(packed["pairs"]) == list(decision.pairs)
    i, j, n = 2, 7, len(rows)
    contrast = decision.over.contrasts[rows[i], rows[j]]
    found = packed["over"][i * (2 * n - i - 1) // 2 + j - i - 1]
    assert found[0] == round(100 * contrast.diff)
    assert len(json.dumps(packed)) < 60_000


def test_differences_without_interval_or_seed_are_short() -> None:
    assert comparison_data._packed(None) == 0
    assert comparison_data._packed(Contrast("a", "b", 1, 1, -0.5)) == [-50]
    assert comparison_data._scope(["a", "b", "c"], contrasts.pair({}).contrasts) == [0, 0, 0]


def test_too_many_differences_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = aggregate(large_page.evidence(("kd", "at"))).decision
    monkeypatch.setattr(comparison_data, "MOST", 3 * (1 + len(large_page.PAIRS)) - 1)
    assert comparison_data.pack(decision) == {"rows": [], "over": [], "pairs": {}}
    monkeypatch.setattr(comparison_data, "MOST", 3 * (1 + len(large_page.PAIRS)))
    assert len(comparison_data.pack(decision)["over"]) == 3
