"""Grids, runs, records, a page and a plugin's file, built without training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdbench.grid.grid import Grid, Pair, Report
from kdbench.grid.run import Cell, Run, Teacher, Term
from kdbench.grid.settings import Dataset, Protocol
from kdbench.report import leaderboard
from kdbench.report.tables.table import Table
from kdbench.runs.evidence import Evidence, History
from kdbench.runs.records import Cost, Record, Result, Status
from kdbench.stats.aggregate import Aggregate, aggregate

DIGITS = Dataset(name="digits")
PROTOCOL = Protocol(name="demo", epochs=2, crop_pad=0, flip=False)
BASE = {"teacher": 95.0, "student": 80.0, "kd": 82.0, "at": 83.0, "semckd": 84.0}
WIGGLE = {"student": (0.0, 0.3, -0.3), "kd": (0.1, 0.2, -0.3), "at": (0.0, 0.1, -0.1)}
PAIRS = [("big", "small"), ("big", "tiny")]
GOOD = '''"""Mine (Somebody, 2024)."""

from kdbench.method import Batch, Features, Method, Objective, Setup


class Mine(Method):
    beta = 2
    needs_teacher = False
    objective = Objective(gamma=0.5, alpha=None)

    def __init__(self, setup: Setup, *, width: int = 8, scale: float = -1.0, where: tuple = (1, 2)):
        super().__init__(setup)

    def loss(self, s, t, batch):
        return s.logits.mean()
'''


def make_grid(
    pairs: Sequence[tuple[str, str]] = (("big", "small"),),
    seeds: Sequence[int] = (0, 1, 2),
    **changes: object,
) -> Grid:
    """Return a grid; its methods are only in its cells."""
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
    """Return a run of a cell; the method's name gives its terms."""
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
    """Return teacher, student and methods of every pair, in the order of ``expand``."""
    cells = []
    for pair in grid.pairs:
        teacher = make_run(grid, pair.teacher, grid.teacher.seed, "teacher")
        teacher = replace(teacher, dataset=grid.teacher.dataset or grid.dataset)
        cells.append(Cell("teacher", pair.teacher, pair.student, (teacher,)))
        for method in ("student", *methods):
            source = None if method == "student" else teacher
            runs = tuple(make_run(grid, pair.student, seed, method, source) for seed in grid.seeds)
            cells.append(Cell(method, pair.teacher, pair.student, runs))
    return cells


def make_result(accuracy: float, data: str = "d" * 64) -> Result:
    return Result(
        epoch=2, steps=8, train_loss=1.0, train_acc=90.0, test_loss=1.0, test_acc=accuracy,
        test_top5=99.0, best_acc=accuracy + 0.5, best_epoch=1, weights="a" * 64, data=data,
        n_train=1000, n_test=400,
    )  # fmt: skip


def done(run_id: str) -> Record:
    """Return the record of a finished run, of which a test needs no more than the id."""
    return Record(run_id, "done", result=make_result(75.0))


def make_record(
    run: Run, accuracy: float, *, seconds: float = 10.0, data: str = "d" * 64, extra: int = 0
) -> Record:
    """Return the record of a finished run."""
    has_teacher = run.teacher is not None
    result = make_result(accuracy, data)
    if has_teacher:
        result = replace(result, teacher_acc=95.0, teacher_weights="a" * 64)
    cost = Cost(
        seconds=seconds, teacher_seconds=2.0 if has_teacher else 0.0, step_ms=3.0, params=1000,
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
    """Return records of all runs, finished with these accuracies."""
    return {run.id: make_record(run, accuracy(run)) for cell in cells for run in cell.runs}


def typical(run: Run) -> float:
    """Return an accuracy: methods differ, and a seed shifts all methods alike."""
    name = run.method.split("+")[0]
    wiggle = WIGGLE.get(name, (0.1, 0.0, -0.1))[run.seed % 3]
    return BASE[name] + wiggle + (run.seed % 3) * 0.5


def ended(run: Run, status: Status, reason: str) -> Record:
    return Record(run.id, status, reason)


def evidence_of(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], epochs: int = 2
) -> Evidence:
    """Return evidence in which every finished run has a curve."""

    def history(run_id: str) -> History:
        record = records.get(run_id)
        if record is None or record.result is None:
            return []
        acc = record.result.test_acc
        return [
            {"epoch": float(i), "train_loss": 1 / i, "test_acc": acc - epochs + i}
            for i in range(1, epochs + 1)
        ]

    return Evidence(grid, cells, records, history)


def aggregate_of(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> Aggregate:
    return aggregate(evidence_of(grid, cells, records))


def cell_of(cells: Sequence[Cell], method: str) -> Cell:
    return next(cell for cell in cells if cell.method == method)


def row_of(table: Table, method: str) -> dict[str, str]:
    [row] = table.rows[table.rows["Method"] == method].to_dict("records")
    return {str(key): value for key, value in row.items()}


def page(grid_changes: dict[str, Any] | None = None, **environment: object) -> str:
    """Return the page of a complete grid; ``environment`` is added to one of its runs."""
    grid = make_grid(PAIRS, **grid_changes or {})
    cells = make_cells(grid)
    records = make_records(cells, typical)
    run = cells[2].runs[0]
    record = records[run.id]
    records[run.id] = replace(record, environment=record.environment | environment)
    return markdown(aggregate_of(grid, cells, records))


def markdown(statistics: Aggregate) -> str:
    """Write the Markdown page of a grid, without plots."""
    return leaderboard.markdown(statistics, leaderboard.make_tables(statistics))


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)
