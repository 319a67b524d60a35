"""``kdbench select``: choose swept values on held-out training images, never on test images.

Of several values that are about as good, the smallest is the simplest choice (the rule of one
standard error). Numbers are ordered by size, and other values, such as names, as in the grid. With
several swept keys the first key decides, then the next.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdbench.errors import UserError
from kdbench.grid.grid import Grid, Point, Row
from kdbench.grid.run import Cell
from kdbench.grid.yaml_tree import merged, option_tree
from kdbench.runs.records import Record
from kdbench.stats import over_seeds
from kdbench.stats.aggregate import check_data
from kdbench.stats.cell_summary import Summaries, Summary, summaries
from kdbench.stats.headline import ON_HELD_OUT, held_out_images
from kdbench.stats.sweep_choice import SweepChoice, choose

BAD = ("diverged", "failed")
"""Statuses of runs that ended badly and count as 0 %."""


@dataclass(frozen=True)
class SweptValue:
    """A row of a sweep: one value of each swept key.

    Attributes:
        label: of the row.
        point: (key, value) of each swept key.
        mean: accuracy in percent on held-out images, mean over pairs of ``per_pair``; nan without
            results.
        per_pair: pair -> mean over seeds; runs that ended badly count as 0.
        n: number of runs with a result.
        expected: number of runs on pairs that do not skip the row.
        bad: status -> number of runs that ended badly.
        lacking: pairs without a result.
    """

    label: str
    point: Point
    mean: float
    per_pair: Mapping[str, float]
    n: int
    expected: int
    bad: Mapping[str, int]
    lacking: tuple[str, ...]

    @property
    def candidate(self) -> bool:
        """Whether the value may be chosen."""
        return not self.bad and not self.lacking


@dataclass(frozen=True)
class Sweep:
    """The swept values of one row of the grid.

    Attributes:
        row: in the grid.
        values: in order, the smallest first.
        choice: the best and the simplest, by label.
        edges: key -> "low" or "high", if the best is the smallest or largest of its numbers.
        not_begun: pairs on which no value has a result; they do not count.
        seeds: fewest runs of a value that may be chosen on a pair.
    """

    row: Row
    values: tuple[SweptValue, ...]
    choice: SweepChoice
    edges: Mapping[str, str]
    not_begun: tuple[str, ...]
    seeds: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The swept keys."""
        return tuple(key for key, _ in self.values[0].point)

    def value(self, label: str) -> SweptValue:
        """Return the value with this label."""
        return next(value for value in self.values if value.label == label)

    def options(self, label: str) -> dict[str, Any]:
        """Return the options of the grid's row with these swept values."""
        options = self.row.options
        for key, value in self.value(label).point:
            options = merged(options, option_tree(key, value))
        return options


@dataclass(frozen=True)
class Selection:
    """The sweeps of a grid.

    Attributes:
        grid: the grid.
        sweeps: in the grid's order.
        pairs: names of all pairs.
        images: number of held-out images; 0 if it is unknown.
    """

    grid: Grid
    sweeps: tuple[Sweep, ...]
    pairs: tuple[str, ...]
    images: int

    @property
    def image_error(self) -> float:
        """Largest standard error in points of a best accuracy, from the number of images alone."""
        bests = [s.choice.mean[s.choice.best] for s in self.sweeps if s.choice.best is not None]
        errors = [over_seeds.standard_error(best, self.images) for best in bests]
        return max(errors, default=math.nan)


def select(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> Selection:
    """Choose among the swept values of each row.

    Args:
        grid: the grid.
        cells: its cells.
        records: of its runs; other records are not used.

    Raises:
        UserError: the grid has no sweep or no held-out images, no run has finished, or runs used
            different data.
    """
    check_data(grid, cells, records)
    if not grid.sweep:
        raise UserError(f"{grid.source}: sweep: missing; e.g. {{kd.alpha: [0.5, 1, 2]}}")
    if not grid.dataset.validation:
        raise UserError(f"{grid.source}: dataset.validation: missing; e.g. 0.1 to hold out a tenth")
    found = {
        pair.replace(" → ", " -> "): members
        for pair, members in summaries(cells, records, ON_HELD_OUT).items()
    }
    points = {row.label: row.points(grid.sweep) for row in grid.methods}
    swept = [(row, points[row.label]) for row in grid.methods if points[row.label][0][1]]
    results = [
        record.result
        for _, of_row in swept
        for label, _ in of_row
        for members in found.values()
        if label in members
        for record in members[label].records
    ]
    if not results:
        raise UserError(f"{grid.source}: no run has finished; kdbench run --grid {grid.source}")
    n_train = next((result.n_train for result in results if result), 0)
    return Selection(
        grid,
        tuple(_sweep(row, of_row, found) for row, of_row in swept),
        tuple(found),
        held_out_images(grid.dataset, n_train),
    )


def _sweep(row: Row, points: Sequence[tuple[str, Point]], found: Summaries) -> Sweep:
    begun = [
        pair
        for pair, members in found.items()
        if any(members[label].n for label, _ in points if label in members)
    ]
    order = _order(points)
    values = sorted(
        (_value(label, point, found, begun) for label, point in points),
        key=lambda value: order[value.label],
    )
    chosen_among = [value.label for value in values if not value.bad]
    scores = [
        {label: found[pair][label].accuracies for label in chosen_among if label in found[pair]}
        for pair in begun
    ]
    choice = choose(order, scores)
    seeds = [len(one[label]) for one in scores for label in choice.mean]
    return Sweep(
        row=row,
        values=tuple(values),
        choice=choice,
        edges=_edges(next((v.point for v in values if v.label == choice.best), ()), points),
        not_begun=tuple(pair for pair in found if pair not in begun),
        seeds=min(seeds, default=0),
    )


def _value(label: str, point: Point, found: Summaries, begun: Sequence[str]) -> SweptValue:
    cells = {pair: found[pair][label] for pair in begun if label in found[pair]}
    with_zeros = {
        pair: [*summary.accuracies.values(), *[0.0] * sum(_bad(summary).values())]
        for pair, summary in cells.items()
    }
    per_pair = {pair: over_seeds.mean(scores) for pair, scores in with_zeros.items() if scores}
    bad = {status: sum(_bad(s).get(status, 0) for s in cells.values()) for status in BAD}
    return SweptValue(
        label=label,
        point=point,
        mean=over_seeds.mean(per_pair.values()),
        per_pair=per_pair,
        n=sum(summary.n for summary in cells.values()),
        expected=sum(s.expected for s in cells.values() if s.status != "skipped"),
        bad={status: count for status, count in bad.items() if count},
        lacking=tuple(pair for pair in begun if pair not in per_pair),
    )


def _bad(summary: Summary) -> dict[str, int]:
    return {status: summary.statuses[status] for status in BAD if status in summary.statuses}


def is_number(value: Any) -> bool:
    """Check whether a swept value has a size; true and false have none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(points: Sequence[tuple[str, Point]]) -> dict[str, float]:
    """Return label -> place of its point: of one numeric key the value itself, else a counter."""
    by_size = []
    for axis in zip(*(point for _, point in points), strict=True):
        values = [value for _, value in axis]
        if not all(map(is_number, values)):
            in_grid = list(dict.fromkeys(map(repr, values)))
            values = [in_grid.index(repr(value)) for value in values]
        by_size.append([float(value) for value in values])
    places = dict(zip((label for label, _ in points), zip(*by_size, strict=True), strict=True))
    if len(by_size) == 1:
        return {label: value for label, (value,) in places.items()}
    in_order = sorted(places, key=places.__getitem__)
    return {label: float(place) for place, label in enumerate(in_order)}


def _edges(best: Point, points: Sequence[tuple[str, Point]]) -> dict[str, str]:
    edges = {}
    for key, value in best:
        tried = [other for _, point in points for name, other in point if name == key]
        if not all(map(is_number, tried)) or min(tried) == max(tried):
            continue
        if value in (min(tried), max(tried)):
            edges[key] = "low" if value == min(tried) else "high"
    return edges
