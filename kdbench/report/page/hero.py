"""The page's first picture: every method over pairs, as a dot and its interval.

The drawing's height is in pixels. Horizontal positions are in percent of the plot's width, so that
the same SVG fits every screen without scaling its text.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdbench.report import numbers
from kdbench.report.page.hero_axis import Line, Point, Scale
from kdbench.report.text.decision_sentences import adjusted
from kdbench.report.text.places_of_methods import reason, rows_of, several
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.decision import Decision
from kdbench.stats.headline import chooses_on_held_out
from kdbench.stats.over_seeds import mean

ROW = 20
"""Height of a row in pixels."""
TOP, BOTTOM = 40, 40
"""Height of the heads above the rows and of the axis below them."""
LONGEST = 20
"""Characters of a name that fit."""
MOST_ROWS = 150
"""Most rows; the table has them all."""
MARKS = {"leading": "●", "unplaced": "?"}


@dataclass(frozen=True)
class HeroRow:
    """A row of the picture.

    Attributes:
        name: label in the grid.
        label: the same, shortened.
        y: top in pixels.
        mark: "●" may be the best, "?" cannot be placed; empty: neither, or no marks are shown.
        direction: "up" or "down": better or worse than the baseline among all rows; empty: neither.
        kind: "method", "student" or "baseline".
        partial: whether it has no result on some of the pairs.
        best: whether its mean is the highest.
        x: the dot, in percent; None: there is none.
        low: left end of the interval, in percent; None: there is no interval.
        high: right end of the interval.
        cut_low: whether the interval extends beyond the left edge of the plot.
        cut_high: whether the interval extends beyond the right edge.
        value: the number that is drawn, as text.
        interval: its interval, as text.
        time: training time over the baseline's, as text.
        lines: all numbers, for a tooltip.
        index: of the details of its cell on the first pair with a result.
    """

    name: str
    label: str
    y: int
    mark: str
    direction: str
    kind: str
    partial: bool
    best: bool
    x: float | None
    low: float | None
    high: float | None
    cut_low: bool
    cut_high: bool
    value: str
    interval: str
    time: str
    lines: tuple[str, ...]
    index: int | None

    @property
    def text(self) -> str:
        """All numbers in one line."""
        return "; ".join(self.lines)


@dataclass(frozen=True)
class Hero:
    """The picture.

    Attributes:
        title: what is drawn.
        unit: of the axis.
        head: of the column of values.
        rows: sorted by mean, the highest first; a sweep's in the grid's order.
        ticks: of the axis.
        references: the baseline, the student trained alone and the teacher.
        marks: legend of the marks that occur.
        notes: what is left out.
        height: in pixels.
        intervals: whether any row has one.
        times: whether any row has one.
        pitch: height of a row in pixels.
        below: height of the axis below the rows.
    """

    title: str
    unit: str
    head: str
    rows: tuple[HeroRow, ...]
    ticks: tuple[Line, ...]
    references: tuple[Line, ...]
    marks: tuple[str, ...]
    notes: tuple[str, ...]
    height: int
    intervals: bool
    times: bool
    pitch: int = ROW
    below: int = BOTTOM


def hero(aggregate: Aggregate) -> Hero | None:
    """Draw all rows over pairs; None if no row has a result."""
    decision = aggregate.decision
    sweep = chooses_on_held_out(aggregate.evidence.grid)
    zero = None if sweep else decision.baseline or decision.student
    if zero not in decision.over.means:
        zero = None
    points = _points(decision, zero)
    if not points:
        return None
    missing = [row for row in rows_of(decision) if row not in {point.row for point in points}]
    if not sweep:
        complete = decision.over.means
        points.sort(key=lambda p: (p.row not in complete, -round(p.value, 9)))
    hidden = points[MOST_ROWS:]
    points = points[:MOST_ROWS]
    references = _references(aggregate, zero)
    scale = Scale.of(points, references, zero)
    rows = [_row(aggregate, point, i, scale, zero, sweep) for i, point in enumerate(points)]
    notes = [f"Not drawn, but in the table: {len(hidden)} rows."] if hidden else []
    notes += [f"Not drawn, no value to compare: {', '.join(missing)}."] if missing else []
    return Hero(
        title=_title(aggregate, zero),
        unit="percent" if zero is None else f"points over {zero}",
        head="%" if zero is None else f"− {zero}",
        rows=tuple(rows),
        ticks=tuple(scale.ticks()),
        references=tuple(scale.line(kind, value, zero) for kind, value in references.items()),
        marks=tuple(_marks(rows, decision)),
        notes=tuple(notes),
        height=TOP + ROW * len(rows) + BOTTOM,
        intervals=any(row.interval for row in rows),
        times=any(row.time for row in rows),
    )


def _points(decision: Decision, zero: str | None) -> list[Point]:
    """List the rows that have a value: the difference to ``zero``, or the mean accuracy."""
    over = decision.over
    if zero is None:
        return [Point(row, value) for row, value in over.means.items()]
    points = [Point(zero, 0.0)]
    for row in rows_of(decision):
        if row != zero and (row, zero) in over.contrasts:
            contrast = over.contrasts[row, zero]
            points.append(Point(row, contrast.diff, contrast.low, contrast.high, contrast))
    return points


def _references(aggregate: Aggregate, zero: str | None) -> dict[str, float]:
    """Return the values of the baseline, the student trained alone and the teachers, if known."""
    decision, frame = aggregate.decision, aggregate.frame
    over = decision.over
    used = over.pairs or [name for name, one in decision.pairs.items() if one.means]
    of_teachers = frame[(frame["method"] == "teacher") & frame["pair"].isin(used)]
    teachers = [float(value) for value in of_teachers["mean"] if numbers.known(value)]
    level = 0.0 if zero is None else over.means[zero]
    lines = {} if zero is None else {"zero": 0.0}
    if decision.student in over.means and decision.student != zero:
        lines["student"] = over.means[str(decision.student)] - level
    if teachers and len(teachers) == len(used) and not chooses_on_held_out(aggregate.evidence.grid):
        lines["teacher"] = mean(teachers) - level
    return lines


def _row(
    aggregate: Aggregate, point: Point, i: int, scale: Scale, zero: str | None, sweep: bool
) -> HeroRow:
    decision, row = aggregate.decision, point.row
    advice = decision.recommendation
    state = "" if sweep else advice.state.get(row, "")
    contrast, interval = point.contrast, numbers.known(point.low)
    kind = "baseline" if row == zero else "student" if row == decision.student else "method"
    told = contrast is not None and contrast.told and zero == decision.baseline
    time = decision.times.get(row, math.nan) if decision.baseline else math.nan
    return HeroRow(
        name=row,
        label=row if len(row) <= LONGEST else f"{row[: LONGEST - 1]}…",
        y=TOP + ROW * i,
        mark=MARKS.get(state, "") if state == "unplaced" or advice.shade else "",
        direction=("up" if point.value > 0 else "down") if told else "",
        kind=kind,
        partial=row not in decision.over.means,
        best=not sweep and row == _highest(decision),
        x=scale(point.value),
        low=scale(point.low) if interval else None,
        high=scale(point.high) if interval else None,
        cut_low=interval and point.low < scale.low,
        cut_high=interval and point.high > scale.high,
        value=numbers.number(point.value) if zero is None else
        "0" if kind == "baseline" else numbers.signed(point.value),
        interval=numbers.interval(point.low, point.high),
        time="" if sweep or not numbers.known(time) else numbers.times(time),
        lines=tuple(_lines(aggregate, point, state, zero, sweep)),
        index=_first_cell(aggregate, row),
    )  # fmt: skip


def _highest(decision: Decision) -> str | None:
    """Return the method with the highest mean over pairs."""
    means = {row: v for row, v in decision.over.means.items() if row != decision.student}
    return max(means, key=lambda row: round(means[row], 9)) if means else None


def _lines(
    aggregate: Aggregate, point: Point, state: str, zero: str | None, sweep: bool
) -> Iterable[str]:
    """Yield a row's name and all its numbers over pairs."""
    decision, row = aggregate.decision, point.row
    over, pairs = decision.over, len(decision.over.pairs)
    yield row
    if row in over.means:
        where = f", mean of {pairs} pairs" if pairs > 1 else ""
        yield f"{numbers.number(over.means[row])} % {aggregate.headline.name}{where}"
    contrast = point.contrast
    if contrast is not None:
        text = f"{numbers.with_interval(point.value, point.low, point.high)} points over {zero}"
        if contrast.known:
            text += f", adjusted p {adjusted(contrast.p_adj)}"
        if contrast.pairs < pairs:
            text += f", on {contrast.pairs} of {pairs} pairs"
        yield text
    placed = (over.standings or {}).get(row)
    if placed is not None and not sweep:
        ranks = f"{placed.rank_low} to {placed.rank_high} of {len(over.standings or {})}"
        behind = placed.behind
        most = f", at most {numbers.number(behind)} points behind the best"
        yield f"rank {ranks}{most if numbers.known(behind) else ''}"
    if state:
        words = {"leading": "may be the best", "behind": "behind the best"}
        yield words.get(state) or f"cannot be placed: {reason(aggregate, row)}"
    time = decision.times.get(row, math.nan)
    if numbers.known(time) and decision.baseline and not sweep:
        yield f"{numbers.times(time)} the training time of {decision.baseline}"


def _first_cell(aggregate: Aggregate, row: str) -> int | None:
    """Return the index of the details of a row's first cell with a result."""
    frame = aggregate.frame
    names = zip(frame["method"].tolist(), frame["n"].tolist(), strict=True)
    return next((i for i, (name, n) in enumerate(names) if name == row and n), None)


def _title(aggregate: Aggregate, zero: str | None) -> str:
    decision = aggregate.decision
    name = aggregate.headline.name.capitalize()
    over = f"mean of {len(decision.over.pairs or decision.pairs)} pairs"
    over = over if several(decision) else next(iter(decision.pairs))
    if zero is None:
        return f"{name}, {over}"
    known = any(contrast.known for contrast in decision.over.contrasts.once())
    return f"{name} over {zero}, {over}{', 95 % intervals' if known else ''}"


def _marks(rows: Sequence[HeroRow], decision: Decision) -> Iterable[str]:
    """Yield the legend of the marks that occur."""
    marks = {row.mark for row in rows}
    if "●" in marks:
        yield "● may be the best"
    if "?" in marks:
        yield "? cannot be placed"
    if any(row.partial for row in rows):
        yield "○ not on every pair"
    if any(row.direction for row in rows):
        yield f"▲▼ better or worse than {decision.baseline} among all {decision.rows} rows"
