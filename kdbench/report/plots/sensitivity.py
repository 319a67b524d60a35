"""Sensitivity to a swept setting: accuracy over its values, a panel per method and pair."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdbench.grid.grid import Grid, Point
from kdbench.grid.run import Cell
from kdbench.report.plots.learning_curves import plots
from kdbench.report.plots.small_multiples import Look, Panel, PlotLine, fitting
from kdbench.report.plots.style import PANELS, Plot, capped
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record
from kdbench.stats import mean
from kdbench.stats.cell_summary import by_pair, row_label, summarise
from kdbench.wording import counted

Values = Callable[[Cell], list[float]]


def sensitivity(evidence: Evidence) -> list[Plot]:
    """Draw accuracy over the values of a sweep, seeds as points; no plot without a sweep.

    If all records have the accuracy on held-out training images, that is used: a value chosen by it
    is not chosen on the test set. If several options of a method are swept, the first is the axis,
    and each combination of the others has a panel.
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
    baseline = row_label(evidence.cells, grid.report.baseline)
    pairs = by_pair(evidence.cells)
    shown = fitting(list(pairs), len(swept))

    def values(cell: Cell) -> list[float]:
        done = summarise(cell.runs, records).records
        return [_accuracy(record, held_out) for record in done]

    panels = []
    for pair in shown:
        cells = {cell.method: cell for cell in pairs[pair]}
        for method, points in list(swept)[:PANELS]:
            panels.append(_panel(pair, method, points, cells, baseline, values))
    if not any(panel.line for panel in panels):
        return []
    where = "on held-out training images" if held_out else "on test images, last epoch"
    look = Look("value of the swept setting", f"accuracy {where}, %", baseline or "", marked=True)
    notes = capped(len(shown), len(pairs), "pairs")
    notes += capped(min(len(swept), PANELS), len(swept), "methods")
    panels_of = counted(min(len(swept), PANELS), "method")
    alt = (
        f"Accuracy {where} over the values of a swept setting, mean and single seeds, a panel for "
        f"each of {panels_of} on {{}}; student alone and baseline in grey."
    )
    title = f"{grid.title}: sensitivity{notes}"
    return plots("sensitivity", "Sensitivity to swept settings", title, alt, panels, look)


def _swept(grid: Grid) -> list[tuple[str, dict[str, Point]]]:
    """List each panel's row and its points by label; a point's first setting is the axis."""
    panels: dict[tuple[str, str], dict[str, Point]] = {}
    for row in grid.methods:
        for label, point in row.points(grid.sweep):
            if point:
                panels.setdefault((row.label, str(point[1:])), {})[label] = point
    return [(row, points) for (row, _), points in panels.items()]


def _runs(evidence: Evidence) -> set[str]:
    """Return the students' runs; teachers may be trained on other data."""
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
    first = next(iter(points.values()))
    numbers = [point[0][1] for point in points.values()]
    log, at = _scale(numbers)
    ticks = {at(number): str(number) for number in numbers}
    accuracies_at = {
        at(point[0][1]): values(cells[label]) for label, point in points.items() if label in cells
    }
    known = {x: accuracies for x, accuracies in sorted(accuracies_at.items()) if accuracies}
    line = PlotLine(
        list(known),
        [mean(accuracies) for accuracies in known.values()],
        points=[(x, accuracy) for x, accuracies in known.items() for accuracy in accuracies],
    )
    notes = [f"{key}={value}" for key, value in first[1:]]
    if len(known) < len(points):
        notes.append(f"{len(points) - len(known)} of {len(points)} not done")
    low, high = (min(ticks) / 2, max(ticks) * 2) if log else (min(ticks) - 1, max(ticks) + 1)

    def level(name: str | None) -> PlotLine | None:
        accuracies = values(cells[name]) if name and name in cells else []
        return PlotLine([low, high], [mean(accuracies)] * 2) if accuracies else None

    return Panel(
        pair,
        f"{method}: {first[0][0]}",
        line if known else None,
        level("student"),
        level(baseline),
        "; ".join(notes),
        log,
        ticks,
    )


def _scale(values: Sequence[Any]) -> tuple[bool, Callable[[Any], float]]:
    """Choose a log axis for positive numbers, else the values' order; also return the positions."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers and min(values) > 0:
        return True, float
    order = {str(value): float(i) for i, value in enumerate(dict.fromkeys(map(str, values)))}
    return False, lambda value: order[str(value)]
