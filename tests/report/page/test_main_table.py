import re
from dataclasses import replace
from typing import Any

import large_page
import pytest
from fake_grids import make_record

from kdbench.grid.grid import Report
from kdbench.report import numbers
from kdbench.report.page import html as page
from kdbench.report.page import main_table, method_details, table_section
from kdbench.report.page.main_table import TableRow
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import Aggregate, aggregate
from tests.report.page.test_html import Reader, data_of
from tests.stats.test_headline import aggregate_of_sweep, sweep_grid

SMALL: dict[str, Any] = {
    "methods": ("kd", "at", "fsp", "nst", "crd", "dkd", "reviewkd"),
    "pairs": (("wrn_40_2", "ShuffleV1"), ("ResNet50", "vgg8"), ("resnet56", "resnet20")),
}


def made(**changes: Any) -> Aggregate:
    return aggregate(large_page.evidence(**SMALL | changes))


def by_name(statistics: Aggregate) -> dict[str, TableRow]:
    return {row.name: row for row in main_table.rows(statistics)}


def section(statistics: Aggregate) -> table_section.TableSection:
    rows, columns = main_table.rows(statistics), main_table.columns(statistics)
    return table_section.table_section(statistics, rows, columns, opens=True)


def shifted(evidence: Evidence, by: dict[str, float]) -> Evidence:
    """Give every run 70 % and the shift of its method, with little noise over seeds."""
    records = {
        run.id: make_record(run, 70 + by.get(cell.method, 0) + ((7 * i + 3 * run.seed) % 5) / 50)
        for i, cell in enumerate(evidence.cells)
        for run in cell.runs
    }
    return replace(evidence, records=records)


# --- rows ---


def test_rows_are_in_order_of_their_mean_over_pairs() -> None:
    statistics = made()
    rows = main_table.rows(statistics)
    means = [row.accuracy for row in rows if numbers.known(row.accuracy)]
    assert means == sorted(means, reverse=True)
    assert [row.accuracy for row in rows[: len(means)]] == means
    table = {row.name: row for row in rows}
    assert table["kd"].accuracy == statistics.decision.over.means["kd"]
    assert table["fsp"].accuracy != table["fsp"].accuracy, "skipped on every pair"
    assert table["teacher"].accuracy == pytest.approx(
        statistics.frame.query("method == 'teacher'")["mean"].mean()
    )


def test_differences_and_places_are_those_of_the_decision() -> None:
    statistics = made()
    decision = statistics.decision
    for row in main_table.rows(statistics):
        assert repr(row.overall) == repr(decision.over.contrasts.get((row.name, "kd")))  # nan
        assert row.standing == (decision.over.standings or {}).get(row.name)
        for column, cell in zip(main_table.columns(statistics), row.cells, strict=True):
            contrasts = decision.pairs[column.name].contrasts
            assert repr(cell.contrast) == repr(contrasts.get((row.name, "kd")))


def test_only_the_highest_mean_of_the_methods_is_bold() -> None:
    rows = main_table.rows(made(only_finished=True))
    assert sum(row.highest for row in rows) == 1
    best = next(row for row in rows if row.highest)
    assert best.accuracy == max(row.accuracy for row in rows if not row.baseline)
    for i in range(3):
        [highest] = [row.cells[i] for row in rows if row.cells[i].highest]
        values = [row.cells[i].value for row in rows if not row.baseline]
        assert highest.value == max(value for value in values if value is not None)


def test_leading_methods_are_marked_only_if_few_lead() -> None:
    evidence = large_page.evidence(**SMALL, only_finished=True)
    alone = by_name(aggregate(shifted(evidence, {"at": 6.0, "student": -6.0})))
    assert (alone["at"].mark, alone["at"].direction) == ("leading", "up")
    assert alone["kd"].mark == "" and alone["kd"].state == "behind"
    assert {cell.state for cell in alone["at"].cells} == {"leading"}
    alike = by_name(aggregate(shifted(evidence, {"student": -6.0})))
    assert {row.mark for row in alike.values()} == {""}
    assert alike["kd"].state == "leading" and alike["student"].direction == "down"
    text = " ".join(section(aggregate(shifted(evidence, {"student": -6.0}))).legend)
    assert "● is not shown" in text


def test_trouble_makes_a_leading_method_unplaced() -> None:
    evidence = large_page.evidence(**SMALL, only_finished=True)
    evidence = shifted(evidence, {"at": 6.0, "student": -6.0})
    run = next(cell.runs[0] for cell in evidence.cells if cell.method == "at")
    records = dict(evidence.records)
    records[run.id] = replace(records[run.id], status="diverged", result=None, reason="loss is nan")
    statistics = aggregate(replace(evidence, records=records))
    row = by_name(statistics)["at"]
    assert row.mark == "unplaced"
    cell = next(cell for cell in row.cells if cell.flag)
    assert (cell.short, cell.flag) == ("1 of 5 diverged", "4 of 5 seeds: 1 diverged")
    verdict = method_details.verdict(statistics, "at")
    assert verdict == "cannot be placed: a run diverged"


# --- the section ---


def test_ranks_are_left_out_without_standings() -> None:
    labels = [head.label for head in section(made()).heads]
    assert labels[:6] == ["Method", "Mean", "− kd", "Rank", "Behind", "Time"]
    assert labels[-2:] == ["Family", "Year"]
    one = section(made(seeds=(0,), only_finished=True))
    assert [head.label for head in one.heads][:4] == ["Method", "Mean", "− kd", "Time"]
    assert "One seed each: no difference can be judged." in one.legend


def test_grid_without_the_baseline_has_no_columns_of_differences() -> None:
    labels = [head.label for head in section(made(report=Report(baseline="none"))).heads]
    assert labels[:4] == ["Method", "Mean", "Rank", "Behind"]


def test_only_choices_of_two_values_are_offered() -> None:
    names = [choice[0] for choice in section(made()).choices]
    assert names == ["family", "pair", "arch"]
    one = section(made(pairs=(("vgg13", "vgg8"),), methods=("kd",)))
    assert one.choices == []


def test_map_has_only_rows_that_lack_a_result() -> None:
    statistics = made()
    names = {row.name for row in section(statistics).incomplete}
    assert names == {"fsp", "nst", "crd", "dkd", "reviewkd"}
    assert section(statistics).complete == ""
    full = aggregate(large_page.evidence(**SMALL, only_finished=True))
    assert section(full).complete == "No result is missing: all 27 cells have all 5 seeds."
    text = large_page.html(full.evidence)
    assert '<table class="map">' not in text and "No result is missing" in text


def test_every_bracket_of_the_table_is_the_decision_s() -> None:
    statistics = made()
    decision = statistics.decision
    text = large_page.html(statistics.evidence)
    table = (
        text.partition('<table id="leaderboard"')[2]
        .partition("<tbody>")[2]
        .partition("</table>")[0]
    )
    found = re.findall(r"\[[^\[\]<]*\d[^\[\]<]*\]", " ".join(Reader(table).texts))
    scopes = [decision.over.contrasts, *(one.contrasts for one in decision.pairs.values())]
    rows = [row.name for row in main_table.rows(statistics)]
    known = [c for scope in scopes for row in rows if (c := scope.get((row, "kd"))) and c.known]
    wanted = [numbers.interval(c.low, c.high) for c in known if c.row != "kd"]
    assert sorted(found) == sorted(wanted) and len(found) > 10


def test_files_of_the_table_are_linked() -> None:
    links = [link for link, _ in section(made()).files]
    assert links == [
        "leaderboard.csv", "leaderboard.tex", "leaderboard.parquet", "records.parquet",
    ]  # fmt: skip


# --- sweeps on held-out images ---


def test_sweep_shows_held_out_accuracies_and_test_accuracies_last() -> None:
    statistics = aggregate_of_sweep(sweep_grid())
    board = section(statistics)
    labels = [head.label for head in board.heads]
    assert "Rank" not in labels and "Behind" not in labels
    assert labels[-3:] == ["test (do not choose by it)", "Family", "Year"]
    assert board.headline.startswith("Held-out accuracy after the last epoch")
    for row in board.rows:
        assert (row.mark, row.direction, row.standing) == ("", "", None)
        assert {cell.state + cell.direction for cell in row.cells} == {""}
        if row.name != "teacher":
            assert row.accuracy == pytest.approx(150 - row.test)
    assert any(line.startswith("Choose on held-out images: ") for line in board.legend)
    text = page.render(statistics)
    assert text.count("test (do not choose by it)") == 1
    assert data_of(text)["accuracy"] == "held-out accuracy"
    details = data_of(text)["cells"][-1]
    assert details["sections"][0][0] == "Accuracy"
    lines = dict(details["sections"][0][1])
    assert "Held-out accuracy, last epoch, mean ± sd" in lines
    assert "Test accuracy (do not choose by it)" in lines
    assert all(run[4] is None for run in details["runs"]), "the best epoch is one of the test set"


# --- details of methods ---


def test_details_of_a_method_name_its_place_and_paper() -> None:
    statistics = made()
    rows, columns = main_table.rows(statistics), main_table.columns(statistics)
    details = {one["name"]: one for one in method_details.details(statistics, rows, columns)}
    assert list(details) == [row.name for row in rows]
    sections = dict(details["at"]["sections"])
    over = dict(sections["Over pairs"])
    contrast = statistics.decision.over.contrasts["at", "kd"]
    assert over["− kd"].startswith(
        numbers.with_interval(contrast.diff, contrast.low, contrast.high)
    )
    assert over["p, adjusted for 7 rows"] == numbers.p_value(contrast.p_adj)
    assert dict(sections["Method"])["Year"] == "2017"
    assert details["at"]["links"] and details["at"]["bibtex"].startswith("@")
    assert set(details["at"]["cells"]) == {column.name for column in columns}
    for one in details.values():
        for title, lines in one["sections"]:
            assert lines and all(name and text for name, text in lines), (one["name"], title)


def test_place_of_an_unranked_row_is_empty() -> None:
    assert method_details.place(None) == []
