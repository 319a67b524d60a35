"""The differences between all rows, packed for the page's script.

All are rounded here, as all other outputs round them, so that the page shows the same brackets.
"""

from collections.abc import Sequence
from typing import Any

from kdbench.report import numbers
from kdbench.stats.decision import Decision
from kdbench.stats.paired_differences import Contrast, Contrasts

MOST = 20_000
"""Most differences on a page, about 20 characters each; of more, none is stored."""


def pack(decision: Decision) -> dict[str, Any]:
    """Pack the differences of all rows over pairs and on each pair.

    Returns:
        ``rows``: the labels; ``over``: the differences of the rows i < j, row by row, over pairs;
        ``pairs``: name of a pair -> the same on it. A difference is ``[difference, low, high, p]``
        in hundredths of a point, p adjusted for all rows in thousandths (0: less than one),
        ``[difference]`` without an interval, or 0 without a common seed. Both are empty if there
        are more than ``MOST`` differences.
    """
    rows = list(dict.fromkeys(row for one in decision.pairs.values() for row in one.means))
    scopes = 1 + len(decision.pairs)
    if len(rows) * (len(rows) - 1) // 2 * scopes > MOST:
        return {"rows": [], "over": [], "pairs": {}}
    return {
        "rows": rows,
        "over": _scope(rows, decision.over.contrasts),
        "pairs": {name: _scope(rows, one.contrasts) for name, one in decision.pairs.items()},
    }


def _scope(rows: Sequence[str], contrasts: Contrasts) -> list[Any]:
    both = [(row, other) for i, row in enumerate(rows) for other in rows[i + 1 :]]
    return [_packed(contrasts.get(key)) for key in both]


def _packed(contrast: Contrast | None) -> Any:
    if contrast is None or not numbers.known(contrast.diff):
        return 0
    if not contrast.known:
        return [_scaled(contrast.diff, 2)]
    p = 0 if contrast.p_adj < 0.001 else _scaled(contrast.p_adj, 3)
    return [*(_scaled(value, 2) for value in (contrast.diff, contrast.low, contrast.high)), p]


def _scaled(value: float, digits: int) -> int:
    """Return the digits that ``value`` is printed with, as a whole number."""
    return int(f"{value:.{digits}f}".replace(".", ""))
