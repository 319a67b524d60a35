"""What is known of a row and of a pair beside their numbers: family, paper, architectures."""

import re
from collections.abc import Sequence

from kdbench.errors import UserError
from kdbench.grid.run import BASELINES, Cell
from kdbench.models import zoo
from kdbench.registry import lookup


def architecture(teacher: str, student: str) -> str:
    """Whether a pair is of the ``same`` or of ``cross`` architecture; empty where unknown."""
    try:
        return "same" if zoo.family(teacher) == zoo.family(student) else "cross"
    except ValueError:
        return ""


def described(name: str, cells: Sequence[Cell]) -> tuple[str, str, str]:
    """Family, year and paper of a row: of each of its terms whose file can be read."""
    if name in BASELINES:
        return "baseline", "", ""
    run = next((cell.runs[0] for cell in cells if cell.method == name and cell.runs), None)
    told = [_method(term.where) for term in run.terms] if run else []
    families = dict.fromkeys(family for family, _ in told)
    papers = [doc for _, doc in told if doc]
    years = [found[0] for doc in papers if (found := re.search(r"\b(?:19|20)\d\d\b", doc))]
    return " + ".join(families) or "unknown", " + ".join(dict.fromkeys(years)), "; ".join(papers)


def _method(where: str) -> tuple[str, str]:
    try:
        about = lookup.describe(where)
    except UserError:
        return "unknown", ""
    return about.family, about.doc
