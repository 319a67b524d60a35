"""Learning curves: accuracy over the epochs, a panel per method and pair."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from kdbench.grid.run import BASELINES, Cell
from kdbench.report.plots.small_multiples import Look, Panel, PlotLine, draw, fitting, sheets
from kdbench.report.plots.style import PANELS, Plot, capped
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record
from kdbench.stats.cell_summary import by_pair, row_label, summarise
from kdbench.stats.headline import headline
from kdbench.wording import counted

NAME = "curves"
"""Name of the plot's file; further sheets have a number behind it."""
SEEDS = 10
"""The most seeds read of each cell."""


def learning_curves(evidence: Evidence) -> list[Plot]:
    """Draw the mean over the seeds done, and the range from the lowest to the highest.

    Returns:
        One plot per sheet; none if no run has a history.
    """
    records = evidence.records
    baseline = row_label(evidence.cells, evidence.grid.report.baseline)
    pairs = by_pair(evidence.cells)
    methods = compared(evidence.cells, baseline)
    shown = fitting(list(pairs), len(methods))
    panels: list[Panel] = []
    for pair in shown:
        cells = {cell.method: cell for cell in pairs[pair]}
        student, base = (
            _curve(evidence, cells[name]) if name in cells else None
            for name in ("student", baseline or "")
        )
        for method in methods[:PANELS]:
            if method in cells:
                line, note = _curve(evidence, cells[method]), missing(cells[method], records)
                panels.append(Panel(pair, method, line, student, base, note))
    if not any(panel.line for panel in panels):
        return []
    seeds = max(len(cell.runs) for cell in evidence.cells)
    notes = (
        capped(len(shown), len(pairs), "pairs")
        + capped(min(len(methods), PANELS), len(methods), "methods")
        + capped(min(seeds, SEEDS), seeds, "seeds")
    )
    shown_accuracy = headline(evidence.grid).name
    look = Look("epoch", f"{shown_accuracy}, %", baseline or "", band="lowest to highest seed")
    title = f"{evidence.grid.title}: learning curves{notes}"
    panels_of = counted(min(len(methods), PANELS), "method")
    alt = (
        f"{shown_accuracy.capitalize()} over the epochs, mean and range over seeds, a panel for "
        f"each of {panels_of} on {{}}; student alone and baseline in grey."
    )
    return plots(NAME, "Learning curves", title, alt, panels, look)


def plots(
    name: str, heading: str, title: str, alt: str, panels: Sequence[Panel], look: Look
) -> list[Plot]:
    """Draw a plot for each sheet of panels; ``{}`` in ``alt`` is its number of pairs."""
    out = []
    for i, sheet in enumerate(sheets(panels)):
        sheet_alt = alt.format(counted(len({panel.pair for panel in sheet}), "pair"))
        figure = draw(title, sheet, look)
        number = f" ({i + 1})" if i else ""
        out.append(Plot(f"{name}-{i + 1}" if i else name, heading + number, sheet_alt, figure))
    return out


def compared(cells: Sequence[Cell], baseline: str | None) -> list[str]:
    """Select the methods that get a panel: all except the baselines, unless there are no others."""
    every = dict.fromkeys(cell.method for cell in cells)
    methods = [name for name in every if name not in (*BASELINES, baseline)]
    return methods or [name for name in every if name != "teacher"][-1:]


def missing(cell: Cell, records: Mapping[str, Record]) -> str:
    """Write the note of a cell without all its seeds."""
    summary = summarise(cell.runs, records)
    if not summary.n:
        return summary.status
    return "" if summary.n == summary.expected else f"{summary.n}/{summary.expected} seeds"


def _curve(evidence: Evidence, cell: Cell) -> PlotLine | None:
    by_epoch: dict[float, list[float]] = defaultdict(list)
    key = headline(evidence.grid).key
    for run in cell.runs[:SEEDS]:
        record = evidence.records.get(run.id)
        if record is None or record.status != "done":
            continue
        for row in evidence.history(run.id):
            epoch, accuracy = row.get("epoch", math.nan), row.get(key, math.nan)
            if math.isfinite(epoch) and math.isfinite(accuracy):
                by_epoch[epoch].append(accuracy)
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] for epoch in epochs]
    # One seed has no range.
    several = any(len(accuracies) > 1 for accuracies in values)
    return PlotLine(
        epochs,
        [sum(accuracies) / len(accuracies) for accuracies in values],
        [min(accuracies) for accuracies in values] if several else (),
        [max(accuracies) for accuracies in values] if several else (),
    )
