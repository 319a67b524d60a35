"""Published accuracies beside ours: for the eye, in no ranking and no test."""

import math
from typing import TYPE_CHECKING

from kdbench.report.numbers import signed, spread
from kdbench.report.tables.table import Table, rows_of, wide

if TYPE_CHECKING:
    import pandas as pd


def published_figures(frame: "pd.DataFrame", reference: str) -> Table:
    """Published accuracies, how far ours is from them, and how each was come by.

    Args:
        frame: of ``tidy``. reference: the table they are from.
    """
    rows = frame[frame["published_mean"].notna()]
    marks: dict[tuple[str, str, str, str], str] = {}
    texts = {}
    for key, row in rows_of(rows):
        ours = "" if math.isnan(row.published_diff) else f" (ours {signed(row.published_diff)})"
        way = (
            row.published_epoch,
            row.published_objective,
            row.published_source,
            row.published_notes,
        )
        mark = marks.setdefault(way, _letter(len(marks)))
        texts[key] = f"{spread(row.published_mean, row.published_sd)}{ours} {mark}"
    notes = [
        _coverage(frame),
        "Published mean ± sd as printed; in brackets: this page's mean less the published one, in "
        "points. Published figures are in no ranking, no bold and no test of this page.",
    ]
    for (epoch, objective, source, said), mark in marks.items():
        more = f" ({said})" if said else ""
        notes.append(f"{mark}: epoch: {epoch}; objective: {objective}; source: {source}{more}.")
    return Table(f"Published: {reference}", wide(rows, texts), notes=tuple(notes))


def _coverage(frame: "pd.DataFrame") -> str:
    known = frame["published_mean"].notna()
    both = known & (frame["n"] > 0)
    return (
        f"{int(known.sum())} of {len(frame)} cells have a published figure, {int(both.sum())} of "
        "them a result of ours, too."
    )


def _letter(number: int) -> str:
    """a to z, then aa, ab, ..."""
    letters = ""
    number += 1
    while number:
        number, last = divmod(number - 1, 26)
        letters = chr(ord("a") + last) + letters
    return letters
