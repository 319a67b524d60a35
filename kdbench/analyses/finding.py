"""What an analysis finds, on paper: PNG, SVG, CSV, and a small table for the terminal."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.files import write_atomically
from kdbench.report.plots import pictures
from kdbench.report.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Group


@dataclass(frozen=True)
class Finding:
    """The outcome of an analysis.

    Attributes:
        name: of the analysis. title: for people. source: whose idea it is.
        table: the few numbers for the terminal. frame: all numbers, for the CSV.
        figure: drawn from these.
        notes: what to know when reading it, a sentence each.
    """

    name: str
    title: str
    source: str
    table: "pd.DataFrame"
    frame: "pd.DataFrame"
    figure: "Figure"
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write ``folder/<name>.{csv,svg,png}``; the same bytes for the same finding.

        Returns:
            The PNG.
        """
        folder.mkdir(parents=True, exist_ok=True)
        csv = self.frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        write_atomically(folder / f"{self.name}.csv", csv)
        write_atomically(folder / f"{self.name}.svg", pictures.svg(self.figure))
        write_atomically(folder / f"{self.name}.png", pictures.png(self.figure))
        return folder / f"{self.name}.png"

    def rendered(self) -> "Group":
        """Title, table, notes and source, for ``rich``."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(self.table.columns):
            table.add_column(Text(str(column)), justify="left" if i == 0 else "right")
        for row in self.table.itertuples(index=False):
            table.add_row(*(Text(_told(x)) for x in row))
        lines = [*self.notes, self.source]
        return Group(Text(self.title, "bold"), table, *(Text(line, "dim") for line in lines))


def _told(value: object) -> str:
    """A cell of the terminal's table; nothing where there is no number."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def paper(width: float, height: float) -> "Figure":
    """An empty figure, in inches, that arranges itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def arranged(panels: int) -> tuple[int, int]:
    """Rows and columns for this many panels, at most four side by side."""
    down = math.ceil(panels / 4)
    return down, math.ceil(panels / down)


def cut(shown: int, of: int) -> tuple[str, ...]:
    """A note where a figure does not hold all; the CSV does."""
    return (f"The figure shows the first {shown} of {of}.",) if of > shown else ()


def plain(text: str) -> str:
    """Text that matplotlib shall not read as mathematics."""
    return text.replace("$", r"\$")


def tidy(axis: "Axes", *, spines: tuple[str, ...] = ("left", "bottom")) -> None:
    """The house's look: small ticks, no frame but these sides."""
    axis.tick_params(labelsize=8, length=2)
    for side, spine in axis.spines.items():
        spine.set_visible(side in spines)


def dots(axis: "Axes", names: list[str], values: list[float], label: str) -> None:
    """A value a row, the first on top."""
    axis.plot(values, range(len(values)), "o", color=COLOURS[0], markersize=6, zorder=2)
    axis.set_yticks(range(len(names)), [plain(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(plain(label), fontsize=8)
    axis.locator_params(axis="x", nbins=5)
    axis.margins(x=0.1)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    tidy(axis, spines=("bottom",))
    axis.tick_params(axis="y", length=0)
