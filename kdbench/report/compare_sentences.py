"""The conclusion of ``kdbench compare`` in words, and its numbers as plain values."""

import math
from collections.abc import Iterator
from typing import Any

from kdbench.report.compare import Comparison, Noisy
from kdbench.report.numbers import interval, number, signed, with_interval
from kdbench.report.text.decision_sentences import adjusted
from kdbench.report.text.seeds_needed import about_seeds, needed_seeds, seed_count
from kdbench.stats.over_seeds import ALPHA
from kdbench.stats.paired_differences import Contrast
from kdbench.wording import counted

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
OF_INTEREST = 1.0
"""A difference in points that is worth finding, besides the one that was seen."""


def verdict(comparison: Comparison) -> str:
    """Return the conclusion in a word or two, from the interval of this comparison alone.

    Returns:
        ``better`` or ``worse``: the interval excludes 0; ``the same``: it lies within the margin;
        ``not settled``: neither; ``no interval``; ``no common seeds``.
    """
    contrast, tie = comparison.contrast, comparison.tie
    if contrast is None:
        return "no common seeds"
    if not contrast.known:
        return "no interval"
    if contrast.low > 0 or contrast.high < 0:
        return "better" if contrast.diff > 0 else "worse"
    return "the same" if -tie <= contrast.low and contrast.high <= tie else "not settled"


def within_margin(comparison: Comparison) -> bool:
    """Check whether the interval lies within the margin."""
    contrast, tie = comparison.contrast, comparison.tie
    return contrast is not None and -tie <= contrast.low and contrast.high <= tie


def sentence(comparison: Comparison) -> str:
    """State in one line what the evidence shows."""
    row, other, contrast = comparison.row, comparison.other, comparison.contrast
    word = verdict(comparison)
    if contrast is None:
        reasons = "; ".join(dict.fromkeys(comparison.lacking.values())) or "no pairs"
        return f"{row} and {other} cannot be compared: {reasons}."
    difference = f"{signed(contrast.diff)} points"
    if word == "no interval":
        why = _why_no_interval(comparison)
        return f"{row} or {other} is not settled: {difference}, {_where(comparison)}; {why}."
    effect = f"{difference} {interval(contrast.low, contrast.high)}, {_where(comparison)}, "
    effect += f"{counted(contrast.n, 'seed')}."
    margin = f"{number(comparison.tie)} points"
    if word == "the same":
        return f"{row} and {other} are the same to within {margin}: {effect}"
    if word == "not settled":
        return f"{row} or {other} is not settled: {effect} {_open(comparison, contrast)}"
    less = f" by less than {margin}" if within_margin(comparison) else ""
    return f"{row} is {word} than {other}{less}: {effect}{_among(comparison, contrast)}"


def _where(comparison: Comparison) -> str:
    """Return the pairs that the difference is the mean of, e.g. ``mean of 2 pairs``."""
    used, total = len(comparison.compared), comparison.total
    if total == 1:
        return comparison.compared[0]
    if used == total:
        return f"mean of {total} pairs"
    return f"mean of {used} of {total} pairs" if used > 1 else f"1 of {total} pairs"


def _among(comparison: Comparison, contrast: Contrast) -> str:
    rows = comparison.rows
    if rows < 3:  # nothing to pick from
        return ""
    if contrast.told:
        return f" Among all {rows} rows: adjusted p {adjusted(contrast.p_adj)}."
    return (
        f" Picked out of {rows} rows, it would not count (adjusted p {adjusted(contrast.p_adj)})."
    )


def _open(comparison: Comparison, contrast: Contrast) -> str:
    """Return how large the difference may be, and how many seeds would settle it."""
    text = (
        f"{comparison.row} may be up to {number(contrast.high)} better, "
        f"{comparison.other} up to {number(-contrast.low)}."
    )
    seen = needed_seeds(contrast, contrast.diff)
    if math.isnan(seen):  # too few degrees of freedom
        return text
    return (
        f"{text} {about_seeds(seen)} seeds would settle a difference of this size, "
        f"{seed_count(needed_seeds(contrast, OF_INTEREST))} one of 1 point."
    )


def _why_no_interval(comparison: Comparison) -> str:
    of_pair = {name: comparison.pairs[name] for name in comparison.compared}
    lacking = {name: c for name, c in of_pair.items() if not c.known}
    single = [name for name, c in lacking.items() if c.n < 2]
    why = "one seed in common" if single else "all seeds differ by the same"
    names = single or list(lacking)
    where = f" on {', '.join(names)}" if len(names) < comparison.total else ""
    return f"{why}{where}: no interval"


def noise(noisy: Noisy) -> str:
    """State that a row is judged by its own runs."""
    n = WORDS[noisy.n] if noisy.n < len(WORDS) else f"{noisy.n:,}"
    spread = number(noisy.sd)
    return f"{noisy.row} is noisy on {noisy.pair} (spread {spread}): judged by its own {n} runs."


def lines(comparison: Comparison) -> list[str]:
    """Return the conclusion of ``sentence``, remarks on it, and a line per pair."""
    return [sentence(comparison), *_remarks(comparison), *_pair_lines(comparison)]


def _remarks(comparison: Comparison) -> Iterator[str]:
    yield from map(noise, comparison.noisy)
    for (pair, row), text in comparison.troubles.items():
        yield f"{row} on {pair}: {text}; the mean is that of the others."
    if comparison.headline.held_out:
        yield "Accuracies are of held-out training images. Choose with kdbench select."
    if comparison.protocols:
        first, second = comparison.protocols
        yield (
            f"ATTENTION: {comparison.row} under {first}, {comparison.other} under {second}: the "
            "difference includes the effect of the protocols."
        )
    yield from (f"ATTENTION: {note.removesuffix('.')}." for note in comparison.notes)


def _pair_lines(comparison: Comparison) -> Iterator[str]:
    for name, contrast in comparison.pairs.items():
        text = with_interval(contrast.diff, contrast.low, contrast.high)
        df = f", df {number(contrast.df, 1)}" if contrast.known else ", no interval"
        out = "" if name in comparison.compared else ", left out of the mean"
        yield f"  {name}: {text}, {counted(contrast.n, 'seed')}{df}{out}"
    yield from (f"  {name}: left out, {reason}" for name, reason in comparison.lacking.items())


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the numbers behind the sentence; what is unknown is nan, or None."""
    contrast = comparison.contrast
    return {
        "a": comparison.row,
        "b": comparison.other,
        "verdict": verdict(comparison),
        "sentence": sentence(comparison),
        "remarks": list(_remarks(comparison)),
        "accuracy": comparison.headline.name,
        "margin": comparison.tie,
        "within_margin": within_margin(comparison),
        "rows": comparison.rows,
        "over_pairs": None
        if contrast is None
        else {
            "pairs": list(comparison.compared),
            **_numbers(contrast),
            "told_apart": contrast.told,
            "seeds_needed": _needed(contrast, comparison.rows),
        },
        "pairs": [
            {"pair": name, **_numbers(one), "sd": one.sd, "noisy": _noisy_rows(comparison, name)}
            for name, one in comparison.pairs.items()
        ],
        "left_out": dict(comparison.lacking),
        "protocols": comparison.protocols,
    }


def _numbers(contrast: Contrast) -> dict[str, float]:
    keys = ("diff", "low", "high", "se", "df", "n", "p", "p_adj")
    return {key: getattr(contrast, key) for key in keys}


def _needed(contrast: Contrast, rows: int) -> dict[str, dict[str, float]]:
    """Return seeds that would find the difference seen, and one of 1 point.

    Both by this comparison alone, and after allowing for all rows of the table.
    """
    levels = {"alone": ALPHA, "among_all_rows": ALPHA / max(1, rows - 1)}
    return {
        name: {
            "difference_seen": needed_seeds(contrast, contrast.diff, alpha),
            "one_point": needed_seeds(contrast, OF_INTEREST, alpha),
        }
        for name, alpha in levels.items()
    }


def _noisy_rows(comparison: Comparison, pair: str) -> list[str]:
    return [noisy.row for noisy in comparison.noisy if noisy.pair == pair]
