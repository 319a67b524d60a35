"""The page's first picture as a file, for README files and papers."""

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup

from kdbench.report.page.hero import hero
from kdbench.stats.aggregate import Aggregate

if TYPE_CHECKING:
    from jinja2 import Environment

PATH = "plots/over_pairs.svg"
"""Path of the file in a folder of results."""
WIDTH = 860
"""Width in pixels."""
MARGIN = 16
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot contain."""


def draw(aggregate: Aggregate) -> bytes | None:
    """Draw the picture of all methods over pairs as an SVG file; None if no row has a result.

    It follows the reader's colour scheme, and loads nothing.
    """
    picture = hero(aggregate)
    if picture is None:
        return None
    text = (
        _templates()
        .get_template("hero_image.svg.j2")
        .render(
            hero=picture,
            opens=False,
            title=aggregate.evidence.grid.title,
            style=Markup(_style()),
            width=WIDTH,
            margin=MARGIN,
        )
    )
    return FORBIDDEN.sub("\ufffd", text).encode()


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("kdbench.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style() -> str:
    """Return the colours of the page and the rules of the picture, those for wide screens."""
    files = resources.files("kdbench.report.page")
    colours = files.joinpath("style.css").read_text(encoding="utf-8").partition("}")[0] + "}"
    rules = files.joinpath("hero.css").read_text(encoding="utf-8").partition("@media")[0]
    kept = [line for line in rules.splitlines() if re.match(r"(svg)?\.hero", line)]
    return "\n".join([colours, *kept])
