"""The main table in a terminal."""

import io
import re

import large_page
import pytest
from fake_grids import PAIRS as PAIRS_OF_FAKES
from fake_grids import make_cells, make_grid
from rich.console import Console

from kdbench.report.tables.over_pairs import rank
from kdbench.report.text.terminal import Terminal
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import aggregate

AGGREGATE = aggregate(large_page.evidence(only_finished=True))
PAIRS = len(large_page.PAIRS)


def printed(width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(Terminal(AGGREGATE))
    return out.getvalue()


def count_of_pairs(width: int) -> int:
    terminal = Terminal(AGGREGATE)
    return len(terminal.pairs.intersection(terminal.columns(width)))


@pytest.mark.parametrize("width", [60, 80, 81, 97, 120, 200, 400])
def test_as_many_pairs_as_fit_are_shown(width: int) -> None:
    text = printed(width)
    rows = len(AGGREGATE.methods.frame)
    count = count_of_pairs(width)
    assert max(map(len, text.splitlines())) <= width
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", text)) == count * rows
    first = f"The first {count} of {PAIRS} pairs are" if count else "No pair is"
    assert (f"{first} shown" in " ".join(text.split())) == (count < PAIRS) == (width < 400)


def test_table_over_pairs_is_complete_in_eighty_characters() -> None:
    lines = printed(80).splitlines()
    [baseline] = [line for line in lines if line.split()[:1] == ["kd"]]
    over = AGGREGATE.decision.over
    assert over.standings
    placed = over.standings["kd"]
    assert baseline.split()[1:5] == [
        f"{over.means['kd']:.2f}", "–", rank(placed), f"{placed.behind:.2f}"
    ]  # fmt: skip
    [leader] = [line for line in lines if line.split()[:2] == ["semckd", "●"]]
    contrast = over.contrasts["semckd", "kd"]
    bracket = f"+{contrast.diff:.2f} [+{contrast.low:.2f}, +{contrast.high:.2f}] ▲"
    assert bracket in leader


def test_wider_terminal_shows_no_fewer_pairs() -> None:
    counts = [count_of_pairs(width) for width in range(10, 400)]
    assert counts == sorted(counts) and (counts[0], counts[-1]) == (0, PAIRS)


def test_one_pair_is_shown_before_any_run_has_finished() -> None:
    grid = make_grid(PAIRS_OF_FAKES)
    terminal = Terminal(aggregate(Evidence(grid, make_cells(grid), {}, lambda run: [])))
    assert terminal.columns(10) == ["Method", "big → small"]


def test_long_reasons_wrap_but_numbers_do_not() -> None:
    out = io.StringIO()
    statistics = aggregate(large_page.evidence(pairs=large_page.PAIRS[:2]))
    Console(file=out, width=100).print(Terminal(statistics))
    assert "skipped" in out.getvalue() and "FSP needs equal channels" not in out.getvalue()
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", out.getvalue())) > 10
