import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from kdbench import stats, tables
from kdbench.grid import Grid, Pair, Report, TeacherSpec
from kdbench.records import Cost, Record, Result, Status
from kdbench.run import Cell, Run, Teacher, Term
from kdbench.spec import Dataset, Protocol
from kdbench.tables import Table

DIGITS = Dataset(name="digits")
PROTOCOL = Protocol(name="demo", epochs=2, crop_pad=0, flip=False)


def make_grid(
    pairs: Sequence[tuple[str, str]] = (("big", "small"),),
    seeds: Sequence[int] = (0, 1, 2),
    **changes: object,
) -> Grid:
    """A grid by hand; its methods are in its cells only."""
    values: dict[str, object] = {
        "name": "fake",
        "title": "A fake grid",
        "dataset": DIGITS,
        "protocol": PROTOCOL,
        "seeds": tuple(seeds),
        "pairs": tuple(Pair(teacher=teacher, student=student) for teacher, student in pairs),
        "report": Report(ari_of="semckd"),
        "source": "experiments/fake.yaml",
    }
    return Grid(**values | changes)  # type: ignore[arg-type]


def make_run(
    grid: Grid, student: str, seed: int, method: str = "student", teacher: Run | None = None
) -> Run:
    """A run of a cell; the method's name is that of its terms."""
    terms = () if teacher is None else tuple(Term(m, 2.0, {"p": 2}) for m in method.split("+"))
    return Run(
        student=student,
        teacher=Teacher(teacher.student, teacher.id) if teacher else None,
        dataset=grid.dataset,
        training=grid.protocol.training(student),
        gamma=1.0,
        alpha=1.0 if teacher else 0.0,
        temperature=4.0,
        terms=terms,
        seed=seed,
        method=method,
        protocol=grid.protocol.name,
    )


def make_cells(grid: Grid, methods: Sequence[str] = ("kd", "at", "semckd")) -> list[Cell]:
    """Teacher, student and methods of every pair, as ``expand`` orders them."""
    cells = []
    for pair in grid.pairs:
        teacher = make_run(grid, pair.teacher, grid.teacher.seed, "teacher")
        cells.append(Cell("teacher", pair.teacher, pair.student, (teacher,)))
        for method in ("student", *methods):
            source = None if method == "student" else teacher
            runs = tuple(make_run(grid, pair.student, seed, method, source) for seed in grid.seeds)
            cells.append(Cell(method, pair.teacher, pair.student, runs))
    return cells


def make_record(
    run: Run, accuracy: float, *, seconds: float = 10.0, data: str = "d" * 64, extra: int = 0
) -> Record:
    """A run that is done."""
    teaches = run.teacher is not None
    result = Result(
        epoch=2, steps=8, train_loss=1.0, train_acc=90.0, test_loss=1.0, test_acc=accuracy,
        test_top5=99.0, best_acc=accuracy + 0.5, best_epoch=1, weights="a" * 64, data=data,
        n_train=1000, n_test=400, teacher_acc=95.0 if teaches else None,
        teacher_weights="a" * 64 if teaches else None,
    )  # fmt: skip
    cost = Cost(
        seconds=seconds, teacher_seconds=2.0 if teaches else 0.0, step_ms=3.0, params=1000,
        params_deployed=1000, params_extra=extra, macs=5000, peak_mb=200.0,
    )  # fmt: skip
    environment = {
        "device": "cpu",
        "threads": 1,
        "processor": "A Processor",
        "commit": "0123456789abcdef",
        "dirty": False,
        "versions": {"torch": "2.9.0", "kdbench": "0.1.0"},
    }
    return Record(run.id, "done", result=result, cost=cost, environment=environment)


def make_records(cells: Sequence[Cell], accuracy: Callable[[Run], float]) -> dict[str, Record]:
    """All runs done, with these accuracies."""
    return {run.id: make_record(run, accuracy(run)) for cell in cells for run in cell.runs}


BASE = {"teacher": 95.0, "student": 80.0, "kd": 82.0, "at": 83.0, "semckd": 84.0}
WIGGLE = {"student": (0.0, 0.3, -0.3), "kd": (0.1, 0.2, -0.3), "at": (0.0, 0.1, -0.1)}


def typical(run: Run) -> float:
    """An accuracy by method and seed: methods lie apart, seeds move all of them alike."""
    name = run.method.split("+")[0]
    wiggle = WIGGLE.get(name, (0.1, 0.0, -0.1))[run.seed % 3]
    return BASE[name] + wiggle + (run.seed % 3) * 0.5


def ended(run: Run, status: Status, reason: str) -> Record:
    return Record(run.id, status, reason)


def cell_of(cells: Sequence[Cell], method: str) -> Cell:
    return next(cell for cell in cells if cell.method == method)


def row_of(table: Table, method: str) -> dict[str, str]:
    [row] = table.rows[table.rows["Method"] == method].to_dict("records")
    return {str(key): value for key, value in row.items()}


def test_tidy_has_a_row_per_method_and_pair_with_its_numbers() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid)
    frame = tables.tidy(grid, cells, make_records(cells, typical))
    assert list(frame.columns) == list(tables.COLUMNS)
    assert len(frame) == 10
    at = frame[(frame["method"] == "at") & (frame["student"] == "small")].iloc[0]
    accuracies = [83.0, 83.6, 83.9]
    kd = [82.1, 82.7, 82.7]
    assert at["mean"] == pytest.approx(sum(accuracies) / 3)
    assert at["best_mean"] == pytest.approx(sum(accuracies) / 3 + 0.5)
    assert (at["n"], at["expected"], at["status"]) == (3, 3, "done")
    assert (at["dataset"], at["protocol"]) == ("digits", "demo")
    assert at["diff"] == pytest.approx(sum(accuracies) / 3 - sum(kd) / 3)
    assert at["lo"] < at["diff"] < at["hi"]
    # Two methods are compared with kd, so the smaller p is doubled.
    semckd = frame[(frame["method"] == "semckd") & (frame["student"] == "small")].iloc[0]
    assert sorted([at["p_holm"] / at["p"], semckd["p_holm"] / semckd["p"]])[-1] == pytest.approx(2)
    student = frame[(frame["method"] == "student") & (frame["student"] == "small")].iloc[0]
    assert math.isnan(student["p_holm"]) and student["diff"] < 0
    assert at["recovered_gap"] == pytest.approx(
        (at["mean"] - student["mean"]) / (95 - student["mean"])
    )
    assert at["test_se"] == pytest.approx(math.sqrt(at["mean"] * (100 - at["mean"]) / 400))
    assert at["time_ratio"] == 1.0
    assert student["time_ratio"] == pytest.approx(10 / 12)
    assert at["runs"].split() == [run.id for run in cell_of(cells, "at").runs]


def test_accuracy_puts_teacher_and_student_first_and_ari_last() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid, ("kd", "at", "semckd", "semckd+at"))
    cells = sorted(cells, key=lambda cell: cell.method)
    frame = tables.tidy(grid, cells, make_records(cells, typical))
    table = tables.accuracy(frame, ari_of="semckd")
    assert list(table.rows["Method"])[:2] == ["teacher", "student"]
    assert list(table.rows.columns) == ["Method", "big → small", "big → tiny", "ARI of semckd, %"]
    assert row_of(table, "at")["big → small"] == "83.50 ± 0.46"
    assert row_of(table, "teacher") == {
        "Method": "teacher", "big → small": "95.00", "big → tiny": "95.00", "ARI of semckd, %": "",
    }  # fmt: skip
    mean = {name: frame.loc[frame["method"] == name, "mean"].tolist() for name in frame["method"]}
    values = {
        name: stats.average_relative_improvement(mean["semckd"], mean[name], mean["student"])
        for name in ("kd", "at")
    }
    assert row_of(table, "at")["ARI of semckd, %"] == f"{values['at']:.2f}"
    # A combination with the method itself is no competitor of it.
    average = sum(values.values()) / 2
    assert row_of(table, "semckd")["ARI of semckd, %"] == f"mean {average:.2f}"
    assert "over at, kd." in table.notes[2]


def test_bold_is_the_best_and_what_a_test_does_not_tell_from_it() -> None:
    grid = make_grid()
    cells = make_cells(grid, ("kd", "at", "semckd"))
    exact = {"student": (80.0, 80.2, 80.1), "kd": (84.2, 83.6, 84.3), "at": (82.0, 82.11, 82.3),
             "semckd": (84.0, 84.1, 84.3), "teacher": (95.0,) * 3}  # fmt: skip
    records = make_records(cells, lambda run: exact[run.method][run.seed])
    table = tables.accuracy(tables.tidy(grid, cells, records))
    names = list(table.rows["Method"])
    assert {names[i] for i, _ in table.bold} == {"semckd", "kd"}
    assert "| **84.03 ± 0.38** |" in tables.markdown(table)


def test_cells_that_are_not_whole_say_so() -> None:
    grid = make_grid()
    cells = make_cells(grid, ("kd", "at", "vid", "sp", "fsp", "semckd", "mixed"))
    BASE_ALL = {"vid": 1.0, "sp": 1.0, "fsp": 1.0, "mixed": 1.0}
    records = make_records(cells, lambda run: BASE_ALL.get(run.method) or typical(run))
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
    frame = tables.tidy(grid, cells, records)
    table = tables.accuracy(frame, ari_of="semckd")
    shown = {method: row_of(table, method)["big → small"] for method in table.rows["Method"]}
    assert shown["at"] == "83.00 (1/3, diverged 1/3)"
    assert shown["kd"] == "82.70 ± 0.00 (2/3)"
    assert shown["vid"] == "diverged 3/3"
    assert shown["sp"] == "failed"
    assert shown["fsp"] == "skipped: FSP needs equal channels"
    assert shown["semckd"] == "missing"
    assert shown["mixed"] == "failed 1/3, missing 2/3"
    status = dict(zip(frame["method"], frame["status"], strict=True))
    assert status == {
        "teacher": "done", "student": "done", "kd": "partial", "at": "partial",
        "vid": "diverged", "sp": "failed", "fsp": "skipped", "semckd": "missing", "mixed": "failed",
    }  # fmt: skip
    assert row_of(table, "kd")["ARI of semckd, %"] == ""
    lines = tables.reasons(frame)
    assert lines[0] == (
        f"at, diverged 1/3: loss is nan in epoch 1 (big → small; kdbench show {at[1].id})"
    )
    assert any("FSP needs equal channels" in line for line in lines)
    differences = tables.differences(frame, "kd")
    assert row_of(differences, "at")["big → small"] == "–"
    assert row_of(differences, "vid")["big → small"] == "–"


def test_no_record_at_all_is_a_table_of_what_is_missing() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    frame = tables.tidy(grid, cells, {})
    table = tables.accuracy(frame, ari_of="semckd")
    assert set(table.rows["big → small"]) == {"missing"}
    assert tables.improvements(frame, "semckd").rows.empty
    assert set(frame["status"]) == {"missing"}


def test_ari_marks_denominators_that_are_within_the_noise() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid)
    records = make_records(cells, typical)
    # On the second pair kd is at the student's level, and noisy.
    for seed, run in enumerate(cells[7].runs):
        assert (run.method, run.student) == ("kd", "tiny")
        records[run.id] = make_record(run, 80.6 + (0.5, -0.5, 0.1)[seed])
    frame = tables.tidy(grid, cells, records)
    ratios = tables.improvements(frame, "semckd")
    assert row_of(ratios, "kd")["big → tiny"].endswith(" †")
    assert not row_of(ratios, "kd")["big → small"].endswith("†")
    assert not row_of(ratios, "at")["big → tiny"].endswith("†")
    assert row_of(tables.accuracy(frame, ari_of="semckd"), "kd")["ARI of semckd, %"].endswith(" †")
    assert row_of(ratios, "at")["Mean difference, points"] == "+1.00"


def test_ari_over_some_pairs_says_over_how_many() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid)
    records = make_records(cells, typical)
    for run in cells[8].runs:
        assert (run.method, run.student) == ("at", "tiny")
        del records[run.id]
    table = tables.accuracy(tables.tidy(grid, cells, records), ari_of="semckd")
    assert row_of(table, "at")["ARI of semckd, %"].endswith("(1/2 pairs)")


def test_one_seed_is_shown_without_a_spread_and_tells_nothing_apart() -> None:
    grid = make_grid(seeds=[0])
    cells = make_cells(grid)
    frame = tables.tidy(grid, cells, make_records(cells, typical))
    table = tables.accuracy(frame, ari_of="semckd")
    assert row_of(table, "kd")["big → small"] == "82.10"
    assert len(table.bold) == 4
    assert row_of(table, "kd")["ARI of semckd, %"].endswith("†")
    assert row_of(tables.differences(frame, "kd"), "at")["big → small"] == "+0.90 (1 seed)"


def test_costs_are_relative_to_the_baseline_with_the_teachers_forward() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, typical)
    for run in cell_of(cells, "semckd").runs:
        records[run.id] = make_record(run, 84.0, seconds=34.0, extra=10_200_000)
    table = tables.costs(tables.tidy(grid, cells, records), "kd")
    semckd = row_of(table, "semckd")
    assert semckd["Time / kd"] == "3.00"
    assert semckd["Seconds"] == "36.0"
    assert semckd["Extra parameters in training"] == "10,200,000"
    assert semckd["Parameters deployed"] == "1,000"
    assert row_of(table, "student")["Time / kd"] == "0.83"


def test_best_epoch_is_flagged_in_its_title() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    table = tables.best_epoch(tables.tidy(grid, cells, make_records(cells, typical)))
    assert "selected on the test set; not the headline" in table.title
    assert row_of(table, "at")["big → small"] == "84.00"


def test_an_imported_teacher_shows_what_its_students_saw() -> None:
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
    frame = tables.tidy(grid, cells, make_records(cells, typical))
    teacher = frame.iloc[0]
    assert (teacher["status"], teacher["mean"], teacher["runs"]) == (
        "imported",
        95.0,
        "import-0123",
    )
    assert row_of(tables.accuracy(frame), "teacher")["big → small"] == "95.00 (imported)"
    assert own.id not in frame["runs"].tolist()
    empty = tables.tidy(grid, cells, {})
    assert row_of(tables.accuracy(empty), "teacher")["big → small"] == "imported"


def test_a_teacher_of_other_data_says_which() -> None:
    data = Dataset(name="digits", per_class=30)
    grid = make_grid(dataset=data, teacher=TeacherSpec(dataset=DIGITS))
    cells = make_cells(grid)
    frame = tables.tidy(grid, cells, make_records(cells, typical))
    assert frame.loc[frame["method"] == "teacher", "dataset"].tolist() == ["digits"]
    assert set(frame.loc[frame["method"] != "teacher", "dataset"]) == {"digits, 30 per class"}


def test_a_pair_that_comes_twice_has_two_columns() -> None:
    grid = make_grid([("big", "small"), ("big", "small")])
    cells = make_cells(grid)
    table = tables.accuracy(tables.tidy(grid, cells, make_records(cells, typical)))
    assert list(table.rows.columns) == ["Method", "big → small", "big → small (2)"]


def test_find_knows_a_row_by_its_label_or_by_its_terms() -> None:
    grid = make_grid()
    kd = cell_of(make_cells(grid), "kd")
    labelled = replace(kd, method="Hinton")
    assert tables.find([kd], "kd") == "kd"
    assert tables.find([labelled], "kd") == "Hinton"
    assert tables.find([labelled, replace(kd, method="again")], "kd") is None
    assert tables.find([kd], "at") is None
    mine = replace(kd.runs[0], terms=(Term("/home/me/mine.py", 1.0),))
    assert tables.find([Cell("mine.py", "b", "s", (mine,))], "./mine.py") == "mine.py"


def test_published_figures_stand_beside_ours() -> None:
    grid = make_grid(
        [("resnet32x4", "vgg8")],
        dataset=Dataset(name="cifar100"),
        report=Report(reference="SemCKD (AAAI 2021)/Table 1"),
    )
    cells = make_cells(grid, ("kd", "fitnets"))
    BASE_HERE = {"fitnets": 73.0}
    records = make_records(cells, lambda run: BASE_HERE.get(run.method) or typical(run))
    frame = tables.tidy(grid, cells, records)
    table = tables.published_figures(frame, "SemCKD (AAAI 2021)/Table 1")
    assert row_of(table, "fitnets")["resnet32x4 → vgg8"] == "72.91 ± 0.18 (ours +0.09)"
    assert any("SemCKD repo" in note for note in table.notes)


def test_published_figures_of_other_data_are_not_shown() -> None:
    grid = make_grid(
        [("resnet32x4", "vgg8")], report=Report(reference="SemCKD (AAAI 2021)/Table 1")
    )
    cells = make_cells(grid)
    frame = tables.tidy(grid, cells, make_records(cells, typical))
    assert frame["published_mean"].isna().all()
    assert tables.published_figures(frame, "x").rows.empty


def test_objectives_say_each_rows_weights() -> None:
    grid = make_grid()
    table = tables.objectives(make_cells(grid, ("kd", "semckd+at")))
    assert row_of(table, "student") == {
        "Method": "student", "gamma (CE)": "1", "alpha (T²·KL)": "0", "T": "–", "beta · term": "",
    }  # fmt: skip
    assert row_of(table, "semckd+at")["beta · term"] == "2 · semckd(p=2) + 2 · at(p=2)"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a | b", r"a \| b"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("[x](javascript:y)", r"[x\](javascript:y)"),
        ("wrn_40_2", "wrn_40_2"),
        ("_so_", r"\_so\_"),
        ("**bold** `code`", r"\*\*bold\*\* \`code\`"),
        ("two\nlines\t here", "two lines here"),
        ("back\\slash", r"back\\slash"),
        ("p < 0.05 & a -> b", "p < 0.05 & a -> b"),
        ("&lt;b&gt; &#60;", "&amp;lt;b&amp;gt; &amp;#60;"),
        ("<!-- x", "&lt;!-- x"),
        ("[a]: http://b", r"[a\]: http://b"),
        ("# a", r"\# a"),
        ("> a", r"\> a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("-2.26 [-2.50, -2.02]", "-2.26 [-2.50, -2.02]"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert tables.escape(text) == escaped


def test_markdown_escapes_every_cell_heading_and_note() -> None:
    import pandas as pd

    rows = pd.DataFrame({"A|B": ["<b>"], "C": ["x|y"]})
    text = tables.markdown(Table("T|<i>", rows, frozenset({(0, "C")}), ("n<o>te",)))
    assert text.splitlines() == [
        r"## T\|&lt;i>", "", r"| A\|B | C |", "| --- | ---: |", r"| &lt;b> | **x\|y** |", "",
        "n&lt;o>te",
    ]  # fmt: skip
