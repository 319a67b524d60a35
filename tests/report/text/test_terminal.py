"""The main table in a terminal."""

import io
import re

import large_page
import pytest
from rich.console import Console

from kdbench.report.text.terminal import Terminal
from kdbench.stats.aggregate import aggregate

AGGREGATE = aggregate(large_page.evidence(whole=True))
PAIRS = len(large_page.PAIRS)


def printed(width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(Terminal(AGGREGATE))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 81, 97, 120, 200, 400])
def test_as_many_pairs_as_fit_are_shown(width: int) -> None:
    text = printed(width)
    rows = len(AGGREGATE.methods.frame)
    shown = len(Terminal(AGGREGATE).columns(width)) - 2
    assert max(map(len, text.splitlines())) <= width
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", text)) == shown * rows
    said = f"The first {shown} of {PAIRS} pairs" in " ".join(text.split())
    assert said == (shown < PAIRS) == (width < 400)
    assert "semckd, %" in text or "ARI of semckd" in text


def test_wider_terminal_shows_no_fewer_pairs() -> None:
    shown = [len(Terminal(AGGREGATE).columns(width)) - 2 for width in range(10, 300)]
    assert shown == sorted(shown) and (shown[0], shown[-1]) == (1, PAIRS)


def test_long_reasons_wrap_but_numbers_do_not() -> None:
    out = io.StringIO()
    whole = aggregate(large_page.evidence(pairs=large_page.PAIRS[:2]))
    Console(file=out, width=80).print(Terminal(whole))
    assert "skipped:" in out.getvalue() and "FSP needs equal channels" not in out.getvalue()
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", out.getvalue())) > 2 * 10
