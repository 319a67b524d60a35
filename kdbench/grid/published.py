"""Published accuracies from ``reference/results.csv``, looked up by kdbench's names.

``reference/protocols.csv`` gives the reported epoch and the objective of each kind of row,
``reference/settings.csv`` the hyper-parameters that the authors set for single pairs.

A published figure is shown next to kdbench's but never compared in a test, because protocols differ
(last or best epoch, with or without a KL term, other teachers).
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from kdbench.errors import did_you_mean
from kdbench.grid.run import BASELINES, pair_name

OUR_NAMES = {"fitnet": "fitnets", "kr": "reviewkd"}
"""Published name of a method -> kdbench's, both in lower case; other names differ only in case.

torchdistill calls ReviewKD KR."""


FIGURE = ("paper", "table", "method", "teacher", "student")
"""Columns that identify the figure of a setting."""


@dataclass(frozen=True)
class Published:
    """One published accuracy.

    Attributes:
        mean: top-1 accuracy in percent, as printed.
        sd: standard deviation, as printed; None if the source gives none.
        source: paper, table, and the document that the figure was copied from.
        notes: remarks of the source on this figure.
        dataset: name in the source.
        epoch: ``last``, ``best`` (on the test set), or a remark if the source does not state it.
        objective: family of the objective. ``crd``: KD is 0.1 CE + 0.9 KD, other methods have no KD
            term; ``semckd``: every method has CE and KD at weight 1.
        setting: hyper-parameters, named as kdbench's, that the authors set for this pair.
    """

    mean: float
    sd: float | None
    source: str
    notes: str
    dataset: str
    epoch: str
    objective: str
    setting: Mapping[str, float]


def references() -> list[str]:
    """Return the names of all tables, "PAPER/TABLE"."""
    return list(_tables())


def full_name(reference: str) -> str:
    """Return the name of a table; text after the table's number may be left out.

    Raises:
        ValueError: no table, or several, have this name; one line.
    """
    names = references()
    if reference in names:
        return reference
    matches = [name for name in names if name.startswith(f"{reference} ")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(
            f"report.reference: {reference}: not unique; accepted: {'; '.join(matches)}"
        )
    hint = did_you_mean(reference, names, cutoff=0.4)
    raise ValueError(f"report.reference: {reference}: unknown; accepted: {'; '.join(names)}{hint}")


def lookup(
    reference: str, method: str, teacher: str, student: str, dataset: str | None = None
) -> Published | None:
    """Return a method's figure on a pair, or None if the table has none.

    Args:
        reference: a name that ``full_name`` accepts.
        method: kdbench's name, terms joined by ``+`` in any order; or ``teacher``, ``student``.
        teacher: architecture.
        student: architecture.
        dataset: only figures on this data set, in any spelling; None: any data set.

    Raises:
        ValueError: as ``full_name``, or the table has figures on several data sets.
    """
    table = _tables()[full_name(reference)]
    figures = [
        figure
        for figure in table.get((_method_key(method), teacher, student), ())
        if dataset is None or _plain(figure.dataset) == _plain(dataset)
    ]
    if len({figure.dataset for figure in figures}) > 1:
        raise ValueError(
            f"{reference}: {method}, {pair_name(teacher, student)}: on several data sets; "
            f"give one of {', '.join(sorted({figure.dataset for figure in figures}))}"
        )
    return figures[0] if figures else None


def datasets(reference: str) -> list[str]:
    """Return the data sets of a table, named as in the source.

    Raises:
        ValueError: as ``full_name``.
    """
    figures = _tables()[full_name(reference)].values()
    return sorted({figure.dataset for group in figures for figure in group})


@cache
def _tables() -> dict[str, dict[tuple[str, str, str], list[Published]]]:
    tables: dict[str, dict[tuple[str, str, str], list[Published]]] = {}
    rules = {
        (row["paper"], row["table"], row["notes"]): (row["epoch"], row["objective"])
        for row in _rows("protocols.csv")
    }
    settings: dict[tuple[str, ...], dict[str, float]] = {}
    for row in _rows("settings.csv"):
        setting = settings.setdefault(tuple(row[name] for name in FIGURE), {})
        setting[row["option"]] = float(row["value"])
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
            setting=settings.get(tuple(row[name] for name in FIGURE), {}),
        )
        table = tables.setdefault(f"{row['paper']}/{row['table']}", {})
        key = (_method_key(row["method"]), row["teacher"], row["student"])
        table.setdefault(key, []).append(figure)
    return tables


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("kdbench.grid.reference").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _method_key(method: str) -> str:
    """Return kdbench's name of a method in lower case, with its terms sorted."""
    parts = [_plain(part) for part in method.split("+")]
    return "+".join(sorted(OUR_NAMES.get(part, part) for part in parts))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
