"""The output of an analysis: a figure, a CSV and a small table for the terminal."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.files import sweep, write_atomically
from kdbench.report.plots import pictures
from kdbench.report.plots.style import COLOURS
from kdbench.report.text import spreadsheet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Group


@dataclass(frozen=True)
class Finding:
    """The result of an analysis.

    Attributes:
        name: name of the analysis and of its files.
        title: heading for readers.
        source: paper that introduced the analysis.
        table: summary for the terminal.
        frame: all numbers, for the CSV.
        figure: plot of these numbers.
        notes: remarks for readers, one sentence each.
    """

    name: str
    title: str
    source: str
    table: "pd.DataFrame"
    frame: "pd.DataFrame"
    figure: "Figure"
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write ``folder/<name>.{csv,svg,png}``; equal findings give equal bytes.

        Returns:
            The PNG.
        """
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        write_atomically(folder / f"{self.name}.csv", spreadsheet.csv(self.frame, digits=6))
        write_atomically(folder / f"{self.name}.svg", pictures.svg(self.figure))
        write_atomically(folder / f"{self.name}.png", pictures.png(self.figure))
        return folder / f"{self.name}.png"

    def render(self) -> "Group":
        """Return title, table, notes and source for ``rich``."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(self.table.columns):
            table.add_column(Text(str(column)), justify="left" if i == 0 else "right")
        for row in self.table.itertuples(index=False):
            table.add_row(*(Text(_format(value)) for value in row))
        lines = [*self.notes, self.source]
        return Group(Text(self.title, "bold"), table, *(Text(line, "dim") for line in lines))


def _format(value: object) -> str:
    """Format a cell of the terminal's table; nan becomes an empty cell."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of this size in inches, with automatic layout."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panel_grid(panels: int) -> tuple[int, int]:
    """Return rows and columns for this many panels, with at most four columns."""
    down = math.ceil(panels / 4)
    return down, math.ceil(panels / down)


def truncation_note(drawn: int, total: int) -> tuple[str, ...]:
    """Return a note if the figure leaves something out; the CSV is always complete."""
    return (f"The figure shows the first {drawn} of {total}.",) if total > drawn else ()


def escape_mathtext(text: str) -> str:
    """Escape dollar signs, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def style_axis(axis: "Axes", *, spines: tuple[str, ...] = ("left", "bottom")) -> None:
    """Use small ticks and draw only these sides of the frame."""
    axis.tick_params(labelsize=8, length=2)
    for side, spine in axis.spines.items():
        spine.set_visible(side in spines)


def dot_plot(axis: "Axes", names: list[str], values: list[float], label: str) -> None:
    """Draw one value per row, the first at the top."""
    axis.plot(values, range(len(values)), "o", color=COLOURS[0], markersize=6, zorder=2)
    axis.set_yticks(range(len(names)), [escape_mathtext(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(escape_mathtext(label), fontsize=8)
    axis.locator_params(axis="x", nbins=5)
    axis.margins(x=0.1)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    style_axis(axis, spines=("bottom",))
    axis.tick_params(axis="y", length=0)
