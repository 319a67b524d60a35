"""Rows, columns and cells of the main table and of the map of cells.

Every comparison is read from ``Aggregate.decision``; nothing is tested here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdbench.grid.run import BASELINES
from kdbench.report import numbers
from kdbench.report.page import method_facts as about
from kdbench.report.page.drawn_bars import IntervalBar, interval_bar, reach
from kdbench.report.tables import marks
from kdbench.report.tables.table import rows_of
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import STATUSES, by_pair
from kdbench.stats.decision import Decision
from kdbench.stats.over_seeds import mean
from kdbench.stats.paired_differences import Contrast, Contrasts
from kdbench.stats.recommendation import Recommendation
from kdbench.stats.standings import Standing

LETTERS = {
    "done": "D", "partial": "P", "diverged": "X", "failed": "F", "skipped": "S", "missing": "M",
    "imported": "I", "absent": "",
}  # fmt: skip
"""Status -> its letter in the map; absent: not in the grid."""

WORDS = {
    "done": "all seeds done",
    "partial": "some seeds done",
    "diverged": "diverged: the loss became infinite or NaN",
    "failed": "failed with an error",
    "skipped": "skipped: the method does not support this pair",
    "missing": "missing: not trained yet",
    "imported": "imported checkpoint",
    "absent": "not in the grid",
}


@dataclass(frozen=True)
class Column:
    """A pair; ``architecture``: same or cross; empty if a network is unknown."""

    name: str
    teacher: str
    student: str
    dataset: str
    architecture: str


@dataclass(frozen=True)
class TableCell:
    """A cell of the table.

    Attributes:
        index: of its details; None: not in the grid.
        value: to sort by; None sorts last.
        n: seeds done.
        main: the mean, as text.
        sd: its standard deviation, as text.
        highest: whether the mean is the highest of the pair.
        state: "leading" or "unplaced" if a mark is shown, otherwise empty.
        short: runs without a result, in a few characters.
        flag: runs without a result, as text.
        contrast: the difference to the baseline; None if there is none.
        direction: "up" or "down" if the cell is better or worse than the baseline.
        bar: the interval of that difference.
        baseline: whether the cell is of the baseline.
        status: one of ``LETTERS``.
    """

    index: int | None
    value: float | None = None
    n: int = 0
    main: str = ""
    sd: str = ""
    highest: bool = False
    state: str = ""
    short: str = ""
    flag: str = ""
    contrast: Contrast | None = None
    direction: str = ""
    bar: IntervalBar | None = None
    baseline: bool = False
    status: str = "absent"

    @property
    def letter(self) -> str:
        """The status as a letter, for readers who cannot see the colour."""
        return LETTERS[self.status]


@dataclass(frozen=True)
class TableRow:
    """A row: the teachers, the students alone, or a method.

    Attributes:
        name: its label in the grid.
        facts: paper, links, BibTeX and source.
        family: from its file.
        year: of its paper, if the file gives it.
        about: the paper, from its file.
        baseline: whether the row is that of the teachers or of the students alone.
        cells: one per column.
        accuracy: mean over the pairs that count; nan without a result on each of them.
        highest: whether no method has a higher mean over pairs.
        state: "leading", "unplaced" or "behind"; empty if it has no standing.
        mark: ``state`` if its mark is shown, otherwise empty.
        overall: the difference to the baseline over pairs; None if there is none.
        direction: "up" or "down" if the row is better or worse than the baseline over pairs.
        standing: its place over pairs; None if it is not ranked.
        pairs: pairs with a result.
        test: test accuracy, mean over the same pairs; nan without one on each of them.
        times: training time over the baseline's, mean over pairs.
        bar: the interval of ``overall``.
    """

    name: str
    facts: about.MethodFacts
    family: str
    year: str
    about: str
    baseline: bool
    cells: tuple[TableCell, ...]
    accuracy: float
    highest: bool
    state: str
    mark: str
    overall: Contrast | None
    direction: str
    standing: Standing | None
    pairs: int
    test: float
    times: float
    bar: IntervalBar | None


def columns(aggregate: Aggregate) -> list[Column]:
    """Describe the pairs, in the grid's order."""
    evidence, frame = aggregate.evidence, aggregate.frame
    students = frame.loc[frame["method"] != "teacher", ["pair", "dataset"]]
    data = dict(zip(students["pair"].tolist(), students["dataset"].tolist(), strict=True))
    return [
        Column(
            pair,
            cells[0].teacher,
            cells[0].student,
            str(data.get(pair, evidence.grid.dataset.title)),
            about.architecture(cells[0].teacher, cells[0].student),
        )
        for pair, cells in by_pair(evidence.cells).items()
    ]


def rows(aggregate: Aggregate, *, bars: bool = True) -> list[TableRow]:
    """List all rows by their mean over pairs, the highest first; rows without one come last.

    Args:
        aggregate: the grid's statistics; a cell's ``index`` is its row in ``frame``.
        bars: draw the intervals.
    """
    frame, decision = aggregate.frame, aggregate.decision
    points = _reach(decision) if bars else 0.0
    marked = not aggregate.headline.held_out
    best = {name: _highest(one.means, decision.student) for name, one in decision.pairs.items()}
    cells = {
        key: _cell(index, row, decision, best.get(key[1], math.nan), points, marked=marked)
        for index, (key, row) in enumerate(rows_of(frame))
    }
    test = {key: numbers.plain(row.test_mean) for key, row in rows_of(frame)}
    times = frame.groupby("method")["time_ratio"].mean().to_dict()
    names = list(dict.fromkeys(frame["method"].tolist()))
    names.sort(key=lambda name: BASELINES.index(name) if name in BASELINES else len(BASELINES))
    pairs = list(by_pair(aggregate.evidence.cells))
    top = _highest(decision.over.means, decision.student)
    out = []
    for name in names:
        facts = about.facts(name, aggregate.evidence)
        own = {pair: cells.get((name, pair), TableCell(None)) for pair in pairs}
        contrast = _to_baseline(decision.over.contrasts, name, decision.baseline)
        accuracy = decision.over.means.get(name, math.nan)
        if name == "teacher":
            accuracy = _mean_of_pairs({pair: own[pair].value for pair in own}, decision)
        row = TableRow(
            name=name,
            facts=facts,
            family=facts.family,
            year=facts.year,
            about=facts.paper,
            baseline=name in BASELINES,
            cells=tuple(own.values()),
            accuracy=accuracy,
            highest=name not in BASELINES and accuracy == top,
            state=decision.recommendation.state.get(name, ""),
            mark=mark(decision.recommendation, name),
            overall=contrast,
            direction=_direction(contrast) if marked else "",
            standing=(decision.over.standings or {}).get(name) if marked else None,
            test=_mean_of_pairs({pair: test.get((name, pair)) for pair in own}, decision),
            pairs=sum(cell.value is not None for cell in own.values()),
            times=times.get(name, math.nan),
            bar=interval_bar(contrast, points),
        )
        out.append(row)
    return sorted(out, key=lambda row: -row.accuracy if numbers.known(row.accuracy) else math.inf)


def counts(cells: Sequence[TableCell]) -> dict[str, int]:
    """Count the cells of each status, in the order of ``LETTERS``; zero counts are left out."""
    statuses = [cell.status for cell in cells]
    return {status: statuses.count(status) for status in LETTERS if status in statuses}


def mark(recommendation: Recommendation, name: str) -> str:
    """Return the state of a method if its mark is shown."""
    return recommendation.state[name] if marks.of_row(recommendation, name) else ""


def _cell(
    index: int, row: Any, decision: Decision, best: float, points: float, *, marked: bool
) -> TableCell:
    lost = {status: getattr(row, status) for status in STATUSES[1:] if getattr(row, status)}
    troubles = ", ".join(f"{count} {status}" for status, count in lost.items())
    if not numbers.known(row.mean):
        return TableCell(index, short=row.status, flag=troubles, status=row.status)
    complete = row.n == row.expected or row.status == "imported"
    short = "" if complete else f"{row.n}/{row.expected} seeds"
    if bad := [status for status in ("diverged", "failed") if status in lost]:
        short = f"{lost[bad[0]]} of {row.expected} {bad[0]}"
    flag = "" if complete else f"{row.n} of {row.expected} seeds: {troubles}"
    pair = decision.pairs.get(row.pair)
    contrast = _to_baseline(pair.contrasts, row.method, decision.baseline) if pair else None
    on_pair = decision.on_pair.get(row.pair)
    return TableCell(
        index=index,
        value=numbers.plain(row.mean),
        n=int(row.n),
        main=numbers.number(row.mean),
        sd=f"± {numbers.number(row.sd)}" if numbers.known(row.sd) else "",
        highest=row.method not in BASELINES and row.mean == best,
        state=mark(on_pair, row.method) if on_pair else "",
        short="imported" if row.status == "imported" else short,
        flag="imported checkpoint" if row.status == "imported" else flag,
        contrast=contrast,
        direction=_direction(contrast) if marked else "",
        bar=interval_bar(contrast, points),
        baseline=row.method == decision.baseline,
        status=row.status,
    )


def _reach(decision: Decision) -> float:
    scopes = [decision.over.contrasts, *(one.contrasts for one in decision.pairs.values())]
    rows = list(dict.fromkeys(row for one in decision.pairs.values() for row in one.means))
    found = [_to_baseline(scope, row, decision.baseline) for scope in scopes for row in rows]
    return reach(contrast for contrast in found if contrast)


def _to_baseline(contrasts: Contrasts, name: str, baseline: str | None) -> Contrast | None:
    return contrasts.get((name, baseline)) if baseline and name != baseline else None


def _direction(contrast: Contrast | None) -> str:
    if contrast is None or not contrast.told:
        return ""
    return "up" if contrast.better else "down"


def _highest(means: Mapping[str, float], student: str | None) -> float:
    return max((value for row, value in means.items() if row != student), default=math.nan)


def _mean_of_pairs(values: Mapping[str, float | None], decision: Decision) -> float:
    """Average over the pairs that all rows' means are over; nan if one of them has no value."""
    begun = [name for name, one in decision.pairs.items() if one.means]
    wanted = [values.get(pair) for pair in decision.over.pairs or begun]
    known = [value for value in wanted if value is not None]
    return mean(known) if known and len(known) == len(wanted) else math.nan
