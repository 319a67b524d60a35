"""Published accuracies, looked up by our names: ``reference/results.csv`` and nothing else.

``reference/protocols.csv`` says of each kind of row which epoch it reports and by what objective.

A published figure is shown beside ours, never compared by a test: protocols differ (last or best
epoch, with or without a KL term, other teachers); ``notes`` says what its source says.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from kdbench.errors import did_you_mean
from kdbench.grid.run import BASELINES, pair_name

OURS = {"fitnet": "fitnets", "kr": "reviewkd"}
"""Their name -> ours, both in small letters; the other names are the same but for their capitals.

KR is what torchdistill calls ReviewKD."""


@dataclass(frozen=True)
class Published:
    """One figure.

    Attributes:
        mean, sd: top-1 accuracy in percent, as printed; ``sd`` is None where none is.
        source: paper and table, and where they were read.
        notes: what the source says of it.
        dataset: as the source calls it.
        epoch: which epoch's accuracy it is: ``last``, ``best`` (of the test set), or what is known.
        objective: its family. ``crd``: KD is 0.1 CE + 0.9 KD, other methods have no KD term;
            ``semckd``: every method has CE and KD at weight 1.
    """

    mean: float
    sd: float | None
    source: str
    notes: str
    dataset: str
    epoch: str
    objective: str


def references() -> list[str]:
    """Every "PAPER/TABLE" there is."""
    return list(_tables())


def known(reference: str) -> bool:
    """Whether there is such a table, and only one; ``references()`` lists them."""
    try:
        check(reference)
    except ValueError:
        return False
    return True


def lookup(
    reference: str, method: str, teacher: str, student: str, dataset: str | None = None
) -> Published | None:
    """The figure of a method on a pair, or None where that table has none.

    Args:
        reference: "PAPER/TABLE" as in the CSV; what follows the table's number may be left out.
        method: our name of it, terms joined by ``+`` in any order; or ``teacher``, ``student``.
        teacher, student: architectures.
        dataset: only a figure on this data, whatever its spelling; None: whatever the table's.

    Raises:
        ValueError: there is no such table, or its name is not unique.
    """
    table = _tables()[_resolve(reference)]
    found = [
        figure
        for figure in table.get((_ours(method), teacher, student), ())
        if dataset is None or _plain(figure.dataset) == _plain(dataset)
    ]
    if len({figure.dataset for figure in found}) > 1:
        raise ValueError(f"{reference}: {method}, {pair_name(teacher, student)}: which data set?")
    return found[0] if found else None


def datasets(reference: str) -> list[str]:
    """The data sets of a table, as its source calls them.

    Raises:
        ValueError: there is no such table, or its name is not unique.
    """
    figures = _tables()[_resolve(reference)].values()
    return sorted({figure.dataset for group in figures for figure in group})


@cache
def _tables() -> dict[str, dict[tuple[str, str, str], list[Published]]]:
    tables: dict[str, dict[tuple[str, str, str], list[Published]]] = {}
    rules = {
        (row["paper"], row["table"], row["notes"]): (row["epoch"], row["objective"])
        for row in _rows("protocols.csv")
    }
    for row in _rows("results.csv"):
        epoch, objective = rules[row["paper"], row["table"], row["notes"]]
        figure = Published(
            mean=float(row["top1_mean"]),
            sd=float(row["top1_std"]) if row["top1_std"] else None,
            source=f"{row['paper']}, {row['table']}: {row['source']}",
            notes=row["notes"],
            dataset=row["dataset"],
            epoch=epoch,
            objective="CE alone" if row["method"] in BASELINES else objective,
        )
        table = tables.setdefault(f"{row['paper']}/{row['table']}", {})
        key = (_ours(row["method"]), row["teacher"], row["student"])
        table.setdefault(key, []).append(figure)
    return tables


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("kdbench.grid.reference").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def check(reference: str) -> None:
    """Nothing, where there is such a table.

    Raises:
        ValueError: there is none, or its name is not unique; one line, with the nearest name.
    """
    _resolve(reference)


def _resolve(reference: str) -> str:
    """The table's full name."""
    names = references()
    if reference in names:
        return reference
    found = [name for name in names if name.startswith(f"{reference} ")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"report.reference: {reference}: which of {'; '.join(found)}?")
    hint = did_you_mean(reference, names, cutoff=0.4)
    raise ValueError(f"report.reference: {reference}: unknown; accepted: {'; '.join(names)}{hint}")


def _ours(method: str) -> str:
    """A method's name as both sides write it: small letters, terms in one order."""
    parts = [_plain(part) for part in method.split("+")]
    return "+".join(sorted(OURS.get(part, part) for part in parts))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
