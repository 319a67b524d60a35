"""Records to summaries: what became of a cell's runs, and of a pair's teacher; no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdbench.grid.grid import sorted_name
from kdbench.grid.run import Cell, Run
from kdbench.runs.records import Cost, Record, Result
from kdbench.stats.over_seeds import mean, spread

STATUSES = ("done", "diverged", "failed", "skipped", "missing")


@dataclass(frozen=True)
class Summary:
    """A cell over its seeds.

    Attributes:
        expected: runs that the grid asks for.
        statuses: how many of them ended how, in the order of ``STATUSES``; none that is 0.
        accuracies: last epoch's test accuracy of each seed that is done.
        best: mean over those seeds of the best epoch's, which is selected on the test set.
        reasons: (status, reason, run id) of every run that ended badly.
        records: of the runs that are done.
    """

    expected: int
    statuses: dict[str, int]
    accuracies: dict[int, float]
    best: float
    reasons: tuple[tuple[str, str, str], ...]
    records: tuple[Record, ...]

    @property
    def n(self) -> int:
        """Runs that are done."""
        return len(self.accuracies)

    @cached_property
    def mean(self) -> float:
        """The headline: mean of the last epochs' accuracies; nan without any."""
        return mean(self.accuracies.values())

    @cached_property
    def sd(self) -> float:
        """Standard deviation over seeds (n - 1 below); nan for fewer than two."""
        return spread(self.accuracies.values())

    @property
    def costs(self) -> list[Cost]:
        """Of the runs that are done."""
        return [record.cost for record in self.records if record.cost]

    @property
    def status(self) -> str:
        """``done``, ``partial``, or the first of ``STATUSES`` that befell a cell without result."""
        if self.n:
            return "done" if self.n == self.expected else "partial"
        return next(iter(self.statuses), "missing")


def summarise(runs: Sequence[Run], records: Mapping[str, Record]) -> Summary:
    """What became of a cell's runs."""
    found = []
    accuracies, best, reasons, done = {}, [], [], []
    for run in runs:
        record = records.get(run.id)
        status = _status(record)
        found.append(status)
        if record is None:
            continue
        if status == "done" and record.result is not None:
            accuracies[run.seed] = record.result.test_acc
            best.append(record.result.best_acc)
            done.append(record)
        else:
            reasons.append((status, record.reason or "no reason recorded", run.id))
    return Summary(
        expected=len(runs),
        statuses=_counted(found),
        accuracies=accuracies,
        best=mean(best),
        reasons=tuple(reasons),
        records=tuple(done),
    )


def statuses(cells: Iterable[Cell], records: Mapping[str, Record]) -> dict[str, int]:
    """As ``Summary.statuses``, of all cells; a run that stands in several counts once."""
    ids = dict.fromkeys(run.id for cell in cells for run in cell.runs)
    return _counted([_status(records.get(run_id)) for run_id in ids])


def _counted(found: Sequence[str]) -> dict[str, int]:
    return {status: count for status in STATUSES if (count := found.count(status))}


def _status(record: Record | None) -> str:
    if record is None:
        return "missing"
    # A record that says done and holds no result is no result.
    return "failed" if record.status == "done" and record.result is None else record.status


def by_pair(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells of each pair, under the pair's name; a pair that comes twice gets a number."""
    seen: dict[tuple[str, str, str], int] = {}
    pairs: dict[str, list[Cell]] = {}
    for cell in cells:
        key = (cell.method, cell.teacher, cell.student)
        times = seen[key] = seen.get(key, 0) + 1
        again = f" ({times})" if times > 1 else ""
        pairs.setdefault(f"{cell.teacher} → {cell.student}{again}", []).append(cell)
    return pairs


Summaries = Mapping[str, Mapping[str, Summary]]
"""Pair -> method -> what became of that cell."""


def summaries(cells: Iterable[Cell], records: Mapping[str, Record]) -> Summaries:
    """All cells of a grid, in its order."""
    return {
        pair: {cell.method: summarise(cell.runs, records) for cell in members}
        for pair, members in by_pair(cells).items()
    }


def teacher_ids(cells: Iterable[Cell]) -> list[str]:
    """Ids of the runs that a pair's teacher comes from; of an imported one, what its students say.

    An auxiliary teacher, which is a student of the pair's, is none of them.
    """
    cells = list(cells)
    own = [run.id for cell in cells if cell.method == "teacher" for run in cell.runs]
    said = (
        run.teacher.run
        for cell in cells
        for run in cell.runs
        if run.teacher and run.teacher.arch == cell.teacher
    )
    return list(dict.fromkeys(own or said))


def teacher_accuracy(cells: Iterable[Cell], records: Mapping[str, Record]) -> float:
    """Accuracy of a pair's teacher, as its students' records have it; nan if unknown.

    Where none has, it is the accuracy the teacher's own run ended with, if on the same data.
    """
    cells = list(cells)
    ids = set(teacher_ids(cells))
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
    return summarise(own, records).mean


def first_result(cells: Iterable[Cell], records: Mapping[str, Record]) -> Result | None:
    """The first of a student, in the order of the grid; None where no run has one."""
    ended = (records.get(run.id) for cell in cells if cell.method != "teacher" for run in cell.runs)
    return next((record.result for record in ended if record and record.result), None)


def row_label(cells: Iterable[Cell], name: str) -> str | None:
    """The row that a report means by ``name``: its label, or its terms; None if none or several."""
    terms: dict[str, str] = {}
    for cell in cells:
        if cell.runs and cell.method not in terms:
            terms[cell.method] = sorted_name("+".join(term.method for term in cell.runs[0].terms))
    if name in terms:
        return name
    wanted = sorted_name(name)
    found = [label for label, made_of in terms.items() if made_of == wanted]
    return found[0] if len(found) == 1 else None
