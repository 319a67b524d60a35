"""Facts about a method and a pair besides their numbers: family, paper, architectures."""

import re
from collections.abc import Sequence

from kdbench.errors import UserError
from kdbench.grid.run import BASELINES, Cell
from kdbench.models import zoo
from kdbench.registry import lookup


def architecture(teacher: str, student: str) -> str:
    """Classify a pair as ``same`` or ``cross`` architecture; empty if a network is unknown."""
    try:
        return "same" if zoo.family(teacher) == zoo.family(student) else "cross"
    except ValueError:
        return ""


def described(name: str, cells: Sequence[Cell]) -> tuple[str, str, str]:
    """Return family, year and paper of a row, from the files of its terms that can be read."""
    if name in BASELINES:
        return "baseline", "", ""
    run = next((cell.runs[0] for cell in cells if cell.method == name and cell.runs), None)
    terms = [_method(term.where) for term in run.terms] if run else []
    families = dict.fromkeys(family for family, _ in terms)
    papers = [doc for _, doc in terms if doc]
    years = [match[0] for doc in papers if (match := re.search(r"\b(?:19|20)\d\d\b", doc))]
    return " + ".join(families) or "unknown", " + ".join(dict.fromkeys(years)), "; ".join(papers)


def _method(where: str) -> tuple[str, str]:
    try:
        description = lookup.describe(where)
    except UserError:
        return "unknown", ""
    return description.family, description.doc
