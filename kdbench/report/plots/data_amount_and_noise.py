"""Accuracy over grids that differ in the number of training images or in label noise."""

from collections.abc import Mapping, Sequence

from kdbench.grid.run import Cell
from kdbench.report.plots.learning_curves import compared, plots
from kdbench.report.plots.small_multiples import Look, Panel, PlotLine, fitting
from kdbench.report.plots.style import PANELS, Plot, capped
from kdbench.runs.evidence import Evidence
from kdbench.stats import mean
from kdbench.stats.cell_summary import by_pair, row_label, summarise
from kdbench.stats.headline import ON_TEST, with_answers
from kdbench.wording import counted

Series = Sequence[tuple[float, Evidence]]
"""Position on the axis, and evidence, of each grid."""


def few_shot(title: str, series: Series) -> list[Plot]:
    """Draw accuracy over training images per class, on a log axis."""
    return _across(
        *("few-shot", "Few training images", title, series),
        "training images per class", log=True,
    )  # fmt: skip


def label_noise(title: str, series: Series) -> list[Plot]:
    """Draw accuracy over the share of wrong training labels, from 0 to 1."""
    return _across(
        *("label-noise", "Wrong training labels", title, series),
        "share of wrong training labels", log=False,
    )  # fmt: skip


def _across(
    name: str, heading: str, title: str, series: Series, xlabel: str, *, log: bool
) -> list[Plot]:
    """Draw the mean over seeds and single seeds; no plot for fewer than two positions.

    Raises:
        ValueError: a position is invalid or occurs twice.
    """
    positions = [x for x, _ in series]
    if len(set(positions)) != len(positions) or (log and any(not x > 0 for x in positions)):
        numbers = ", ".join(f"{x:g}" for x in positions)
        raise ValueError(f"{xlabel}: expected different numbers{' above 0' * log}, got {numbers}")
    if len(series) < 2:
        return []
    all_cells = [cell for _, evidence in series for cell in evidence.cells]
    baseline = row_label(all_cells, series[0][1].grid.report.baseline)
    methods = compared(all_cells, baseline)
    by_position = [
        (
            x,
            evidence,
            {p: {c.method: c for c in cells} for p, cells in by_pair(evidence.cells).items()},
        )
        for x, evidence in series
    ]
    pairs = list(dict.fromkeys(pair for _, _, grid_cells in by_position for pair in grid_cells))
    shown = fitting(pairs, len(methods))
    ticks = {x: f"{x:g}" for x in sorted(positions)}
    panels = []
    for pair in shown:
        cells = [(x, evidence, by_method.get(pair, {})) for x, evidence, by_method in by_position]
        student, base = _line(cells, "student"), _line(cells, baseline or "")
        for method in methods[:PANELS]:
            line = _line(cells, method)
            note = "" if line else "no results"
            panels.append(Panel(pair, method, line, student, base, note, log, ticks))
    if not any(panel.line for panel in panels):
        return []
    notes = capped(len(shown), len(pairs), "pairs")
    notes += capped(min(len(methods), PANELS), len(methods), "methods")
    panels_of = counted(min(len(methods), PANELS), "method")
    alt = (
        f"Test accuracy over the {xlabel}, mean and single seeds, a panel for each of "
        f"{panels_of} on {{}}; student alone and baseline in grey."
    )
    look = Look(xlabel, "test accuracy, last epoch, %", baseline or "", marked=True)
    return plots(name, heading, title + notes, alt, panels, look)


def _line(
    cells: Sequence[tuple[float, Evidence, Mapping[str, Cell]]], method: str
) -> PlotLine | None:
    points = []
    for x, evidence, by_method in cells:
        if method in by_method:
            shown = with_answers(ON_TEST, evidence.grid)
            summary = summarise(by_method[method].runs, evidence.records, shown)
            points += [(x, accuracy) for accuracy in summary.accuracies.values()]
    if not points:
        return None
    xs = sorted({x for x, _ in points})
    return PlotLine(xs, [mean(y for at, y in points if at == x) for x in xs], points=points)
