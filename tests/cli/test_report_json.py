"""``kdbench report --json``: the files written, and the numbers of the decision."""

import doctest
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT, SNIPPETS
from fake_grids import (
    PAIRS,
    aggregate_of,
    ended,
    evidence_of,
    make_cells,
    make_grid,
    make_record,
    make_records,
    typical,
)
from json_documents import answer, strict
from small_grids import expanded, kdbench, mistakes, write

from kdbench.cli import report_json
from kdbench.cli.json_output import document
from kdbench.grid.run import Run
from kdbench.grid.settings import Protocol
from kdbench.report import leaderboard
from kdbench.runs import archive, records
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.paired_differences import Contrast

METHODS = ("kd", "at", "semckd", "semckd+at")
HOSTILE = 'mine "\\ \x1b[31m</script>\u202e é 漢'
GRID: dict[str, Any] = {
    "methods": ["kd", "at"], "seeds": [0, 1, 2], "pairs": ["r8w4 -> r8w3", "v5w4 -> r8w3"],
}  # fmt: skip


def whole(aggregate: Aggregate) -> Any:
    """Return the document about a grid."""
    page = Path("results") / "fake" / "leaderboard.md"
    return strict(document("report", report_json.content(aggregate, [page])))


def of(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    [row] = [row for row in rows if row["method"] == method]
    return row


def check(values: dict[str, Any], contrast: Contrast) -> None:
    """Compare every number of a contrast."""
    assert values == {
        "row": contrast.row, "other": contrast.other, "pairs": contrast.pairs,
        "seeds": contrast.n, "diff_points": contrast.diff, "low_points": contrast.low,
        "high_points": contrast.high, "se_points": contrast.se, "df": contrast.df,
        "sd_points": None if contrast.sd != contrast.sd else contrast.sd, "p": contrast.p,
        "p_adjusted": contrast.p_adj, "told_apart": contrast.told,
    }  # fmt: skip


def test_numbers_are_those_of_the_decision() -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid, METHODS)
    aggregate = aggregate_of(grid, cells, make_records(cells, typical))
    values, decision = whole(aggregate), aggregate.decision
    assert (values["baseline"], values["accuracy"]) == ("kd", "test_acc")
    assert values["rows_compared"] == decision.rows == 5
    assert [pair["pair"] for pair in values["pairs"]] == ["big -> small", "big -> tiny"]
    for pair, name in zip(values["pairs"], decision.pairs, strict=True):
        own = decision.pairs[name]
        assert [row["method"] for row in pair["rows"]] == ["teacher", "student", *METHODS]
        assert pair["d0"] == own.d0 and pair["typical_sd_points"] ** 2 == pytest.approx(own.typical)
        check(of(pair["rows"], "at")["to_baseline"], own.contrasts["at", "kd"])
        assert own.standings
        for row in pair["rows"][1:]:
            standing = own.standings[row["method"]]
            assert (row["rank_low"], row["rank_high"]) == (standing.rank_low, standing.rank_high)
            assert (row["may_be_best"], row["behind_points"]) == (standing.leading, standing.behind)
            assert row["state"] == decision.on_pair[name].state.get(row["method"])
        assert of(pair["rows"], "kd")["to_baseline"] is None
        assert of(pair["rows"], "teacher")["mean_percent"] == 95.0
    over = decision.over
    assert over.standings
    assert [row["method"] for row in values["over_pairs"]["rows"]] == ["student", *METHODS]
    for row in values["over_pairs"]["rows"]:
        assert row["mean_percent"] == over.means[row["method"]] and row["complete"] is True
        assert row["rank_high"] == over.standings[row["method"]].rank_high
    check(of(values["over_pairs"]["rows"], "at")["to_baseline"], over.contrasts["at", "kd"])
    choice = decision.recommendation
    assert values["recommendation"] == {
        "leader": choice.leader, "shortlist": list(choice.shortlist), "named": list(choice.named),
        "for_less_time": choice.cheaper, "marks_shown": choice.shade,
    }  # fmt: skip
    assert values["other_pairs"] is None


def test_four_pairs_say_something_of_others() -> None:
    grid = make_grid([("big", name) for name in ("a", "b", "c", "d")])
    cells = make_cells(grid)
    aggregate = aggregate_of(grid, cells, make_records(cells, wiggling))
    assert aggregate.decision.other
    rows = whole(aggregate)["other_pairs"]["rows"]
    check(of(rows, "at")["to_baseline"], aggregate.decision.other.contrasts["at", "kd"])


def wiggling(run: Run) -> float:
    """Return accuracies whose differences vary over pairs."""
    return typical(run) + 0.25 * (ord(run.student[0]) * len(run.method) % 3)


def test_unknown_numbers_are_null_and_runs_are_listed() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    record_of = make_records(cells, typical)
    at, semckd = (cell.runs for cell in cells[3:])
    record_of[at[0].id] = ended(at[0], "diverged", HOSTILE)
    record_of[at[1].id] = ended(at[1], "failed", "ValueError: x")
    for run in semckd:
        del record_of[run.id]
    values = whole(aggregate_of(grid, cells, record_of))
    rows = values["pairs"][0]["rows"]
    row = of(rows, "at")
    assert row["states"] == {"done": 1, "diverged": 1, "failed": 1, "skipped": 0, "missing": 0}
    assert [(run["seed"], run["state"], run["reason"]) for run in row["runs"]] == [
        (0, "diverged", HOSTILE), (1, "failed", "ValueError: x"), (2, "done", None),
    ]  # fmt: skip
    assert [run["id"] for run in row["runs"]] == [run.id for run in at]
    assert row["runs"][0]["acc_percent"] is None and row["sd_points"] is None
    assert row["to_baseline"]["low_points"] is None and row["to_baseline"]["told_apart"] is False
    assert row["rank_low"] is None and row["to_baseline"]["diff_points"] is not None
    assert values["pairs"][0]["untested"] == ["at"]
    empty = of(rows, "semckd")
    assert empty["mean_percent"] is None and empty["training_seconds"] is None
    assert empty["states"]["missing"] == 3 and empty["to_baseline"] is None
    assert of(values["over_pairs"]["rows"], "at")["troubled"] is True
    assert whole(aggregate_of(grid, cells, {}))["recommendation"]["leader"] is None


def test_names_are_kept_whatever_they_contain() -> None:
    grid = make_grid()
    cells = [
        replace(cell, method=HOSTILE) if cell.method == "at" else cell for cell in make_cells(grid)
    ]
    values = whole(aggregate_of(grid, cells, make_records(cells, typical)))
    assert of(values["pairs"][0]["rows"], HOSTILE)["to_baseline"]["row"] == HOSTILE
    assert HOSTILE in [row["method"] for row in values["over_pairs"]["rows"]]


def test_imported_teachers_have_an_accuracy() -> None:
    grid = make_grid()
    cells = [
        replace(cell, runs=()) if cell.method == "teacher" else cell for cell in make_cells(grid)
    ]
    [teacher, *_] = whole(aggregate_of(grid, cells, make_records(cells, typical)))["pairs"][0][
        "rows"
    ]
    assert (teacher["mean_percent"], teacher["runs"]) == (95.0, [])


def test_example_of_the_documentation_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str]) -> str:
        assert words[0] == "kdbench"
        return kdbench(*words[1:]).stdout

    def files(aggregate: Aggregate, results: Path, *_: object, **__: object) -> list[Path]:
        return [leaderboard.page(aggregate, results)]

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(subprocess, "check_output", run)
    monkeypatch.setattr(leaderboard, "write_files", files)  # plots take seconds
    [text] = [s.text for s in SNIPPETS if s.page.name == "commands.md" and "--json" in s.text]
    test = doctest.DocTestParser().get_doctest(text, {}, "commands.md", None, None)
    failures: list[str] = []
    assert len(test.examples) > 5
    doctest.DocTestRunner().run(test, out=failures.append)
    assert failures == []


# --- the command ----------------------------------------------------------------------------------


def trained(runs: Path) -> None:
    """Write a record of every run of ``GRID``."""
    for cell in expanded(**GRID).cells:
        position = ("teacher", "student", "kd", "at").index(cell.method)
        for run in cell.runs:
            records.write_run(runs, run)
            accuracy = 80.0 + position + (run.seed * (position + 1) % 3) / 4
            records.write(runs, make_record(run, accuracy))


def test_report_lists_the_files_that_it_writes(tmp_path: Path) -> None:
    trained(tmp_path / "runs")
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    path = write(tmp_path, **GRID)
    values = answer("report", "--grid", path, *folders)
    target = tmp_path / "results" / "small"
    assert (values["folder"], values["page"]) == (str(target), f"{target}/leaderboard.md")
    written = {str(file) for file in (tmp_path / "results").rglob("*") if file.is_file()}
    assert set(values["files"]) == written and len(values["files"]) == len(written)
    assert [row["method"] for row in values["pairs"][1]["rows"]] == [
        "teacher", "student", "kd", "at",
    ]  # fmt: skip
    human = kdbench("report", "--grid", path, *folders)
    assert human.exit_code == 0 and '"schema"' not in human.stdout
    assert human.stdout.splitlines()[-1] == values["page"]
    assert "83.25   +1.25 [+0.97, +1.53] ▲" in human.stdout
    again = answer("report", "--from", target / "records.parquet", "--results", tmp_path / "b")
    keys = ("baseline", "pairs", "over_pairs", "recommendation")
    assert [again[key] for key in keys] == [values[key] for key in keys]
    empty = ("--runs", tmp_path / "empty", "--results", tmp_path / "results")
    [line] = mistakes("report", "--grid", path, *empty, "--json")
    assert "--replace" in line
    assert kdbench("report", "--grid", path, *empty, "--json").stdout == ""


def test_grids_side_by_side_have_files_only(tmp_path: Path) -> None:
    archives = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for path, epochs in zip(archives, (2, 3), strict=True):
        protocol = Protocol(name="demo", epochs=epochs, crop_pad=0, flip=False)
        grid = make_grid(name=path.stem, protocol=protocol)
        cells = make_cells(grid)
        archive.write(evidence_of(grid, cells, make_records(cells, typical)), path)
    sources = [word for path in archives for word in ("--from", path)]
    values = answer("report", *sources, "--results", tmp_path / "results", "--mix")
    folder = tmp_path / "results" / "a-and-b"
    written = {str(file) for file in (tmp_path / "results").rglob("*") if file.is_file()}
    assert set(values["files"]) == written
    assert values == {
        "schema": 1, "command": "report", "grid": "a-and-b", "title": "A fake grid; A fake grid",
        "file": "experiments/fake.yaml --grid experiments/fake.yaml", "folder": str(folder),
        "page": str(folder / "mixed.md"),
        "files": [str(folder / "mixed.csv"), str(folder / "mixed.md")], "side_by_side": True,
    }  # fmt: skip
