from dataclasses import replace

from fake_grids import (
    aggregate_of,
    cell_of,
    ended,
    make_cells,
    make_grid,
    make_record,
    make_records,
    row_of,
    typical,
)
from small_grids import small

from kdbench.grid.expand import expand
from kdbench.grid.run import Cell, Teacher
from kdbench.report.tables import accuracy, supplementary
from kdbench.report.text.markdown import render
from kdbench.stats import over_seeds


def test_accuracy_puts_teacher_and_student_first_and_ari_last() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid, ("kd", "at", "semckd", "semckd+at"))
    cells = sorted(cells, key=lambda cell: cell.method)
    aggregate = aggregate_of(grid, cells, make_records(cells, typical))
    frame = aggregate.frame
    table = accuracy.accuracy(frame, decision=aggregate.decision, ari_of="semckd")
    assert list(table.rows["Method"])[:2] == ["teacher", "student"]
    assert list(table.rows.columns) == ["Method", "big → small", "big → tiny", "ARI of semckd, %"]
    assert row_of(table, "at")["big → small"] == "83.50 ± 0.46"
    assert row_of(table, "teacher") == {
        "Method": "teacher", "big → small": "95.00", "big → tiny": "95.00", "ARI of semckd, %": "",
    }  # fmt: skip
    mean = {name: frame.loc[frame["method"] == name, "mean"].tolist() for name in frame["method"]}
    values = {
        name: over_seeds.average_relative_improvement(mean["semckd"], mean[name], mean["student"])
        for name in ("kd", "at")
    }
    assert row_of(table, "at")["ARI of semckd, %"] == f"{values['at']:.2f}"
    # A combination that contains the method is not one of its competitors.
    average = sum(values.values()) / 2
    assert row_of(table, "semckd")["ARI of semckd, %"] == f"mean {average:.2f}"
    assert "over at, kd." in table.notes[2]


def test_highest_mean_is_bold_and_only_that_and_marks_are_those_of_the_pair() -> None:
    grid = make_grid()
    cells = make_cells(grid, ("kd", "at", "semckd"))
    exact = {"student": (80.0, 80.2, 80.1), "kd": (84.2, 83.6, 84.3), "at": (82.0, 82.11, 82.3),
             "semckd": (84.0, 84.1, 84.3), "teacher": (95.0,) * 3}  # fmt: skip
    records = make_records(cells, lambda run: exact[run.method][run.seed])
    aggregate = aggregate_of(grid, cells, records)
    table = accuracy.accuracy(aggregate.frame, decision=aggregate.decision)
    names = list(table.rows["Method"])
    assert [(names[i], column) for i, column in table.bold] == [("semckd", "big → small")]
    # Two of three methods may be the best, so none is marked.
    states = aggregate.decision.on_pair["big → small"].state
    assert states == {"kd": "leading", "at": "behind", "semckd": "leading"}
    assert "| **84.13 ± 0.15** |" in render(table)
    exact["kd"] = (82.2, 81.9, 82.3)
    records = make_records(cells, lambda run: exact[run.method][run.seed])
    aggregate = aggregate_of(grid, cells, records)
    text = render(accuracy.accuracy(aggregate.frame, decision=aggregate.decision))
    assert "| **84.13 ± 0.15 ●** |" in text and text.count("●") == 2  # one in the legend
    assert "**" not in render(accuracy.accuracy(aggregate.frame))


def test_incomplete_cells_show_their_status() -> None:
    grid = make_grid()
    cells = make_cells(grid, ("kd", "at", "vid", "sp", "fsp", "semckd", "mixed"))
    accuracies = {"vid": 1.0, "sp": 1.0, "fsp": 1.0, "mixed": 1.0}
    records = make_records(cells, lambda run: accuracies.get(run.method) or typical(run))
    at, vid = cell_of(cells, "at").runs, cell_of(cells, "vid").runs
    records[at[1].id] = ended(at[1], "diverged", "loss is nan in epoch 1")
    del records[at[2].id]
    for run in vid:
        records[run.id] = ended(run, "diverged", "loss is nan in epoch 1")
    for run in cell_of(cells, "sp").runs:
        records[run.id] = ended(run, "failed", "RuntimeError: out of | memory")
    for run in cell_of(cells, "fsp").runs:
        records[run.id] = ended(run, "skipped", "FSP needs equal channels")
    mixed = cell_of(cells, "mixed").runs
    records[mixed[0].id] = ended(mixed[0], "failed", "boom")
    del records[mixed[1].id], records[mixed[2].id]
    del records[cell_of(cells, "kd").runs[0].id]
    for run in cell_of(cells, "semckd").runs:
        del records[run.id]
    aggregate = aggregate_of(grid, cells, records)
    frame = aggregate.frame
    table = accuracy.accuracy(frame, ari_of="semckd")
    cell_texts = {method: row_of(table, method)["big → small"] for method in table.rows["Method"]}
    assert cell_texts["at"] == "83.00 (1/3, 1 of 3 runs diverged)"
    assert cell_texts["kd"] == "82.70 ± 0.00 (2/3)"
    assert cell_texts["vid"] == "diverged 3/3"
    assert cell_texts["sp"] == "failed"
    assert cell_texts["fsp"] == "skipped: FSP needs equal channels"
    assert cell_texts["semckd"] == "missing"
    assert cell_texts["mixed"] == "failed 1/3, missing 2/3"
    status = dict(zip(frame["method"], frame["status"], strict=True))
    assert status == {
        "teacher": "done", "student": "done", "kd": "partial", "at": "partial",
        "vid": "diverged", "sp": "failed", "fsp": "skipped", "semckd": "missing", "mixed": "failed",
    }  # fmt: skip
    assert row_of(table, "kd")["ARI of semckd, %"] == ""
    lines = accuracy.reasons(frame)
    assert lines[0] == (
        f"at, diverged 1/3: loss is nan in epoch 1 (big → small; kdbench show {at[1].id})"
    )
    assert any("FSP needs equal channels" in line for line in lines)
    differences = accuracy.differences(frame, aggregate.decision)
    assert row_of(differences, "at")["big → small"] == "–"
    assert row_of(differences, "vid")["big → small"] == "–"


def test_without_records_all_cells_are_missing() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    frame = aggregate_of(grid, cells, {}).frame
    table = accuracy.accuracy(frame, ari_of="semckd")
    assert set(table.rows["big → small"]) == {"missing"}
    overall = aggregate_of(grid, cells, {}).methods.frame
    assert accuracy.improvements(frame, "semckd", overall).rows.empty
    assert set(frame["status"]) == {"missing"}


def test_unreliable_ari_is_marked() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid)
    records = make_records(cells, typical)
    # On the second pair kd is only as good as the student, and noisy.
    for seed, run in enumerate(cells[7].runs):
        assert (run.method, run.student) == ("kd", "tiny")
        records[run.id] = make_record(run, 80.6 + (0.5, -0.5, 0.1)[seed])
    aggregate = aggregate_of(grid, cells, records)
    frame, overall = aggregate.frame, aggregate.methods.frame
    ratios = accuracy.improvements(frame, "semckd", overall)
    # Two pairs are too few for an interval.
    assert row_of(ratios, "at")["ARI [95 %]"] == "33.3"
    assert row_of(ratios, "kd")["big → tiny"].endswith(" †")
    assert not row_of(ratios, "kd")["big → small"].endswith("†")
    assert not row_of(ratios, "at")["big → tiny"].endswith("†")
    assert row_of(accuracy.accuracy(frame, ari_of="semckd"), "kd")["ARI of semckd, %"].endswith(
        " †"
    )
    assert row_of(ratios, "at")["Mean difference, points"] == "+1.00"


def test_ari_over_some_pairs_shows_their_number() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid)
    records = make_records(cells, typical)
    for run in cells[8].runs:
        assert (run.method, run.student) == ("at", "tiny")
        del records[run.id]
    table = accuracy.accuracy(aggregate_of(grid, cells, records).frame, ari_of="semckd")
    assert row_of(table, "at")["ARI of semckd, %"].endswith("(1/2 pairs)")


def test_one_seed_has_no_spread_and_no_test() -> None:
    grid = make_grid(seeds=[0])
    cells = make_cells(grid)
    aggregate = aggregate_of(grid, cells, make_records(cells, typical))
    frame, decision = aggregate.frame, aggregate.decision
    table = accuracy.accuracy(frame, decision=decision, ari_of="semckd")
    assert row_of(table, "kd")["big → small"] == "82.10"
    assert len(table.bold) == 1
    assert row_of(table, "kd")["ARI of semckd, %"].endswith("†")
    assert row_of(accuracy.differences(frame, decision), "at")["big → small"] == "+0.90 (1 seed)"


def test_costs_are_relative_to_the_baseline_and_include_the_teacher() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, typical)
    for run in cell_of(cells, "semckd").runs:
        records[run.id] = make_record(run, 84.0, seconds=34.0, extra=10_200_000)
    table = supplementary.costs(aggregate_of(grid, cells, records).frame, "kd")
    semckd = row_of(table, "semckd")
    assert semckd["Time / kd"] == "3.00"
    assert semckd["Seconds"] == "36.0"
    assert semckd["Extra parameters in training"] == "10,200,000"
    assert semckd["Parameters deployed"] == "1,000"
    assert row_of(table, "student")["Time / kd"] == "0.83"


def test_title_says_that_the_best_epoch_is_selected() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    table = supplementary.best_epoch(aggregate_of(grid, cells, make_records(cells, typical)).frame)
    assert "selected on the test set; not the headline" in table.title
    assert row_of(table, "at")["big → small"] == "84.00"


def test_imported_teacher_shows_the_accuracy_in_student_records() -> None:
    grid = make_grid(teachers={"big": "import-0123"})
    cells = make_cells(grid)
    [own] = cells[0].runs
    runs = {
        cell.method: tuple(replace(r, teacher=Teacher("big", "import-0123")) for r in cell.runs)
        for cell in cells[2:]
    }
    cells = [
        Cell("teacher", "big", "small", ()),
        cells[1],
        *(replace(cell, runs=runs[cell.method]) for cell in cells[2:]),
    ]
    frame = aggregate_of(grid, cells, make_records(cells, typical)).frame
    teacher = frame.iloc[0]
    assert (teacher["status"], teacher["mean"], teacher["runs"]) == (
        "imported",
        95.0,
        "import-0123",
    )
    assert row_of(accuracy.accuracy(frame), "teacher")["big → small"] == "95.00 (imported)"
    assert own.id not in frame["runs"].tolist()
    empty = aggregate_of(grid, cells, {}).frame
    assert row_of(accuracy.accuracy(empty), "teacher")["big → small"] == "imported"


def test_repeated_pair_has_two_columns() -> None:
    grid = make_grid([("big", "small"), ("big", "small")])
    cells = make_cells(grid)
    table = accuracy.accuracy(aggregate_of(grid, cells, make_records(cells, typical)).frame)
    assert list(table.rows.columns) == ["Method", "big → small", "big → small (2)"]


def test_objectives_show_the_weights_of_each_row() -> None:
    grid = make_grid()
    table = supplementary.objectives(make_cells(grid, ("kd", "semckd+at")))
    assert row_of(table, "student") == {
        "Method": "student", "gamma (CE)": "1", "alpha (T²·KL)": "0", "T": "–", "beta · term": "",
    }  # fmt: skip
    assert row_of(table, "semckd+at")["beta · term"] == "2 · semckd(p=2) + 2 · at(p=2)"


def test_objectives_that_differ_between_pairs_are_all_shown() -> None:
    """Values of the first pair alone would be wrong for the others."""
    grid = small(
        protocol={"preset": "crd", "epochs": 1},
        pairs=["resnet56 -> resnet20", "vgg13 -> vgg8", "resnet110 -> resnet32"],
        methods=["ft", "kd"],
    )
    table = supplementary.objectives(expand(grid).cells)
    assert table.rows["Method"].tolist() == [
        "teacher", "student",
        "ft (resnet56 -> resnet20, resnet110 -> resnet32)", "ft (vgg13 -> vgg8)", "kd",
    ]  # fmt: skip
    terms = [text for text in table.rows["beta · term"] if text.startswith("200 · ft")]
    assert [text.partition("; ")[2] for text in terms] == [
        "pretraining phase: 30 epochs at 0.01", "pretraining phase: 30 epochs at 0.05",
    ]  # fmt: skip
