import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import rich.console
from fake_grids import (
    PAIRS,
    aggregate_of,
    cell_of,
    ended,
    make_cells,
    make_grid,
    make_record,
    make_records,
    page,
    typical,
)

from kdbench.grid.grid import Report, TeacherSpec
from kdbench.grid.run import Cell
from kdbench.grid.settings import Dataset
from kdbench.report import leaderboard
from kdbench.report.text.terminal import Terminal
from kdbench.runs.records import Record
from kdbench.stats.aggregate import LeaderboardError

PLOTS = ("accuracy", "differences", "cost", "ranks", "curves")


def test_write_creates_page_csv_and_plots(tmp_path: Path) -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    path = leaderboard.write(aggregate_of(grid, cells, make_records(cells, typical)), tmp_path)
    assert path == tmp_path / "fake" / "leaderboard.md"
    files = sorted(str(p.relative_to(path.parent)) for p in path.parent.rglob("*") if p.is_file())
    plots = [f"plots/{name}.{kind}" for name in PLOTS for kind in ("png", "svg")]
    plots.append("plots/over_pairs.svg")
    assert files == [
        "across.csv",
        "index.html",
        "leaderboard.csv",
        "leaderboard.md",
        "leaderboard.parquet",
        "leaderboard.tex",
        *sorted(plots),
        "records.parquet",
    ]
    assert (tmp_path / "index.html").exists()
    frame = pd.read_csv(path.with_suffix(".csv"))
    assert len(frame) == 10
    expected = "method teacher student dataset protocol n mean sd best_mean status diff lo hi p"
    expected += " p_adj df se diff_sd rank_lo rank_hi behind state noisy"
    expected += " seconds teacher_seconds params_extra params_deployed peak_mb recovered_gap"
    expected += " published_mean published_source test_se runs"
    assert set(expected.split()) <= set(frame.columns)
    assert frame.loc[3, "mean"] == pytest.approx(83.5)
    # Counts stay integers even if some cells have none.
    assert "1000.0" not in path.with_suffix(".csv").read_text()


def test_same_records_give_same_bytes(tmp_path: Path) -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    records = make_records(cells, typical)
    backwards = dict(reversed(records.items()))
    first = leaderboard.write(aggregate_of(grid, cells, records), tmp_path / "a").parent
    second = leaderboard.write(aggregate_of(grid, cells, backwards), tmp_path / "b").parent
    names = [p.relative_to(first) for p in first.rglob("*") if p.is_file()]
    assert len(names) == 8 + 2 * len(PLOTS)
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_very_many_runs_are_not_archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = make_grid()
    cells = make_cells(grid)
    monkeypatch.setattr("kdbench.runs.archive.MOST", 12)
    page = leaderboard.write(aggregate_of(grid, cells, make_records(cells, typical)), tmp_path)
    assert "Grids of more than 12 runs have no archive of their records." in page.read_text()
    assert not (page.parent / "records.parquet").exists()


def test_missing_results_are_listed(tmp_path: Path) -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, typical)
    at, kd = cell_of(cells, "at").runs, cell_of(cells, "kd").runs
    records[at[0].id] = ended(at[0], "failed", "ValueError: a | <b>")
    del records[kd[2].id]
    text = leaderboard.write(aggregate_of(grid, cells, records), tmp_path).read_text()
    assert (
        f"- at, failed 1/3: ValueError: a \\| &lt;b> (big → small; kdbench show {at[0].id})" in text
    )
    assert "- 1 run of this table: no record yet." in text
    assert "13: 11 done, 0 diverged, 1 failed, 0 skipped, 1 missing" in text


def test_no_records_yet(tmp_path: Path) -> None:
    grid = make_grid(PAIRS)
    text = leaderboard.write(aggregate_of(grid, make_cells(grid), {}), tmp_path).read_text()
    assert "not read by any run yet" in text
    assert "25: 0 done, 0 diverged, 0 failed, 0 skipped, 25 missing" in text
    assert "nan" not in text


def test_external_text_is_escaped(tmp_path: Path) -> None:
    grid = make_grid(
        title="<script>alert(1)</script> | x",
        report=Report(supports="<img src=x>", against="a\n# heading"),
        source="x'; rm -rf ~ #.yaml",
    )
    cells = make_cells(grid, ("kd", "<script>evil|"))
    records = make_records(cells[:3], typical)
    path = leaderboard.write(aggregate_of(grid, cells, records), tmp_path)
    text = path.read_text()
    assert "<script>" not in text and "<img" not in text and "\n# heading" not in text
    assert "| &lt;script>evil\\| |" in text
    assert "--grid 'x'\"'\"'; rm -rf ~ #.yaml'" in text
    assert "<script>" not in (path.parent / "plots" / "accuracy.svg").read_text()


def other_data(cells: list[Cell], records: Mapping[str, Record]) -> dict[str, Record]:
    run = cells[3].runs[1]
    return {**records, run.id: make_record(run, 80.0, data="e" * 64)}


def test_records_of_different_data_are_refused(tmp_path: Path) -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = other_data(cells, make_records(cells, typical))
    with pytest.raises(LeaderboardError) as error:
        leaderboard.write(aggregate_of(grid, cells, records), tmp_path)
    message = str(error.value)
    assert message.startswith("experiments/fake.yaml: runs used different data")
    assert f"{cells[3].runs[1].id} has eeeeeeeeeeee" in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())
    with pytest.raises(LeaderboardError):
        aggregate_of(grid, cells, records)


def test_teacher_trained_on_other_data_is_accepted(tmp_path: Path) -> None:
    data = Dataset(name="digits", per_class=30)
    for spec, refused in (
        (TeacherSpec(dataset=Dataset(name="digits")), False),
        (TeacherSpec(), True),
    ):
        grid = make_grid(dataset=data, teacher=spec)
        cells = make_cells(grid)
        records = make_records(cells, typical)
        [run] = cells[0].runs
        records[run.id] = make_record(run, 95.0, data="f" * 64)
        if refused:
            with pytest.raises(LeaderboardError, match=run.id):
                leaderboard.write(aggregate_of(grid, cells, records), tmp_path)
        else:
            leaderboard.write(aggregate_of(grid, cells, records), tmp_path)


def test_unknown_reference_is_reported_in_one_line() -> None:
    grid = make_grid(report=Report(reference="SemCKD/Table 9"))
    with pytest.raises(LeaderboardError, match=r"fake.yaml: report.reference: SemCKD/Table 9"):
        aggregate_of(grid, make_cells(grid), {})


def test_published_figures_have_a_section(tmp_path: Path) -> None:
    report = Report(reference="SemCKD (AAAI 2021)/Table 1", ari_of="semckd")
    grid = make_grid([("resnet32x4", "vgg8")], dataset=Dataset(name="cifar100"), report=report)
    cells = make_cells(grid)
    text = leaderboard.write(
        aggregate_of(grid, cells, make_records(cells, typical)), tmp_path
    ).read_text()
    assert "## Published: SemCKD (AAAI 2021)/Table 1" in text
    assert "Published on CIFAR-100, here cifar100 under demo" in text
    assert "## Published" not in page()


def test_order_of_sections_and_plots(tmp_path: Path) -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    path = leaderboard.write(aggregate_of(grid, cells, make_records(cells, typical)), tmp_path)
    text = path.read_text()
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    drawn = [line for line in text.splitlines() if line.startswith("![")]
    assert [line[:-5].rpartition("/")[2] for line in drawn] == ["over_pairs", *PLOTS]
    plots = headings[3:-7]
    assert len(plots) == len(PLOTS)
    assert [*headings[:3], *headings[-7:]] == [
        "Over 2 pairs", "Accuracy", "Difference to kd",
        "Would it hold on another pair?", "Further statistics over pairs",
        "ARI of semckd by pair", "Cost",
        "Best epoch (selected on the test set; not the headline)", "Objectives",
        "How it was measured",
    ]  # fmt: skip


def test_terminal_prints_the_main_table() -> None:
    grid = make_grid(PAIRS, title="[red]title[/red]")
    cells = make_cells(grid)
    out = io.StringIO()
    table = Terminal(aggregate_of(grid, cells, make_records(cells, typical)))
    rich.console.Console(file=out, width=120).print(table)
    text = out.getvalue()
    assert "[red]title[/red]" in text
    assert "83.50 ± 0.46" in text and "+1.00 [+0.83, +1.17] ▲" in text
    assert "**" not in text


def test_reporting_imports_no_torch() -> None:
    code = (
        "import sys, kdbench.report.leaderboard, kdbench.runs.records\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'scipy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
