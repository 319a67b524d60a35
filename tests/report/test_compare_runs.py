"""Comparison of two single runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_grids import make_cells, make_grid, make_record
from small_grids import kdbench, mistakes

from kdbench.grid.run import Run
from kdbench.report.compare import CompareError
from kdbench.report.compare_runs import two_runs
from kdbench.runs import records


def write_two_runs(folder: Path, **changes: object) -> tuple[Run, Run]:
    """Write two runs; ``changes`` apply to the training of the second run."""
    cells = make_cells(make_grid())
    first, second = cells[2].runs[0], cells[3].runs[0]
    second = replace(second, training=second.training.model_copy(update=changes))
    for run, accuracy in ((first, 71.0), (second, 72.5)):
        records.write_run(folder, run)
        records.write(folder, make_record(run, accuracy))
    return first, second


def test_two_runs_support_no_conclusion(tmp_path: Path) -> None:
    first, second = write_two_runs(tmp_path)
    done = kdbench("compare", second.id, tmp_path / first.id, "--runs", tmp_path)
    assert done.exit_code == 0
    beginnings = kdbench("compare", second.id[:8], first.id[:8], "--runs", tmp_path)
    assert beginnings.stdout == done.stdout
    [line] = mistakes("compare", second.id[:8], "0" * 17, "--runs", tmp_path)
    assert line.startswith("0" * 17 + ": not a run; ")
    difference, conclusion = done.stdout.splitlines()
    assert "72.50" in difference and "71.00; +1.50 points" in difference
    assert "an effect of the method cannot be distinguished from chance" in conclusion


def test_two_runs_of_different_protocols_are_refused(tmp_path: Path) -> None:
    first, second = write_two_runs(tmp_path, epochs=7)
    args = ("compare", first.id, second.id, "--runs", tmp_path)
    [line] = mistakes(*args)
    assert "different protocols (epochs 2 and 7)" in line
    assert "ATTENTION: different protocols: epochs 2 and 7" in kdbench(*args, "--mix").stdout


def test_two_runs_without_comparable_results_are_refused(tmp_path: Path) -> None:
    first, second = write_two_runs(tmp_path)
    (tmp_path / second.id / "record.json").unlink()  # an existing record is never replaced
    records.write(tmp_path, make_record(second, 72.5, data="e" * 64))
    assert (
        "measured on different data"
        in mistakes("compare", first.id, second.id, "--runs", tmp_path)[0]
    )
    (tmp_path / second.id / "record.json").unlink()
    with pytest.raises(CompareError, match="no result: no record yet"):
        two_runs(tmp_path, first.id, second.id)
    with pytest.raises(CompareError, match="not a run; expected a folder"):
        two_runs(tmp_path, first.id, "nothing")


def test_json_of_two_runs(tmp_path: Path) -> None:
    first, second = write_two_runs(tmp_path)
    done = kdbench("compare", second.id, first.id, "--runs", tmp_path, "--json")
    read = json.loads(done.stdout)
    assert read["command"] == "compare" and read["diff"] == pytest.approx(1.5)
    assert read["a"]["id"] == second.id and read["a"]["test_acc"] == 72.5
    assert read["b"]["standard_error"] == pytest.approx(100 * (0.71 * 0.29 / 400) ** 0.5)
    assert read["remarks"][0].startswith("one run each")


@pytest.mark.parametrize("option", [("--pair", "a -> b"), ("--set", "seeds=[0]")])
def test_options_of_grids_are_refused_for_runs(tmp_path: Path, option: tuple[str, str]) -> None:
    first, second = write_two_runs(tmp_path)
    [line] = mistakes("compare", first.id, second.id, "--runs", tmp_path, *option)
    assert line == f"{option[0]} needs --grid"
