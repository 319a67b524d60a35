"""CSV: text that a spreadsheet would calculate, beside numbers that stay numbers."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.report.text import spreadsheet


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"), ("\t=1", "'\t=1"), ("＝1+1", "'＝1+1"),
        (" =1", "' =1"), ("a\r=1", "a =1"),
        ("-2.5", "-2.5"), ("+1e3", "+1e3"), ("-", "-"), ("kd", "kd"), ("at+sp", "at+sp"), ("", ""),
    ],
)  # fmt: skip
def test_text_is_never_a_formula(cell: str, written: str) -> None:
    frame = pd.DataFrame({"text": [cell, "x"], "number": [-1.25, 3.0], "count": [-1, 2]})
    rows = list(csv.DictReader(io.StringIO(spreadsheet.csv(frame, digits=10))))
    assert rows[0] == {"text": written, "number": "-1.25", "count": "-1"}
    assert frame["text"][0] == cell


def test_names_of_columns_are_no_formulas() -> None:
    assert spreadsheet.csv(pd.DataFrame({"=a": [1]}), digits=10) == "'=a\n1\n"


@given(st.lists(st.text("=+-@\t\r1a,\"'", min_size=1), min_size=1))
def test_no_cell_begins_like_a_formula(cells: list[str]) -> None:
    text = spreadsheet.csv(pd.DataFrame({"text": cells}), digits=10)
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert len(rows) == len(cells)
    for [cell] in rows:
        if len(cell) > 1 and cell[0] in "=+-@\t\r":
            float(cell)
