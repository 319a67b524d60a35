"""Facts about a method and a pair besides their numbers: family, paper, source, architectures.

Facts about methods outside kdbench come from the evidence: their files may have changed, or be on
another machine. Facts about built-in methods come from this kdbench, as the page's wording does: if
a wrong year or a dead link is corrected, the next report of any records has the correction.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from kdbench.errors import UserError
from kdbench.grid.run import BASELINES, Term
from kdbench.models import zoo
from kdbench.registry import lookup, references
from kdbench.registry.lookup import built_in_path
from kdbench.registry.references import Reference
from kdbench.runs.evidence import Evidence, PluginFacts

UNKNOWN = "unknown"
BUILT_IN = "included in kdbench"
NOT_HERE = "not part of this kdbench"
DIGITS = 16
"""Digits of a file's sha256 that are shown."""


@dataclass(frozen=True)
class MethodFacts:
    """Facts about the methods of a row; everything is empty for teacher and student.

    Attributes:
        family: what the methods match, such as ``relation``; ``baseline`` for teacher and student.
        year: of the papers.
        paper: the first lines of the methods' files.
        links: text and address. All addresses begin with https:// and contain only letters, digits
            and ``. _ ~ / ? = & % # + -``. The texts are ``paper`` and ``code``; in a combination of
            methods, the method's name is in front.
        bibtex: an entry for each method, to be copied.
        source: where the methods' code is: in kdbench, or the names and digests of files.
    """

    family: str
    year: str = ""
    paper: str = ""
    links: tuple[tuple[str, str], ...] = ()
    bibtex: str = ""
    source: str = ""


@dataclass(frozen=True)
class _Method:
    """Facts about one term of a row."""

    family: str
    doc: str
    source: str
    reference: Reference


def architecture(teacher: str, student: str) -> str:
    """Classify a pair as ``same`` or ``cross`` architecture; empty if a network is unknown."""
    try:
        return "same" if zoo.family(teacher) == zoo.family(student) else "cross"
    except ValueError:
        return ""


def facts(name: str, evidence: Evidence) -> MethodFacts:
    """Return the facts about a row, as far as they are known.

    Args:
        name: the row's label.
        evidence: of the report.
    """
    if name in BASELINES:
        return MethodFacts("baseline")
    runs = (cell.runs[0] for cell in evidence.cells if cell.method == name and cell.runs)
    # In grids that were merged, a plugin may have another content on another pair.
    contents = {(term.method, term.source): term for run in runs for term in run.terms}
    terms = contents.values()
    methods = [_method(term, evidence) for term in terms]
    several = len({term.method for term in terms}) > 1
    links = [
        (f"{term.method}: {text}" if several else text, link)
        for term, method in zip(terms, methods, strict=True)
        for text, link in method.reference.links
    ]
    papers = _distinct(method.doc for method in methods)
    return MethodFacts(
        family=" + ".join(_distinct(method.family for method in methods)) or UNKNOWN,
        year=" + ".join(_distinct(map(references.year, papers))),
        paper="; ".join(papers),
        links=tuple(dict.fromkeys(links)),
        bibtex="\n".join(_distinct(method.reference.bibtex for method in methods)),
        source="; ".join(_distinct(method.source for method in methods)),
    )


def _method(term: Term, evidence: Evidence) -> _Method:
    if term.source:
        known = evidence.plugins.get(term.source, PluginFacts(UNKNOWN, ""))
        reference = references.of_docstring(term.method, known.doc)
        return _Method(known.family, known.doc, _source(term, known), reference)
    try:
        about = lookup.describe(built_in_path(term.method))
    except UserError:
        return _Method(UNKNOWN, "", NOT_HERE, Reference())
    if about.external:  # a package on this machine has the name of a method of another kdbench
        return _Method(UNKNOWN, "", NOT_HERE, Reference())
    entry = references.of_built_in(term.method)
    reference = entry or references.of_docstring(term.method, about.doc)
    return _Method(about.family, about.doc, BUILT_IN, reference)


def _source(term: Term, known: PluginFacts) -> str:
    """Name the files of a method outside kdbench, and their digests."""
    digests = list(known.digests.items()) or [(term.method, str(term.source))]
    package = "" if term.path else f"{term.method} from a package: "
    if term.path:  # the same content may have another name elsewhere
        digests[0] = (PurePath(term.path).name, digests[0][1])
    return package + ", ".join(f"{name} (sha256 {digest[:DIGITS]})" for name, digest in digests)


def _distinct(texts: Iterable[str]) -> list[str]:
    """Return the texts that are not empty, once each."""
    return [text for text in dict.fromkeys(texts) if text]
