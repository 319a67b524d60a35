"""Shared by all figures: colours, plain text, panels of a fixed size, reproducible bytes."""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 28
"""The most panels of one figure; more would be illegible."""
FEW = 6
"""Pairs drawn, as an example, of a grid that has more than ``PANELS``."""
ROWS, CELLS = 120, 600
"""The most methods, and methods times pairs, of one figure."""
LABEL = 30
"""The most characters of a name; longer names are cut in the middle."""

# Okabe and Ito's colours, distinct to the colour-blind; the first two also differ in lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
SEEDS, MEAN = COLOURS[:2]
LINES = "#333333"
# A curve and the curves it is compared with differ in lightness and in dashes.
CURVE, BASELINE, STUDENT = "#004488", "#6F6F6F", "#949494"
DASHES: dict[str, Any] = {BASELINE: (0, (5, 2)), STUDENT: (0, (1, 1.4))}
PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}

# Names may contain dollar signs, so no text is parsed as mathematics.
SETTINGS: Any = {
    "text.parse_math": False, "svg.hashsalt": "kdbench", "font.size": 8.0, "axes.linewidth": 0.8,
    "hatch.linewidth": 0.5, "axes.titley": 1.0, "xtick.major.size": 2.0, "ytick.major.size": 2.0,
}  # fmt: skip


LONG = re.compile(rb"-?\d+\.\d{3,}")


@contextmanager
def paper() -> Iterator[None]:
    """Use Matplotlib's defaults and ``SETTINGS``, whatever this machine's matplotlibrc sets."""
    import matplotlib.style

    with (
        matplotlib.style.context("default"),
        matplotlib.rc_context(SETTINGS),
        warnings.catch_warnings(),
    ):
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        yield


def plain(text: str, most: int = LABEL) -> str:
    """Put a name on one line of printable characters, and cut its middle if it is too long."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(text) <= most:
        return text
    return f"{text[: most - most // 3 - 1]}…{text[-(most // 3) :]}"


def width(text: str, size: float = 8.0) -> float:
    """Return the width of a line of text in inches, at a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def widest(texts: Sequence[str], size: float = 8.0) -> float:
    """Return the width of the widest line in inches; 0 without lines."""
    # Letters differ in width, but the widest line is among the longest.
    longest = sorted(dict.fromkeys(texts), key=len)[-12:]
    return max((width(text, size) for text in longest), default=0.0)


def first(pairs: Sequence[str], rows: int) -> list[str]:
    """Select the pairs that a figure shows, given the rows of each pair."""
    most = max(1, CELLS // (rows or 1))
    return list(pairs)[: min(most, PANELS if len(pairs) <= PANELS else min(FEW, PANELS))]


def capped(shown: int, total: int, noun: str) -> str:
    """Write the note of a figure that does not show everything, e.g. `` (first 6 of 30 pairs)``."""
    return f" (first {shown} of {total:,} {noun})" if shown < total else ""


@dataclass(frozen=True)
class Plot:
    """A figure of a page. Title and alternative text contain no name from a grid.

    Attributes:
        name: of its files, without ending.
        title: a heading.
        alt: alternative text, one sentence.
    """

    name: str
    title: str
    alt: str
    figure: "Figure"


@dataclass(frozen=True)
class Sheet:
    """Panels of one size, arranged in rows below a title; all lengths in inches.

    Attributes:
        across: panels in a row.
        size: of a panel, without the labels around it.
        left: margin.
        right: margin.
        bottom: margin.
        gap: between panels, across and down; the gap above a panel contains its title.
        least: minimum width of the figure.
    """

    across: int
    size: tuple[float, float]
    left: float
    right: float = 0.15
    bottom: float = 0.75
    gap: tuple[float, float] = (0.2, 0.55)
    least: float = 4.5

    def draw(
        self, title: str, slots: Sequence[int], head: float = 0.3
    ) -> tuple["Figure", list["Axes"]]:
        """Make a figure with its title and empty panels.

        Args:
            title: wrapped to three lines at most.
            slots: positions of the panels, counted row by row from 0.
            head: room for the titles of the first row.
        """
        from matplotlib.figure import Figure

        down = max(slots, default=0) // self.across + 1
        wide = self.left + self.across * (self.size[0] + self.gap[0]) - self.gap[0] + self.right
        slack = max(self.least - wide, 0.0)
        wide += slack
        lines = textwrap.wrap(plain(title, 300), max(int(wide * 11.5), 20))[:3]
        top = 0.1 + 0.18 * len(lines) + head
        high = top + down * (self.size[1] + self.gap[1]) - self.gap[1] + self.bottom
        figure = Figure(figsize=(wide, high))
        figure.suptitle("\n".join(lines), fontsize=11, y=1 - 0.08 / high, va="top")
        axes = []
        for slot in slots:
            row, column = divmod(slot, self.across)
            x = self.left + slack / 2 + column * (self.size[0] + self.gap[0])
            y = high - top - row * (self.size[1] + self.gap[1]) - self.size[1]
            box = (x / wide, y / high, self.size[0] / wide, self.size[1] / high)
            axes.append(figure.add_axes(box))
        return figure, axes


def bare(axis: "Axes", *sides: str) -> None:
    """Remove the frame except for these sides."""
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(side in sides)


def window(
    values: Sequence[float], keep: Sequence[float] = (), reach: float = 9.0
) -> tuple[float, float]:
    """Choose limits that show all values except outliers that would squeeze the others.

    Args:
        values: finite or not; only finite values count.
        keep: shown even if they are outliers, provided that there are values.
        reach: median absolute deviations from the median, each at least half a point.
    """
    import numpy as np

    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return 0.0, 1.0
    away = np.abs(finite - np.median(finite))
    near = away <= reach * max(float(np.median(away)), 0.5)
    kept = [value for value in keep if np.isfinite(value)]
    inside = np.append(finite[near], kept)
    # Include values just beyond.
    more = (inside.max() - inside.min()) / 3
    near = (finite >= inside.min() - more) & (finite <= inside.max() + more)
    inside = np.append(finite[near], kept)
    bottom, top = float(inside.min()), float(inside.max())
    margin = 0.06 * max(top - bottom, 0.5)
    return bottom - margin, top + margin


def svg(figure: "Figure") -> bytes:
    """Write the figure as SVG, without a date and with reproducible ids."""
    drawing = _saved(figure, "svg", metadata={"Date": None, "Creator": None})
    return re.sub(rb'(?<=\s)(?:d|x|y)="[^"]*"', _rounded, drawing)


def png(figure: "Figure") -> bytes:
    """Write the figure as PNG."""
    # The highest compression would take as long as drawing, and save a tenth.
    return _saved(figure, "png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})


def _rounded(attribute: "re.Match[bytes]") -> bytes:
    """Round coordinates to a hundredth of a point, which halves the size of a large drawing."""
    return LONG.sub(lambda match: b"%.10g" % round(float(match[0]), 2), attribute[0])


def _saved(figure: "Figure", kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with paper():
        figure.savefig(buffer, format=kind, dpi=150, **options)
    return buffer.getvalue()
