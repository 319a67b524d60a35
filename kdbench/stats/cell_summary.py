"""Summaries of a cell's runs and of a pair's teacher."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdbench.grid.grid import sorted_name
from kdbench.grid.run import Cell, Run
from kdbench.runs.records import Cost, Record, Result
from kdbench.stats.headline import ON_TEST, Headline
from kdbench.stats.over_seeds import mean, spread

STATUSES = ("done", "diverged", "failed", "skipped", "missing")


@dataclass(frozen=True)
class Summary:
    """The results of a cell over its seeds.

    Attributes:
        expected: number of runs in the grid.
        statuses: non-zero number of runs with each status, in the order of ``STATUSES``.
        accuracies: seed -> headline of the last epoch, for finished runs; a test accuracy, unless
            the grid chooses swept values on held-out images.
        test: seed -> test accuracy of the last epoch, for the same runs.
        best: mean over these seeds of the best epoch's accuracy, selected on the test set; nan
            for a row that shows another prediction's accuracy.
        reasons: (status, reason, run id) of every recorded run without a result.
        records: records of the finished runs.
    """

    expected: int
    statuses: dict[str, int]
    accuracies: dict[int, float]
    test: dict[int, float]
    best: float
    reasons: tuple[tuple[str, str, str], ...]
    records: tuple[Record, ...]

    @property
    def n(self) -> int:
        """Number of finished runs."""
        return len(self.accuracies)

    @cached_property
    def mean(self) -> float:
        """Mean headline of the last epoch; nan without finished runs."""
        return mean(self.accuracies.values())

    @cached_property
    def test_mean(self) -> float:
        """Mean test accuracy of the last epoch; nan without finished runs."""
        return mean(self.test.values())

    @cached_property
    def sd(self) -> float:
        """Standard deviation over seeds, with divisor n - 1; nan for fewer than two."""
        return spread(self.accuracies.values())

    @property
    def costs(self) -> list[Cost]:
        """Costs of the finished runs."""
        return [record.cost for record in self.records if record.cost]

    @property
    def status(self) -> str:
        """``done``, ``partial``, or the first status in a cell without a result."""
        if self.n:
            return "done" if self.n == self.expected else "partial"
        return next(iter(self.statuses), "missing")


def summarise(
    runs: Sequence[Run], records: Mapping[str, Record], headline: Headline = ON_TEST
) -> Summary:
    """Summarise a cell's runs.

    A finished run without the headline, which only damaged records lack, has no accuracy.
    """
    run_statuses = []
    accuracies, test, best, reasons, done = {}, {}, [], [], []
    for run in runs:
        record = records.get(run.id)
        status = _status(record)
        run_statuses.append(status)
        if record is None:
            continue
        if status == "done" and record.result is not None:
            accuracy = headline.of(record.result, run.method)
            shows_answer = headline.answer(run.method) is not None
            if not math.isnan(accuracy):
                accuracies[run.seed] = accuracy
                test[run.seed] = accuracy if shows_answer else record.result.test_acc
            if not shows_answer:
                best.append(record.result.best_acc)
            done.append(record)
        else:
            reasons.append((status, record.reason or "no reason recorded", run.id))
    return Summary(
        expected=len(runs),
        statuses=_counts(run_statuses),
        accuracies=accuracies,
        test=test,
        best=mean(best),
        reasons=tuple(reasons),
        records=tuple(done),
    )


def statuses(cells: Iterable[Cell], records: Mapping[str, Record]) -> dict[str, int]:
    """Count the statuses of all cells' runs; a run in several cells counts once."""
    ids = dict.fromkeys(run.id for cell in cells for run in cell.runs)
    return _counts([_status(records.get(run_id)) for run_id in ids])


def _counts(statuses: Sequence[str]) -> dict[str, int]:
    return {status: count for status in STATUSES if (count := statuses.count(status))}


def _status(record: Record | None) -> str:
    if record is None:
        return "missing"
    # A record with status done but without a result counts as failed.
    return "failed" if record.status == "done" and record.result is None else record.status


def by_pair(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Group cells by the name of their pair; a repeated pair gets a number."""
    seen: dict[tuple[str, str, str], int] = {}
    pairs: dict[str, list[Cell]] = {}
    for cell in cells:
        key = (cell.method, cell.teacher, cell.student)
        times = seen[key] = seen.get(key, 0) + 1
        again = f" ({times})" if times > 1 else ""
        pairs.setdefault(f"{cell.teacher} → {cell.student}{again}", []).append(cell)
    return pairs


Summaries = Mapping[str, Mapping[str, Summary]]
"""Pair -> method -> summary of that cell."""


def summaries(
    cells: Iterable[Cell], records: Mapping[str, Record], headline: Headline = ON_TEST
) -> Summaries:
    """Summarise all cells of a grid, in the grid's order."""
    return {
        pair: {cell.method: summarise(cell.runs, records, headline) for cell in members}
        for pair, members in by_pair(cells).items()
    }


def teacher_ids(cells: Iterable[Cell]) -> list[str]:
    """Return the ids of the runs that trained a pair's teacher.

    The id of an imported teacher is that in its students' runs. Auxiliary teachers, which are
    students of the pair's teacher, are left out.
    """
    cells = list(cells)
    own = [run.id for cell in cells if cell.method == "teacher" for run in cell.runs]
    used = (
        run.teacher.run
        for cell in cells
        for run in cell.runs
        if run.teacher and run.teacher.arch == cell.teacher
    )
    return list(dict.fromkeys(own or used))


def teacher_accuracy(
    cells: Iterable[Cell], records: Mapping[str, Record], headline: Headline = ON_TEST
) -> float:
    """Return the accuracy of a pair's teacher from its students' records; nan if unknown.

    Without such a record, it is the accuracy of the teacher's own run, if that used the same data.
    Students' records have no held-out accuracy of the teacher.
    """
    cells = list(cells)
    ids = set(teacher_ids(cells)) if not headline.held_out else set()
    for cell in cells:
        for run in cell.runs:
            record = records.get(run.id)
            result = record.result if record else None
            if run.teacher and run.teacher.run in ids and result and result.teacher_acc is not None:
                return result.teacher_acc
    data = [run.dataset for cell in cells if cell.method != "teacher" for run in cell.runs[:1]]
    own = [
        run
        for cell in cells
        if cell.method == "teacher"
        for run in cell.runs
        if all(run.dataset == other for other in data)
    ]
    return summarise(own, records, headline).mean


def students(cells: Iterable[Cell]) -> list[Run]:
    """Return the students' runs on the grid's data, the methods': those of all rows but teachers.

    With a transfer set, the students alone are trained on other images.
    """
    rows = [cell.runs for cell in cells if cell.method != "teacher" and cell.runs]
    return [run for runs in rows if runs[0].dataset == rows[-1][0].dataset for run in runs]


def first_result(cells: Iterable[Cell], records: Mapping[str, Record]) -> Result | None:
    """Return the first result on the grid's data in the grid's order; None if there is none."""
    ended = (records.get(run.id) for run in students(cells))
    return next((record.result for record in ended if record and record.result), None)


def row_label(cells: Iterable[Cell], name: str) -> str | None:
    """Find the label of a row by its label or terms; None if no row or several rows match."""
    terms: dict[str, str] = {}
    for cell in cells:
        if cell.runs and cell.method not in terms:
            terms[cell.method] = sorted_name("+".join(term.method for term in cell.runs[0].terms))
    if name in terms:
        return name
    wanted = sorted_name(name)
    labels = [label for label, row_terms in terms.items() if row_terms == wanted]
    return labels[0] if len(labels) == 1 else None
