"""What a swept setting does: accuracy over its values, a panel per method and pair."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from kdbench.evidence import Evidence
from kdbench.grid import Grid, Point
from kdbench.plots.curves import plots
from kdbench.plots.multiples import Line, Look, Panel, fitting
from kdbench.plots.style import PANELS, Plot, capped
from kdbench.records import Record
from kdbench.run import Cell
from kdbench.stats import mean
from kdbench.summary import by_pair, summarise
from kdbench.tidy import find

Values = Callable[[Cell], list[float]]


def sensitivity(evidence: Evidence) -> list[Plot]:
    """Accuracy over the values of a sweep, seeds as points; empty where the grid sweeps nothing.

    It is the accuracy on held-out training images where all records have it: a value that is
    chosen by it is not chosen by the test set. Of several swept options of a method the first is
    the axis; each combination of the others has a line.
    """
    grid, records = evidence.grid, evidence.records
    swept = _swept(grid)
    if not swept:
        return []
    held_out = bool(grid.dataset.validation) and all(
        r.result.val_acc is not None
        for r in records.values()
        if r.result and r.run in _runs(evidence)
    )
    baseline = find(evidence.cells, grid.report.baseline)
    pairs = by_pair(evidence.cells)
    shown = fitting(list(pairs), len(swept))

    def values(cell: Cell) -> list[float]:
        done = summarise(cell.runs, records).records
        return [_accuracy(record, held_out) for record in done]

    panels = []
    for pair in shown:
        cells = {cell.method: cell for cell in pairs[pair]}
        for method, points in list(swept.items())[:PANELS]:
            panels.append(_panel(pair, method, points, cells, baseline, values))
    if not any(panel.lines for panel in panels):
        return []
    where = "on held-out training images" if held_out else "on test images, last epoch"
    look = Look("value of the swept setting", f"accuracy {where}, %", baseline or "", marked=True)
    notes = capped(len(shown), len(pairs), "pairs")
    notes += capped(min(len(swept), PANELS), len(swept), "methods")
    alt = (
        f"Accuracy {where} over the values of a swept setting, mean and single seeds, a panel for "
        f"each of {min(len(swept), PANELS)} methods on {{}}; student alone and baseline in grey."
    )
    title = f"{grid.title}: sensitivity{notes}"
    return plots("sensitivity", "Sensitivity to swept settings", title, alt, panels, look)


def _swept(grid: Grid) -> dict[str, dict[str, Point]]:
    """Row -> label of what the sweep makes of it -> what that stands for."""
    found = {row.label: dict(row.points(grid.sweep)) for row in grid.methods}
    return {label: points for label, points in found.items() if any(points.values())}


def _runs(evidence: Evidence) -> set[str]:
    """Runs of students: a teacher's own may be of other data."""
    return {run.id for cell in evidence.cells if cell.method != "teacher" for run in cell.runs}


def _accuracy(record: Record, held_out: bool) -> float:
    result = record.result
    value = (result.val_acc if held_out else result.test_acc) if result else None
    return math.nan if value is None else value


def _panel(
    pair: str,
    method: str,
    points: Mapping[str, Point],
    cells: Mapping[str, Cell],
    baseline: str | None,
    values: Values,
) -> Panel:
    option = next(iter(points.values()))[0][0]
    settings = list(dict.fromkeys(str(point[0][1]) for point in points.values()))
    numbers = [point[0][1] for point in points.values()]
    log, at = _scale(numbers)
    found = [
        (point[1:], at(point[0][1]), values(cells[label]))
        for label, point in points.items()
        if label in cells
    ]
    lines = []
    for others, group in groupby(sorted(found, key=lambda f: str(f[0])), key=lambda f: f[0]):
        known = sorted((x, accuracies) for _, x, accuracies in group if accuracies)
        if known:
            line = Line(
                [x for x, _ in known],
                [mean(accuracies) for _, accuracies in known],
                points=[(x, one) for x, accuracies in known for one in accuracies],
                label=", ".join(f"{key}={value}" for key, value in others),
            )
            lines.append(line)
    positions = [at(number) for number in numbers]
    ticks = dict(zip(dict.fromkeys(positions), settings, strict=True))

    def level(name: str | None) -> Line | None:
        accuracies = values(cells[name]) if name and name in cells else []
        ends = (
            [min(positions) / 2, max(positions) * 2]
            if log
            else [min(positions) - 1, max(positions) + 1]
        )
        return Line(ends, [mean(accuracies)] * 2) if accuracies else None

    empty = sum(not accuracies for _, _, accuracies in found)
    note = f"{empty} of {len(found)} not done" if empty else ""
    return Panel(
        pair, f"{method}: {option}", lines, level("student"), level(baseline), note, log, ticks
    )


def _scale(values: Sequence[Any]) -> tuple[bool, Callable[[Any], float]]:
    """Whether these are numbers for a log axis, and where each stands: there, or at its number."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers and min(values) > 0:
        return True, float
    order = {str(value): float(i) for i, value in enumerate(dict.fromkeys(map(str, values)))}
    return False, lambda value: order[str(value)]
