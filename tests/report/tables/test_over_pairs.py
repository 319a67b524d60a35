import re
from dataclasses import replace

from fake_grids import (
    PAIRS,
    aggregate_of,
    cell_of,
    ended,
    make_cells,
    make_grid,
    make_record,
    make_records,
    markdown,
    row_of,
    typical,
)

from kdbench.grid.settings import Dataset
from kdbench.report.tables.over_pairs import over_pairs
from kdbench.stats.aggregate import Aggregate


def complete(**changes: object) -> Aggregate:
    grid = make_grid(PAIRS, **changes)  # type: ignore[arg-type]
    cells = make_cells(grid)
    return aggregate_of(grid, cells, make_records(cells, typical))


def test_rows_are_sorted_by_mean_and_only_the_highest_is_bold() -> None:
    table = over_pairs(complete())
    assert table.title == "Over 2 pairs"
    assert table.rows["Method"].tolist() == ["semckd ●", "at", "kd", "student"]
    assert table.bold == {(0, "Mean, %")}
    assert table.rows["Mark"].tolist() == ["▲", "▲", "", "▼"]
    assert table.rows["Rank"].tolist() == ["1", "2", "3", "4"]
    assert table.rows["At most behind"].iloc[0] == "0.00"
    assert "allowing for all 4 rows" in table.notes[1]


def test_survivors_of_divergence_are_never_marked_as_the_best() -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    records = make_records(cells, typical)
    [first, *_] = cell_of(cells, "semckd").runs
    records[first.id] = ended(first, "diverged", "loss is nan in epoch 1")
    text = markdown(aggregate_of(grid, cells, records))
    assert re.search(r"\| semckd \? \| \*\*84\.\d\d \(1 of 6 runs diverged\)\*\* \|", text)
    assert "(2/3, 1 of 3 runs diverged) ?** |" in text
    assert "semckd ●" not in text


def test_one_seed_has_no_marks_and_no_ranks() -> None:
    aggregate = complete(seeds=(0,))
    table = over_pairs(aggregate)
    assert row_of(table, "at")["− kd"] == "+0.90"
    assert "Rank" not in table.rows and set(table.rows["Mark"]) == {""}
    assert "One seed each: no difference can be judged." in markdown(aggregate)


def test_sweep_shows_held_out_accuracy_and_names_no_winner() -> None:
    data = Dataset(name="digits", per_class=30, validation=0.2)
    grid = make_grid(PAIRS, dataset=data, sweep={"at.beta": (1, 10)})
    cells = make_cells(grid)
    records = {}
    for run in (run for cell in cells for run in cell.runs):
        record = make_record(run, typical(run))
        assert record.result
        held = replace(record.result, val_acc=150.0 - typical(run), n_train=240)
        records[run.id] = replace(record, result=held)
    aggregate = aggregate_of(grid, cells, records)
    table = over_pairs(aggregate)
    assert table.rows.columns[-1] == "test (do not choose by it)"
    assert row_of(table, "at")["Mean, %"] == "66.50"
    assert row_of(table, "at")["test (do not choose by it)"] == "83.50"
    text = markdown(aggregate)
    assert not {"●", "▲", "▼"} & set(text) and not table.bold
    assert "kdbench select --grid" in text and "highest mean" not in text
    assert "Would it hold on another pair?" not in text
    assert "highest test accuracy" not in text.lower() and "Best epoch" not in text
