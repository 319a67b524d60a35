"""CSV for spreadsheets, which evaluate cells that begin like a formula."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20].", re.DOTALL)
"""Beginnings that spreadsheets take for a formula, in ASCII or full width."""


def csv(frame: "pd.DataFrame", *, digits: int) -> str:
    """Return a data frame as CSV; an apostrophe keeps text from being calculated as a formula.

    Args:
        frame: the data; its index is left out.
        digits: significant digits of numbers.
    """
    harmless = frame.rename(columns=_harmless)
    for place, kind in enumerate(frame.dtypes):
        column = harmless.iloc[:, place]
        if kind.kind not in "biufcmM" and any(_harmless(cell) is not cell for cell in column):
            harmless = harmless.assign(**{harmless.columns[place]: [*map(_harmless, column)]})
    return str(harmless.to_csv(index=False, lineterminator="\n", float_format=f"%.{digits}g"))


def _harmless(cell: Any) -> Any:
    """Return a cell, with an apostrophe before text that a spreadsheet would calculate."""
    if not isinstance(cell, str):
        return cell
    if FORMULA.match(cell) and not _is_number(cell):
        cell = f"'{cell}"
    return cell.replace("\r", " ") if "\r" in cell else cell  # pandas would not quote it


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
