"""Published accuracies next to ours, for comparison by eye; never ranked or tested."""

import math
from typing import TYPE_CHECKING

from kdbench.grid import published
from kdbench.report.numbers import signed, spread
from kdbench.report.tables.table import Table, rows_of, wide

if TYPE_CHECKING:
    import pandas as pd


def published_figures(frame: "pd.DataFrame", reference: str) -> Table:
    """Tabulate published accuracies, their difference to ours, and how they were obtained.

    Args:
        frame: of ``cell_table``.
        reference: name of the published table.
    """
    rows = frame[frame["published_mean"].notna()]
    marks: dict[tuple[str, str, str, str], str] = {}
    texts = {}
    for key, row in rows_of(rows):
        asides = [
            *(["second-hand"] if published.is_second_hand(row.published_notes) else []),
            *([] if math.isnan(row.published_diff) else [f"ours {signed(row.published_diff)}"]),
        ]
        aside = f" ({', '.join(asides)})" if asides else ""
        origin = (
            row.published_epoch,
            row.published_objective,
            row.published_source,
            row.published_notes,
        )
        mark = marks.setdefault(origin, _letter(len(marks)))
        texts[key] = f"{spread(row.published_mean, row.published_sd)}{aside} {mark}"
    notes = [
        _coverage(frame),
        "Published mean ± sd as printed; in brackets: this page's mean minus the published one, in "
        "points. Published figures are not ranked, tested or set in bold on this page.",
    ]
    if rows["published_notes"].map(published.is_second_hand).any():
        notes.append("Second-hand: quoted by a later document, and not seen in its own.")
    for (epoch, objective, source, remarks), mark in marks.items():
        more = f" ({remarks})" if remarks else ""
        notes.append(f"{mark}: epoch: {epoch}; objective: {objective}; source: {source}{more}.")
    return Table(f"Published: {reference}", wide(rows, texts), notes=tuple(notes))


def _coverage(frame: "pd.DataFrame") -> str:
    has_figure = frame["published_mean"].notna()
    has_both = has_figure & (frame["n"] > 0)
    return (
        f"{int(has_figure.sum())} of {len(frame)} cells have a published figure; "
        f"{int(has_both.sum())} of these also have a result of ours."
    )


def _letter(number: int) -> str:
    """Return the letter of a number: a to z, then aa, ab, ..."""
    letters = ""
    number += 1
    while number:
        number, last = divmod(number - 1, 26)
        letters = chr(ord("a") + last) + letters
    return letters
