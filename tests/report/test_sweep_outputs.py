"""Every output of a grid that chooses on held-out images, and sentences that no output may have.

In the sweep the order of the rows by test accuracy is the opposite of that by held-out accuracy.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_grids import PAIRS, evidence_of, make_cells, make_grid, make_record, make_records, typical
from rich.console import Console
from small_grids import kdbench, small, tree

from kdbench.grid.expand import expand
from kdbench.grid.run import Run
from kdbench.report import leaderboard
from kdbench.report.plots import pictures
from kdbench.report.text.decision_sentences import cost, sure, which
from kdbench.report.text.terminal import Terminal
from kdbench.runs import records as stored
from kdbench.runs.evidence import Evidence, History
from kdbench.runs.records import Record
from kdbench.stats.aggregate import Aggregate, aggregate
from kdbench.stats.headline import TEST_COLUMN

ROOT = Path(__file__).parents[2]
SWEEP: dict[str, Any] = {
    "dataset": {"name": "digits", "per_class": 30, "validation": 0.2},
    "seeds": [0, 1, 2],
    "pairs": ["r8w4 -> r8w3", "r8w4 -> v5w4"],
    "methods": ["kd", "at"],
    "sweep": {"at.beta": [1, 10, 100]},
}
HELD_OUT = {"teacher": 90.0, "student": 60.0, "kd": 65.0,
            "at(beta=1)": 70.0, "at(beta=10)": 75.0, "at(beta=100)": 80.0}  # fmt: skip
IN_ORDER = ["at(beta=100)", "at(beta=10)", "at(beta=1)", "kd", "student"]
FORBIDDEN = (
    "cannot be told from",
    "not distinguishable",
    "indistinguishable",
    "not significantly different",
    "statistically equal",
    "equally good",
    "equal to the best",
    "equal to the baseline",
)
"""Sentences that turn the absence of evidence into equality."""
MARKS = "●▲▼"


def held_out(run: Run) -> float:
    return HELD_OUT[run.method] + (0.0, 0.4, -0.4)[run.seed] * (1 + 0.1 * len(run.method))


def record(run: Run) -> Record:
    made = make_record(run, 100.0 - held_out(run))
    assert made.result
    return replace(made, result=replace(made.result, val_acc=held_out(run), n_train=240))


def history(run: Run) -> History:
    """Return a curve of two epochs."""
    return [
        {"epoch": float(i), "train_loss": 1.0, "test_acc": 100.0 - held_out(run) - 2 + i,
         "val_acc": held_out(run) - 2 + i}
        for i in (1, 2)
    ]  # fmt: skip


@cache
def sweep() -> Aggregate:
    grid = small(**SWEEP)
    cells = expand(grid).cells
    runs = {run.id: run for cell in cells for run in cell.runs}
    records = {key: record(run) for key, run in runs.items()}
    return aggregate(Evidence(grid, cells, records, lambda key: history(runs[key])))


@cache
def usual() -> Aggregate:
    """Return a grid without a sweep, in which little can be told."""
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    return aggregate(evidence_of(grid, cells, make_records(cells, typical)))


@cache
def texts(name: str) -> dict[str, str]:
    """Return every output with text: name of the file, or of the command, -> text."""
    grid = {"sweep": sweep, "usual": usual}[name]()
    files = leaderboard.files(grid, leaderboard.draw_here)
    suffixes = (".md", ".html", ".tex", ".csv", ".svg")
    out = {name: data.decode() for name, data in files.items() if name.endswith(suffixes)}
    console = Console(width=200, file=io.StringIO())
    console.print(Terminal(grid))
    assert isinstance(console.file, io.StringIO)
    out["terminal"] = console.file.getvalue()
    out["plots"] = "\n".join(f"{p.title} {p.alt}" for p in pictures.figures(grid))
    out["answers"] = "\n".join([*which(grid), *sure(grid), *cost(grid)])
    return out


@pytest.mark.parametrize("name", ["sweep", "usual"])
def test_no_output_turns_a_failed_test_into_equality(name: str) -> None:
    for where, text in texts(name).items():
        found = [words for words in FORBIDDEN if words in text.casefold()]
        assert not found, (where, found)


def test_no_output_of_a_sweep_names_the_highest_test_accuracy() -> None:
    for where, text in texts("sweep").items():
        assert "highest test accuracy" not in text.casefold(), where
        assert "selected on the test set; not the headline" not in text.casefold(), where


def sources() -> Iterator[Path]:
    for pattern in ("*.py", "*.j2", "*.js", "*.css"):
        yield from (ROOT / "kdbench").rglob(pattern)


def test_no_source_has_such_a_sentence() -> None:
    every = list(sources())
    assert len(every) > 100
    for path in every:
        # Strings may continue on the next line.
        text = re.sub(r'["\']?\s*\n\s*(?:f?["\']|#|//)?\s*', " ", path.read_text()).casefold()
        found = [words for words in FORBIDDEN if words in text]
        assert not found, (path, found)


# --- a sweep's headline is the held-out accuracy ---


def columns(markdown: str, heading: str) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table below a heading."""
    lines = markdown.split(f"## {heading}\n", 1)[1].strip().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[: lines.index("")]]
    return rows[0], rows[2:]


def test_page_in_markdown() -> None:
    text = texts("sweep")["leaderboard.md"]
    head, rows = columns(text, "Over 2 pairs")
    assert head[-1] == TEST_COLUMN
    assert [row[0].strip("*") for row in rows] == IN_ORDER
    assert rows[0][1].strip("*") == "80.00" and rows[0][-1] == "20.00"
    _, by_pair = columns(text, "Accuracy")
    assert by_pair[0][:2] == ["teacher", "90.00"]  # its own run's
    shown = [row[0].strip("*") for row in by_pair]
    assert [row for row in shown if row != "teacher"] == [IN_ORDER[-1], *IN_ORDER[:-1]]
    assert "kdbench select --grid grid.yaml" in text
    assert not set(text) & set(MARKS)
    assert "Best epoch" not in text and "Held-out accuracy of the last epoch" in text
    assert "top-1 accuracy on held-out training images after the last epoch" in text


def test_page_in_html() -> None:
    text = texts("sweep")["index.html"]
    assert TEST_COLUMN in text
    assert not set(text) & set(MARKS)
    assert "may be the best" not in text
    stated = "test accuracy (do not choose by it)"
    assert "test accuracy" not in text.casefold().replace(stated, "")
    assert "kdbench select --grid grid.yaml" in text
    table = text[text.index("<table") :]
    places = [table.index(f">{row}</button>") for row in IN_ORDER]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["leaderboard.tex", "terminal", "answers"])
def test_other_texts(name: str) -> None:
    text = texts("sweep")[name]
    assert not set(text) & set(MARKS)
    assert name == "leaderboard.tex" or "kdbench select --grid grid.yaml" in text
    assert name == "answers" or "80.00" in text


def test_terminal_is_in_order_and_test_accuracy_is_last() -> None:
    lines = texts("sweep")["terminal"].splitlines()
    [head] = [line for line in lines if "Method" in line]
    assert head.rstrip().endswith("by it)")  # the end of TEST_COLUMN
    rows = [line.split()[0] for line in lines if line.strip().startswith(tuple(IN_ORDER))]
    assert rows == IN_ORDER


def test_data_frames() -> None:
    rows = list(csv.DictReader(io.StringIO(texts("sweep")["leaderboard.csv"])))
    for row in rows:
        assert row["measured_on"] == "held-out training images"
        assert float(row["mean"]) == pytest.approx(HELD_OUT[row["method"]])
        if row["method"] != "teacher":
            assert float(row["test_mean"]) == pytest.approx(100 - HELD_OUT[row["method"]])
    assert not any(row["state"] for row in rows)


def test_plots_draw_held_out_accuracies() -> None:
    drawn = {plot.name: plot for plot in pictures.figures(sweep())}
    assert "ranks" not in drawn
    for name in ("accuracy", "cost", "curves", "sensitivity"):
        plot = drawn[name]
        assert "test accuracy" not in plot.alt.casefold(), name
        labels = [
            label for axis in plot.figure.axes for label in (axis.get_xlabel(), axis.get_ylabel())
        ]
        labels += [text.get_text() for text in plot.figure.texts]
        assert not any("test accuracy" in label for label in labels), name
        assert any("held-out" in label for label in labels), name
    for name in ("accuracy", "curves"):
        lines = [line for axis in drawn[name].figure.axes for line in axis.get_lines()]
        ends = [line.get_xdata() if name == "accuracy" else line.get_ydata() for line in lines]
        values = [value for end in ends for value in np.asarray(end, dtype=float) if value > 2]
        assert values and min(values) > 50, name  # all test accuracies are lower


def test_status_shows_the_held_out_accuracy(tmp_path: Path) -> None:
    path, runs = tmp_path / "grid.yaml", tmp_path / "runs"
    path.write_text(yaml.safe_dump(tree(**SWEEP)))
    for run in expand(small(**SWEEP)).runs:
        stored.write_run(runs, run)
        stored.write(runs, record(run))
    [line] = [
        line
        for line in kdbench("status", "--grid", path, "--runs", runs).stdout.splitlines()
        if "at(beta=100)" in line
    ][:1]
    assert "80.00 %" in line
