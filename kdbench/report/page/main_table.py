"""Rows, columns and cells of the main table and of the map of cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdbench.grid.run import BASELINES
from kdbench.report import numbers
from kdbench.report.page import method_facts as about
from kdbench.report.tables.table import rows_of
from kdbench.stats import Difference, over_seeds
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import STATUSES, by_pair

if TYPE_CHECKING:
    import pandas as pd

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
class Bar:
    """An interval, in a drawing 100 wide with 0 at 50: ends, middle, and whether an end is cut."""

    low: float
    high: float
    middle: float
    cut: bool


@dataclass(frozen=True)
class TableCell:
    """A cell of the table.

    Attributes:
        index: of its details; None: not in the grid.
        value: to sort by; None sorts last.
        n: seeds done.
        main: the mean, as text.
        sd: its standard deviation, as text.
        flag: runs without a result, as text.
        delta: the difference to the baseline, as text.
        interval: of that difference, as text.
        bar: that interval, drawn.
        top: best of its column, or not significantly different from the best.
        direction: "up" or "down" if the difference is significant.
        status: one of ``LETTERS``.
    """

    index: int | None
    value: float | None = None
    n: int = 0
    main: str = ""
    sd: str = ""
    flag: str = ""
    delta: str = ""
    interval: str = ""
    bar: Bar | None = None
    top: bool = False
    direction: str = ""
    status: str = "absent"

    @property
    def letter(self) -> str:
        """The status as a letter, for readers who cannot see the colour."""
        return LETTERS[self.status]


@dataclass(frozen=True)
class TableRow:
    """A method.

    Attributes:
        name: its label in the grid.
        facts: paper, links, BibTeX and source.
        family: from its file.
        year: of its paper, if the file gives it.
        about: the paper, from its file.
        baseline: whether the row is that of the teachers or of the students alone.
        cells: one per column.
        overall: the paired difference to the report's baseline, mean over ``compared`` pairs.
        compared: pairs with a seed in common with the baseline.
        accuracy: mean over ``pairs`` pairs.
        pairs: pairs with a result.
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
    overall: Difference
    compared: int
    accuracy: float
    pairs: int
    times: float
    bar: Bar | None

    @property
    def tops(self) -> int:
        """Number of pairs on which it is best, or not significantly different from the best."""
        return sum(cell.top for cell in self.cells)


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
    """List teacher and student, then the methods in the grid's order.

    Args:
        aggregate: the grid's statistics; a cell's ``index`` is its row in ``frame``.
        bars: draw the intervals.
    """
    frame, baseline = aggregate.frame, aggregate.methods.baseline
    pairs = by_pair(aggregate.evidence.cells)
    scale = _scale(frame) if bars else 0.0
    table_cells = {
        key: _cell(index, row, scale, baseline) for index, (key, row) in enumerate(rows_of(frame))
    }
    accuracies = {
        (name, pair): summary.accuracies
        for pair, members in aggregate.summaries.items()
        for name, summary in members.items()
    }
    times = frame.groupby("method")["time_ratio"].mean().to_dict()
    names = list(dict.fromkeys(frame["method"].tolist()))
    names.sort(key=lambda name: BASELINES.index(name) if name in BASELINES else len(BASELINES))
    out = []
    for name in names:
        facts = about.facts(name, aggregate.evidence)
        cells = tuple(table_cells.get((name, pair), TableCell(None)) for pair in pairs)
        have = [pair for pair in pairs if accuracies.get((name, pair))]
        compared = [p for p in have if accuracies.get((baseline or "", p))] if baseline else []
        compared = [] if name in ("teacher", baseline) else compared
        overall = over_seeds.difference(
            _mean_over_pairs([accuracies[name, pair] for pair in compared]),
            _mean_over_pairs([accuracies[str(baseline), pair] for pair in compared]),
        )
        bar = _bar(overall.low, overall.mean, overall.high, scale)
        means = [over_seeds.mean(accuracies[name, pair].values()) for pair in have]
        row = TableRow(
            name=name,
            facts=facts,
            family=facts.family,
            year=facts.year,
            about=facts.paper,
            baseline=name in BASELINES,
            cells=cells,
            overall=overall,
            compared=len(compared),
            accuracy=over_seeds.mean(means),
            pairs=len(have),
            times=times.get(name, math.nan),
            bar=bar,
        )
        out.append(row)
    return out


def counts(cells: Sequence[TableCell]) -> dict[str, int]:
    """Count the cells of each status, in the order of ``LETTERS``; zero counts are left out."""
    statuses = [cell.status for cell in cells]
    return {status: statuses.count(status) for status in LETTERS if status in statuses}


def _mean_over_pairs(accuracies: Sequence[over_seeds.Accuracies]) -> dict[int, float]:
    """Average over pairs for each seed that all pairs share; the interval is over these seeds."""
    seeds = set.intersection(*map(set, accuracies)) if accuracies else set()
    return {seed: over_seeds.mean(pair[seed] for pair in accuracies) for seed in sorted(seeds)}


def _cell(index: int, row: Any, scale: float, baseline: str | None) -> TableCell:
    troubles = ", ".join(
        f"{getattr(row, status)} {status}" for status in STATUSES[1:] if getattr(row, status)
    )
    if not numbers.known(row.mean):
        return TableCell(index, flag=troubles or row.status, status=row.status)
    complete = row.n == row.expected or row.status == "imported"
    flag = "imported" if row.status == "imported" else ""
    flag = flag if complete else f"{row.n} of {row.expected} seeds: {troubles}"
    compared = numbers.known(row.diff)
    significant = numbers.known(row.p_adj) and row.p_adj < over_seeds.ALPHA
    return TableCell(
        index=index,
        value=numbers.plain(row.mean),
        n=int(row.n),
        main=numbers.number(row.mean),
        sd=f"± {numbers.number(row.sd)}" if numbers.known(row.sd) else "",
        flag=flag,
        delta=numbers.signed(row.diff)
        if compared
        else "baseline"
        if row.method == baseline
        else "",
        interval=numbers.interval(row.lo, row.hi),
        bar=_bar(row.lo, row.diff, row.hi, scale),
        top=row.state in ("leading", "unplaced"),
        direction=("up" if row.diff > 0 else "down") if significant else "",
        status=row.status,
    )


def _scale(frame: "pd.DataFrame") -> float:
    """Return the points from a bar's middle to its end; nine of ten intervals fit."""
    reach = frame[["lo", "hi"]].abs().max(axis=1).dropna()
    return float(reach.quantile(0.9)) if len(reach) else 0.0


def _bar(low: float, middle: float, high: float, scale: float) -> Bar | None:
    if not (numbers.known(low) and numbers.known(high) and scale > 0):
        return None
    ends = [50 + 48 * value / scale for value in (low, high, middle)]
    left, right, centre = (round(min(max(end, 1.0), 99.0), 1) for end in ends)
    return Bar(left, right, centre, cut=ends[0] < 1 or ends[1] > 99)
