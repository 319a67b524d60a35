"""Learning curves: test accuracy over the epochs, a panel per method and pair."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from kdbench.grid.run import BASELINES, Cell
from kdbench.report.plots.small_multiples import Look, Panel, PlotLine, draw, fitting, sheets
from kdbench.report.plots.style import PANELS, Plot, capped
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record
from kdbench.stats.cell_summary import by_pair, row_label, summarise
from kdbench.wording import counted

SEEDS = 10
"""Of more seeds than these the first are read."""


def learning_curves(evidence: Evidence) -> list[Plot]:
    """Mean over the seeds that are done, and the span from the lowest to the highest.

    Empty where no run has left a history.
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
    look = Look("epoch", "test accuracy, %", baseline or "", band="lowest to highest seed")
    title = f"{evidence.grid.title}: learning curves{notes}"
    panels_of = counted(min(len(methods), PANELS), "method")
    alt = (
        f"Test accuracy over the epochs, mean and span over seeds, a panel for each of "
        f"{panels_of} on {{}}; student alone and baseline in grey."
    )
    return plots("curves", "Learning curves", title, alt, panels, look)


def plots(
    name: str, heading: str, title: str, alt: str, panels: Sequence[Panel], look: Look
) -> list[Plot]:
    """A plot for each sheet that the panels need; ``{}`` in ``alt`` is the sheet's pairs."""
    out = []
    for i, sheet in enumerate(sheets(panels)):
        told = alt.format(counted(len({panel.pair for panel in sheet}), "pair"))
        figure = draw(title, sheet, look)
        again = f" ({i + 1})" if i else ""
        out.append(Plot(f"{name}-{i + 1}" if i else name, heading + again, told, figure))
    return out


def compared(cells: Sequence[Cell], baseline: str | None) -> list[str]:
    """The methods that have a panel: all but the baselines, unless there are no others."""
    every = dict.fromkeys(cell.method for cell in cells)
    methods = [name for name in every if name not in (*BASELINES, baseline)]
    return methods or [name for name in every if name != "teacher"][-1:]


def missing(cell: Cell, records: Mapping[str, Record]) -> str:
    """What a panel says of a cell that is not whole."""
    summary = summarise(cell.runs, records)
    if not summary.n:
        return summary.status
    return "" if summary.n == summary.expected else f"{summary.n}/{summary.expected} seeds"


def _curve(evidence: Evidence, cell: Cell) -> PlotLine | None:
    found: dict[float, list[float]] = defaultdict(list)
    for run in cell.runs[:SEEDS]:
        record = evidence.records.get(run.id)
        if record is None or record.status != "done":
            continue
        for row in evidence.history(run.id):
            epoch, accuracy = row.get("epoch", math.nan), row.get("test_acc", math.nan)
            if math.isfinite(epoch) and math.isfinite(accuracy):
                found[epoch].append(accuracy)
    if not found:
        return None
    epochs = sorted(found)
    values = [found[epoch] for epoch in epochs]
    # One seed has no span.
    several = any(len(one) > 1 for one in values)
    return PlotLine(
        epochs,
        [sum(one) / len(one) for one in values],
        [min(one) for one in values] if several else (),
        [max(one) for one in values] if several else (),
    )
