"""The main table in a terminal."""

import io
import re

import large_page
import pytest
from rich.console import Console

from kdbench.report.text.terminal import Terminal
from kdbench.stats.aggregate import aggregate

AGGREGATE = aggregate(large_page.evidence(only_finished=True))
PAIRS = len(large_page.PAIRS)


def printed(width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(Terminal(AGGREGATE))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 81, 97, 120, 200, 400])
def test_as_many_pairs_as_fit_are_shown(width: int) -> None:
    text = printed(width)
    rows = len(AGGREGATE.methods.frame)
    count = len(Terminal(AGGREGATE).columns(width)) - 2
    assert max(map(len, text.splitlines())) <= width
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", text)) == count * rows
    has_note = f"The first {count} of {PAIRS} pairs" in " ".join(text.split())
    assert has_note == (count < PAIRS) == (width < 400)
    assert "semckd, %" in text or "ARI of semckd" in text


def test_wider_terminal_shows_no_fewer_pairs() -> None:
    counts = [len(Terminal(AGGREGATE).columns(width)) - 2 for width in range(10, 300)]
    assert counts == sorted(counts) and (counts[0], counts[-1]) == (1, PAIRS)


def test_long_reasons_wrap_but_numbers_do_not() -> None:
    out = io.StringIO()
    statistics = aggregate(large_page.evidence(pairs=large_page.PAIRS[:2]))
    Console(file=out, width=80).print(Terminal(statistics))
    assert "skipped:" in out.getvalue() and "FSP needs equal channels" not in out.getvalue()
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", out.getvalue())) > 2 * 10
