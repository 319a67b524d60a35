"""Learning curves, encoded compactly for a page: two characters a point.

As digits, a few hundred runs of a few hundred epochs would take many megabytes.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

from kdbench.runs.evidence import History

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LEVELS = len(ALPHABET) ** 2 - 2
"""Steps from 0 to 100 %: 0.0244 points each, finer than a pixel."""
NOTHING = "__"
"""An epoch without a finite accuracy."""

POINTS = 240
"""The most points of a curve."""
FEWEST = 30
"""Curves with fewer points are useless: if they would be needed, no curve is stored."""
BUDGET = 1_000_000
"""Characters that all curves of a page may take together."""


def pack(
    run_ids: Iterable[str],
    history: Callable[[str], History],
    budget: int = BUDGET,
    *,
    key: str = "test_acc",
) -> tuple[dict[str, list[Any]], int]:
    """Encode each run's accuracy per epoch: ``[first epoch, last epoch, encoded points]``.

    If the curves exceed the budget, all are thinned alike; if that does not suffice, all are left
    out.

    Args:
        run_ids: of the runs.
        history: returns a run's rows.
        budget: characters for all curves together.
        key: of the accuracy in these rows, see ``Headline.key``.

    Returns:
        The curves of the runs that have one, and the number of points of the longest; 0 if existing
        curves are left out.
    """
    histories = {}
    least = 0
    for run_id in dict.fromkeys(run_ids):
        rows = history(run_id)
        if len(rows) > 1:
            histories[run_id] = [
                (int(row.get("epoch", i)), row.get(key, math.nan)) for i, row in enumerate(rows, 1)
            ]
            least += 2 * min(len(rows), FEWEST)
            if least > budget:  # no need to read the rest
                return {}, 0
    points = POINTS
    while sum(2 * min(len(rows), points) for rows in histories.values()) > budget:
        points //= 2
        if points < FEWEST:
            return {}, 0
    curves = {
        run_id: [rows[0][0], rows[-1][0], encode(acc for _, acc in thin(rows, points))]
        for run_id, rows in histories.items()
    }
    return curves, max((min(len(rows), points) for rows in histories.values()), default=points)


def thin(rows: list[tuple[int, float]], points: int) -> list[tuple[int, float]]:
    """Select at most ``points`` rows, evenly spaced, including the first and the last."""
    last = len(rows) - 1
    if last < points:
        return rows
    return [rows[(2 * i * last + points - 1) // (2 * (points - 1))] for i in range(points)]


def encode(accuracies: Iterable[float]) -> str:
    """Encode accuracies in percent as two characters each."""
    texts = []
    for accuracy in accuracies:
        if not math.isfinite(accuracy):
            texts.append(NOTHING)
            continue
        level = round(min(max(accuracy, 0.0), 100.0) / 100 * LEVELS)
        texts.append(ALPHABET[level // 64] + ALPHABET[level % 64])
    return "".join(texts)


def decode(text: str) -> list[float]:
    """Decode the output of ``encode``, as the page's script does."""
    codes = [text[i : i + 2] for i in range(0, len(text), 2)]
    return [
        math.nan
        if code == NOTHING
        else (64 * ALPHABET.index(code[0]) + ALPHABET.index(code[1])) / LEVELS * 100
        for code in codes
    ]
