"""Facts about a method and a pair besides their numbers: family, paper, architectures."""

import re

from kdbench.errors import UserError
from kdbench.grid.run import BASELINES, Term
from kdbench.models import zoo
from kdbench.registry import lookup
from kdbench.runs.evidence import Evidence


def architecture(teacher: str, student: str) -> str:
    """Classify a pair as ``same`` or ``cross`` architecture; empty if a network is unknown."""
    try:
        return "same" if zoo.family(teacher) == zoo.family(student) else "cross"
    except ValueError:
        return ""


def described(name: str, evidence: Evidence) -> tuple[str, str, str]:
    """Return family, year and paper of a row, from the files of its terms as far as known."""
    if name in BASELINES:
        return "baseline", "", ""
    cells = evidence.cells
    run = next((cell.runs[0] for cell in cells if cell.method == name and cell.runs), None)
    terms = [_method(term, evidence) for term in run.terms] if run else []
    families = dict.fromkeys(family for family, _ in terms)
    papers = [doc for _, doc in terms if doc]
    years = [match[0] for doc in papers if (match := re.search(r"\b(?:19|20)\d\d\b", doc))]
    return " + ".join(families) or "unknown", " + ".join(dict.fromkeys(years)), "; ".join(papers)


def _method(term: Term, evidence: Evidence) -> tuple[str, str]:
    if term.source:  # the file may have changed, or be on another machine
        return evidence.plugins.get(term.source, ("unknown", ""))
    try:
        description = lookup.describe(term.method)
    except UserError:
        return "unknown", ""
    return description.family, description.doc
