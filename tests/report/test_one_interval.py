"""Every output shows the same interval for the same two rows, and marks never contradict."""

import csv
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from drawn_evidence import make_evidence
from fake_grids import ended, markdown
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.report import numbers
from kdbench.report.compare import compare_rows
from kdbench.report.page import html as page
from kdbench.report.tables import marks
from kdbench.report.text import latex, spreadsheet
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import aggregate
from kdbench.stats.paired_differences import Contrast

METHODS = ("kd", "at", "sp", "cc", "rkd")


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    """Draw a grid: some rows differ, some are noisy, and runs are missing or diverged."""
    pairs = [("big", f"s{i}") for i in range(draw(st.integers(1, 5)))]
    methods = METHODS[: draw(st.integers(1, len(METHODS)))]
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    level = {name: draw(st.sampled_from([0.0, 0.5, 3.0, 9.0])) for name in methods}
    spread = {name: draw(st.sampled_from([0.0, 0.3, 1.0, 6.0])) for name in methods}
    evidence = make_evidence(
        pairs,
        methods,
        lambda run: round(
            70.0
            + level.get(run.method, 0.0)
            + float(random.normal(0, spread.get(run.method, 0.5))),
            2,
        ),
        seeds=tuple(range(draw(st.integers(1, 4)))),
    )
    records = dict(evidence.records)
    runs = [run for cell in evidence.cells if cell.method != "teacher" for run in cell.runs]
    for run in draw(st.lists(st.sampled_from(runs), max_size=3, unique_by=lambda run: run.id)):
        records[run.id] = ended(run, "diverged", "loss is nan in epoch 1")
    for run in draw(st.lists(st.sampled_from(runs), max_size=3, unique_by=lambda run: run.id)):
        records.pop(run.id, None)
    return Evidence(evidence.grid, evidence.cells, records, evidence.history)


class TableRows(HTMLParser):
    """Texts of all rows of tables, by the text of their heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = defaultdict(list)
        self.parts: list[str] | None = None
        self.name: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.parts = []
        elif tag == "th" and self.parts is not None:
            self.name = [] if dict(attributes).get("scope") == "row" else None

    def handle_data(self, data: str) -> None:
        if self.parts is not None:
            self.parts.append(data)
        if self.name is not None:
            self.name.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "th" and self.name:
            self.label = (" ".join(self.name)).split()[0]
            self.name = None
        if tag == "tr" and self.parts is not None:
            text = " ".join(" ".join(self.parts).split())
            self.rows[getattr(self, "label", "")].append(text)
            self.parts = None


def sections(text: str) -> Mapping[str, Mapping[str, dict[str, str]]]:
    """Return a page's tables: heading -> row -> column -> text; rows without their marks."""
    out: dict[str, dict[str, dict[str, str]]] = {}
    title, columns = "", list[str]()
    for line in text.splitlines():
        if line.startswith("## "):
            title, columns = line[3:], []
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("| ") or cells[0] == "---":
            continue
        if not columns:
            columns = cells
            continue
        out.setdefault(title, {})[cells[0].split()[0]] = dict(zip(columns, cells, strict=False))
    return out


def rows(text: str) -> Iterator[dict[str, Any]]:
    for row in csv.DictReader(io.StringIO(text)):
        yield {key: math.nan if value == "" else value for key, value in row.items()}


def cells_of(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Return the lines on the difference to the baseline in the page's details of every cell."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    return {
        (cell["method"], cell["pair"]): {
            name: value
            for title, lines in cell["sections"]
            if title.startswith("Difference to")
            for name, value in lines
        }
        for cell in json.loads(match[1])["cells"]
    }


def bracket(contrast: Contrast) -> str:
    return numbers.with_interval(contrast.diff, contrast.low, contrast.high)


def in_csv(*values: Any) -> list[float]:
    return [float(value) for value in values]


def ends(contrast: Contrast) -> Any:
    """Return difference and ends, equal to numbers of the ten digits that the CSV has."""
    values = [contrast.diff, contrast.low, contrast.high]
    return pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True)


@settings(max_examples=15)
@given(evidences())
def test_every_interval_of_two_rows_is_the_same_everywhere(evidence: Evidence) -> None:
    statistics = aggregate(evidence)
    tables = sections(markdown(statistics))
    text = page.render(statistics)
    on_page, details = TableRows(text).rows, cells_of(text)
    tex = latex.leaderboard(statistics).replace("$-$", "−").replace("{[}", "[").replace("{]}", "]")
    [main] = [table for title, table in tables.items() if title.startswith("Over ")] or [{}]
    for row in rows(spreadsheet.csv(statistics.methods.frame, digits=10)):
        method = row["method"]
        if method == "kd" or row["pairs"] == "0" or row["pairs"] is math.nan:
            continue
        contrast = compare_rows(method, "kd", evidence).contrast
        assert contrast
        shown = bracket(contrast)
        assert in_csv(row["diff"], row["diff_lo"], row["diff_hi"]) == ends(contrast)
        back = compare_rows("kd", method, evidence).contrast
        assert back and back.told == contrast.told
        assert bracket(back.reversed()) == shown
        assert main[method]["− kd"].startswith(shown)
        if "[" in shown:
            assert shown in " ".join(on_page[method]) and shown in tex
    for row in rows(spreadsheet.csv(statistics.frame, digits=10)):
        method = row["method"]
        if method in ("kd", "teacher") or row["diff_n"] == "0":
            continue
        pair = f"{row['teacher']} -> {row['student']}"
        contrast = compare_rows(method, "kd", evidence, pair=pair).contrast
        assert contrast
        shown = bracket(contrast)
        assert in_csv(row["diff"], row["lo"], row["hi"]) == ends(contrast)
        assert tables["Difference to kd"][method][row["pair"]].startswith(shown)
        lines = details[method, row["pair"]]
        assert lines["Paired difference"].startswith(numbers.signed(contrast.diff))
        if "[" in shown:
            assert lines["95 % interval"] == numbers.interval(contrast.low, contrast.high)


@settings(max_examples=30)
@given(evidences())
def test_no_row_that_may_be_the_best_is_worse_than_a_leading_row(evidence: Evidence) -> None:
    decision = aggregate(evidence).decision
    alone = [(decision.over.contrasts, decision.over.standings, decision.recommendation)]
    for name, one in decision.pairs.items():
        alone.append((one.contrasts, one.standings, decision.on_pair[name]))
    for contrasts, standings, recommendation in alone:
        for (row, other), contrast in contrasts.items():
            assert contrasts[other, row].told == contrast.told
            mark, leads = marks.of_difference(contrast), (standings or {}).get(other)
            assert (mark == marks.WORSE) == (
                marks.of_difference(contrasts[other, row]) == marks.BETTER
            )
            if mark == marks.WORSE and leads and row in (standings or {}):
                assert marks.of_row(recommendation, row) == ""
