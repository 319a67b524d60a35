"""What a new leaderboard may replace, and where it can be written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_grids import (
    PROTOCOL,
    ended,
    evidence_of,
    make_cells,
    make_grid,
    make_record,
    make_records,
    typical,
)
from small_grids import SMALL, kdbench, mistakes, write

from kdbench.grid.run import Cell
from kdbench.report import leaderboard, results_folder, several_grids
from kdbench.report.results_folder import ResultsError
from kdbench.runs import archive
from kdbench.runs.records import Record
from kdbench.stats.aggregate import aggregate

GRID = make_grid()
CELLS = make_cells(GRID, ["kd", "at"])
RECORDS = make_records(CELLS, typical)
OTHER = {"protocol": PROTOCOL.model_copy(update={"name": "crd", "epochs": 3})}


def kept(
    results: Path, cells: Sequence[Cell] = CELLS, records: Mapping[str, Record] | None = RECORDS
) -> str:
    """Return why results would be lost; "" if they are kept."""
    try:
        results_folder.check_kept(results, "fake", cells, records)
    except ResultsError as error:
        assert "--replace" in str(error) and "\n" not in str(error)
        return str(error)
    return ""


@pytest.fixture(params=[archive.NAME, "leaderboard.csv"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder of results with an archive or, as of a very large grid, without."""
    statistics = aggregate(evidence_of(GRID, CELLS, RECORDS))
    (tmp_path / "fake").mkdir()
    if request.param == archive.NAME:
        archive.write(statistics.evidence, tmp_path / "fake" / archive.NAME)
    else:
        statistics.frame.to_csv(tmp_path / "fake" / request.param, index=False)
    return tmp_path


def test_same_and_more_results_may_replace_a_leaderboard(results: Path) -> None:
    assert kept(results) == kept(results, records=None) == ""
    more = make_cells(make_grid(seeds=(0, 1, 2, 3)), ["kd", "at", "semckd"])
    assert kept(results, more) == ""
    assert kept(results.parent) == ""  # nothing there


def test_results_that_have_no_record_now_are_kept(results: Path) -> None:
    assert "results of 10 runs that have none now" in kept(results, records={})
    first = CELLS[2].runs[0]
    without = {key: record for key, record in RECORDS.items() if key != first.id}
    assert "results of 1 run that have none now (e.g. kd, big" in kept(results, records=without)
    failed = without | {first.id: ended(first, "failed", "no memory")}
    assert "have none now" in kept(results, records=failed)


def test_results_of_another_grid_are_kept(results: Path) -> None:
    fewer = make_cells(GRID, ["kd"])
    for records in (RECORDS, None):
        assert "that this grid does not have (e.g. at, big" in kept(results, fewer, records)
    seeds = make_cells(make_grid(seeds=(0, 1)), ["kd", "at"])
    assert "that this grid does not have" in kept(results, seeds)
    assert "that this grid does not have" in kept(results, make_cells(make_grid(**OTHER)))  # type: ignore[arg-type]


def test_results_of_other_images_are_kept(tmp_path: Path) -> None:
    leaderboard.write(aggregate(evidence_of(GRID, CELLS, RECORDS)), tmp_path)
    images = {
        run.id: make_record(run, typical(run), data="e" * 64) for cell in CELLS for run in cell.runs
    }
    assert "made of other images" in kept(tmp_path, records=images)


def test_failed_runs_may_be_missing(tmp_path: Path) -> None:
    first = CELLS[2].runs[0]
    before = RECORDS | {first.id: ended(first, "failed", "no memory")}
    leaderboard.write(aggregate(evidence_of(GRID, CELLS, before)), tmp_path)
    assert kept(tmp_path, records={k: r for k, r in RECORDS.items() if k != first.id}) == ""


def test_a_changed_file_of_a_method_replaces_its_own_results(tmp_path: Path) -> None:
    def cells(source: str) -> list[Cell]:
        def changed(cell: Cell) -> Cell:
            if cell.method != "at":
                return cell
            runs = tuple(
                replace(run, terms=(replace(run.terms[0], source=source),)) for run in cell.runs
            )
            return replace(cell, runs=runs)

        return [changed(cell) for cell in CELLS]

    old, new = cells("1"), cells("2")
    evidence = evidence_of(GRID, old, make_records(old, typical))
    leaderboard.write(aggregate(evidence), tmp_path)
    assert old[3].runs[0].id != new[3].runs[0].id
    assert kept(tmp_path, new, make_records(new, typical)) == ""
    assert "this grid does not have" in kept(tmp_path, new[:3], make_records(new, typical))


def test_refused_leaderboard_changes_no_file(tmp_path: Path) -> None:
    leaderboard.write(aggregate(evidence_of(GRID, CELLS, RECORDS)), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    empty = aggregate(evidence_of(GRID, CELLS, {}))
    with pytest.raises(ResultsError):
        leaderboard.write(empty, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    leaderboard.write(empty, tmp_path, replace=True)
    assert archive.load(tmp_path / "fake" / archive.NAME).records == {}


def test_grids_side_by_side_are_kept_too(tmp_path: Path) -> None:
    other = make_grid(name="b", **OTHER)  # type: ignore[arg-type]
    cells = make_cells(other)
    grids = [
        evidence_of(GRID, CELLS, RECORDS),
        evidence_of(other, cells, make_records(cells, typical)),
    ]
    several_grids.write(grids, tmp_path)
    several_grids.write(grids, tmp_path)
    emptied = [grids[0], replace(grids[1], records={})]
    with pytest.raises(ResultsError, match="have none now"):
        several_grids.write(emptied, tmp_path)
    several_grids.write(emptied, tmp_path, replace=True)


def test_damaged_archive_is_kept(tmp_path: Path) -> None:
    leaderboard.write(aggregate(evidence_of(GRID, CELLS, RECORDS)), tmp_path)
    path = tmp_path / "fake" / archive.NAME
    path.write_bytes(path.read_bytes()[:-20])
    assert "move it away" in kept(tmp_path)


def test_commands_refuse_before_they_train(tmp_path: Path) -> None:
    grid = write(tmp_path, seeds=[0])
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    assert kdbench("run", "--grid", grid, *folders).exit_code == 0
    trained = sorted((tmp_path / "runs").iterdir())
    empty = ("--runs", tmp_path / "empty", "--results", tmp_path / "results")
    [line] = mistakes("report", "--grid", grid, *empty)
    assert "results of 3 runs that have none now" in line and "--runs" in line
    other = ("--set", "protocol.epochs=2")
    for command in (("run",), ("run", "--detach", "--executor", "slurm"), ("report",)):
        [line] = mistakes(*command, "--grid", grid, *folders, *other)
        assert "this grid does not have" in line and "another name" in line
    assert sorted((tmp_path / "runs").iterdir()) == trained
    more = ("--set", "methods=[kd, at]")
    assert kdbench("run", "--grid", grid, *folders, *more).exit_code == 0
    [line] = mistakes("report", "--grid", grid, *folders)
    assert "e.g. at, r8w4 -> r8w3, seed 0" in line
    assert kdbench("report", "--grid", grid, *folders, "--replace").exit_code == 0


def test_place_is_tried_before_training(tmp_path: Path) -> None:
    grid = write(tmp_path)
    runs, results = tmp_path / "runs", tmp_path / "results"
    results.mkdir()
    (results / "taken").write_text("")
    (results / "page" / "index.html").mkdir(parents=True)
    (results / "plot").mkdir()
    (results / "plot" / "plots").write_text("")

    def refused(name: str, folder: Path = results) -> str:
        places = ("--runs", runs, "--results", folder)
        [line] = mistakes("run", "--grid", grid, *places, "--set", f"name={name}")
        return line

    assert "cannot be written here: File exists" in refused("taken")
    assert "is a folder, in the place of a file" in refused("page")
    assert "is a file, in the place of the folder of plots" in refused("plot")
    assert "cannot be written here: Not a directory" in refused("x", results / "taken" / "y")
    assert str(SMALL["name"]) not in [path.name for path in results.iterdir()]
    for name in ("index.html", "Index.html"):
        with pytest.raises(ResultsError, match="the page over all grids"):
            results_folder.check_place(results, name)
    with pytest.raises(ResultsError, match="cannot be written here: File name too long"):
        results_folder.check_place(results, "x" * 300)
    assert not runs.exists()
