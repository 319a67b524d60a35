"""Figures for a page, embedded as images, which isolates their ids, styles and scripts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

BUDGET = 1_200_000
"""Characters that all figures of a page may take together."""


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        title: shown above it.
        source: a data URI; empty if the figure is too large for the page.
        width: in pixels; 0 if the SVG does not give it.
    """

    title: str
    source: str
    width: int = 0


def embed(figures: Mapping[str, str], budget: int = BUDGET) -> list[Figure]:
    """Encode figures as data URIs, in their order; figures beyond the budget get no source.

    Args:
        figures: title -> text of the SVG.
        budget: characters for all figures together.
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
