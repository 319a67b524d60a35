"""Marks of rows and differences, and the sentences that explain them: the same in every format."""

from kdbench.report.numbers import number
from kdbench.stats.decision import Decision
from kdbench.stats.paired_differences import Contrast
from kdbench.stats.recommendation import Recommendation

LEADING, UNPLACED, BETTER, WORSE = "●", "?", "▲", "▼"


def of_row(recommendation: Recommendation, row: str) -> str:
    """Return ● if a method may be the best, ? if it cannot be placed; "" otherwise.

    ● is left out if ● and ? together would mark more than half of the methods.
    """
    state = recommendation.state.get(row)
    if state == "unplaced":
        return UNPLACED
    return LEADING if state == "leading" and recommendation.shade else ""


def of_difference(contrast: Contrast | None) -> str:
    """Return ▲ or ▼ if the first row is better or worse after allowing for all rows."""
    if contrast is None or not contrast.told:
        return ""
    return BETTER if contrast.better else WORSE


def with_mark(text: str, mark: str) -> str:
    """Append a mark to a text."""
    return f"{text} {mark}" if mark else text


def legend(decision: Decision) -> str:
    """Explain marks, brackets and columns of the table over pairs; "" if nothing was compared."""
    if not decision.rows:
        return ""
    parts = []
    if decision.baseline:
        parts.append(
            f"{BETTER}{WORSE}: better or worse than {decision.baseline} after allowing for all "
            f"{decision.rows} rows (5 %)."
        )
    recommendation = decision.recommendation
    marked = sum(state != "behind" for state in recommendation.state.values())
    parts.append(
        f"{LEADING}: may be the best (the true best is among {LEADING} and {UNPLACED} with 95 %)."
        if recommendation.shade or not marked
        else f"{LEADING} is not shown: {LEADING} and {UNPLACED} would mark more than half of the "
        "methods."
    )
    if recommendation.why:
        parts.append(f"{UNPLACED}: cannot be placed.")
    parts += [
        "Brackets: 95 % interval for one comparison; of 20 such intervals of equal rows one "
        "excludes 0 by chance.",
        "Behind: with 95 %, at most so many points below the best.",
        "Rank: range that holds the true rank with 95 %.",
        "Spread of a difference: weighted between the row's own and the pair's.",
    ]
    return " ".join(parts)


def noisy_rows(decision: Decision) -> list[str]:
    """Name the rows whose runs differ too much for the pair's spread to hold for them."""
    lines = []
    for name, one in decision.pairs.items():
        for row in one.noisy:
            lines.append(
                f"{row} is noisy on {name} (spread {number(one.sds[row])}): judged by its own runs."
            )
    return lines
