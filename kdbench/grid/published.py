"""Published accuracies from ``reference/results.csv``, looked up by kdbench's names.

``reference/protocols.csv`` gives the reported epoch and the objective of each kind of row,
``reference/settings.csv`` the hyper-parameters that the authors set for single pairs,
``reference/names.csv`` what kdbench calls a published method, and with which options.

A published figure is shown next to kdbench's but never compared in a test, because protocols differ
(last or best epoch, with or without a KL term, other teachers).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from kdbench.errors import did_you_mean
from kdbench.grid.published_names import Terms, key, plain, rows, stands_for
from kdbench.grid.run import BASELINES, pair_name
from kdbench.wording import counted

SECOND_HAND = "second-hand"
"""First remark on a figure that was quoted by a later document, and not seen in its own."""
QUOTED = "SECONDARY: "
"""Beginning of the notes of such figures in ``results.csv``."""
FIGURE = ("paper", "table", "method", "teacher", "student")
"""Columns that identify the figure of a setting."""


@dataclass(frozen=True)
class Published:
    """One published accuracy.

    Attributes:
        mean: top-1 accuracy in percent, as printed.
        sd: standard deviation, as printed; None if the source gives none.
        source: paper, table, and the document that the figure was copied from.
        notes: remarks on this figure: ``second-hand`` first, the number of trials, and those of
            the source.
        dataset: name in the source.
        epoch: ``last``, ``best`` (on the test set), or a remark if the source does not state it.
        objective: family of the objective. ``crd``: KD is 0.1 CE + 0.9 KD, other methods have no KD
            term; ``semckd``: every method has CE and KD at weight 1.
        setting: hyper-parameters, named as kdbench's, that the authors set for this pair.
        trials: number of runs that the mean is of; None if the source does not state it.
        printed: name of the method in the source.
    """

    mean: float
    sd: float | None
    source: str
    notes: str
    dataset: str
    epoch: str
    objective: str
    setting: Mapping[str, float]
    trials: int | None = None
    printed: str = ""

    @property
    def second_hand(self) -> bool:
        """Return whether the figure was quoted by a later document, and not seen in its own."""
        return is_second_hand(self.notes)


def is_second_hand(notes: str) -> bool:
    """Check whether ``Published.notes`` are those of a second-hand figure."""
    return notes.startswith(SECOND_HAND)


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
    reference: str,
    method: str,
    teacher: str,
    student: str,
    dataset: str | None = None,
    terms: Terms | None = None,
) -> Published | None:
    """Return a method's figure on a pair, or None if the table has none.

    Args:
        reference: a name that ``full_name`` accepts.
        method: label of the row: kdbench's name, terms joined by ``+`` in any order, or the
            published one; or ``teacher``, ``student``.
        teacher: architecture.
        student: architecture.
        dataset: only figures on this data set, in any spelling; None: any data set.
        terms: the row's methods with all hyper-parameters, where a published name stands for some;
            None: any.

    Raises:
        ValueError: as ``full_name``, or the table has figures on several data sets.
    """
    table = _tables()[full_name(reference)]
    figures = [
        figure
        for figure in table.get((teacher, student), ())
        if (dataset is None or plain(figure.dataset) == plain(dataset))
        and stands_for(figure.printed, method, terms or {})
    ]
    if len({figure.dataset for figure in figures}) > 1:
        raise ValueError(
            f"{reference}: {method}, {pair_name(teacher, student)}: on several data sets; "
            f"give one of {', '.join(sorted({figure.dataset for figure in figures}))}"
        )
    # The printed name first, so that a row may choose between two that stand for its method.
    return min(figures, key=lambda figure: key(figure.printed) != key(method), default=None)


def datasets(reference: str) -> list[str]:
    """Return the data sets of a table, named as in the source.

    Raises:
        ValueError: as ``full_name``.
    """
    figures = _tables()[full_name(reference)].values()
    return sorted({figure.dataset for group in figures for figure in group})


@cache
def _tables() -> dict[str, dict[tuple[str, str], list[Published]]]:
    tables: dict[str, dict[tuple[str, str], list[Published]]] = {}
    rules = {
        (row["paper"], row["table"], row["notes"]): (row["epoch"], row["objective"])
        for row in rows("protocols.csv")
    }
    settings: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows("settings.csv"):
        setting = settings.setdefault(tuple(row[name] for name in FIGURE), {})
        setting[row["option"]] = float(row["value"])
    for row in rows("results.csv"):
        epoch, objective = rules[row["paper"], row["table"], row["notes"]]
        figure = Published(
            mean=float(row["top1_mean"]),
            sd=float(row["top1_std"]) if row["top1_std"] else None,
            source=f"{row['paper']}, {row['table']}: {row['source']}",
            notes=_remarks(row["notes"], row["n_trials"]),
            dataset=row["dataset"],
            epoch=epoch,
            objective="CE alone" if row["method"] in BASELINES else objective,
            setting=settings.get(tuple(row[name] for name in FIGURE), {}),
            trials=int(row["n_trials"]) if row["n_trials"] else None,
            printed=row["method"],
        )
        table = tables.setdefault(f"{row['paper']}/{row['table']}", {})
        table.setdefault((row["teacher"], row["student"]), []).append(figure)
    return tables


def _remarks(notes: str, trials: str) -> str:
    """Return the notes of a row of ``results.csv`` with its origin and number of trials first."""
    origin = SECOND_HAND if notes.startswith(QUOTED) else ""
    count = f"mean of {counted(int(trials), 'trial')}" if trials else ""
    return "; ".join(filter(None, (origin, count, notes.removeprefix(QUOTED))))
