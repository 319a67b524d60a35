"""Figures for a page: each an image of its own, so that no id, style or script of one leaks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

BUDGET = 1_200_000
"""Characters that all figures of a page may take."""


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        title: what it shows.
        source: a data URI, or empty where it was too large for the page.
        width: in pixels; 0 where the SVG does not say.
    """

    title: str
    source: str
    width: int = 0


def embed(figures: Mapping[str, str], budget: int = BUDGET) -> list[Figure]:
    """Figures as data URIs, in their order; those that do not fit the budget without a source.

    Args:
        figures: title -> text of the SVG.
        budget: characters, of all together.
    """
    out = []
    for title, svg in figures.items():
        # Most of the white space of matplotlib's SVG is indentation.
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        text = re.sub(r"\s*\n\s*", " ", svg[max(svg.find("<svg"), 0) :])
        source = "data:image/svg+xml," + quote(text, safe=" /:;=,.()+-*!?@$~", errors="replace")
        if len(source) > budget:
            out.append(Figure(title, ""))
            continue
        budget -= len(source)
        width = re.search(r'<svg[^>]*?\bwidth="([\d.]+)(pt|px)?"', text)
        scale = 4 / 3 if width and width[2] == "pt" else 1
        out.append(Figure(title, source, round(float(width[1]) * scale) if width else 0))
    return out
