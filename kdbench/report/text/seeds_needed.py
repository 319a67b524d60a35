"""How many seeds would settle a difference, as a sentence."""

import math

from kdbench.stats import over_seeds
from kdbench.stats.decision import Decision
from kdbench.stats.paired_differences import Contrast

MOST = 100
"""Above this number no number of seeds is named."""


def seeds_sentence(decision: Decision) -> str:
    """Say how many seeds would settle the leader against the baseline, or find 1 point.

    Returns:
        The sentence; empty if no difference over pairs has an interval.
    """
    contrasts, leader = decision.over.contrasts, decision.recommendation.leader
    baseline = decision.baseline
    if leader and baseline and leader != baseline and (leader, baseline) in contrasts:
        contrast = contrasts[leader, baseline]
        if contrast.known and not contrast.told:
            return _settle(contrast, decision.rows)
    known = sorted((c for c in contrasts.once() if c.known), key=lambda c: c.se)
    if not known:
        return ""
    typical = known[len(known) // 2]
    needed = _needed(typical, 1.0, over_seeds.ALPHA)
    if needed <= typical.n:
        return f"{typical.n} seeds suffice to find 1 point between two rows."
    return f"{_about(needed)} seeds would find 1 point between two rows."


def _settle(contrast: Contrast, rows: int) -> str:
    row, other = contrast.row, contrast.other
    point = _count(_needed(contrast, 1.0, over_seeds.ALPHA))
    if contrast.low <= 0 <= contrast.high:
        seen = _about(_needed(contrast, contrast.diff, over_seeds.ALPHA))
        return (
            f"{seen} seeds would settle {row} against {other} at the difference seen, {point} a "
            "difference of 1 point."
        )
    seen = _about(_needed(contrast, contrast.diff, over_seeds.ALPHA / (rows - 1)))
    return (
        f"{seen} seeds would tell {row} from {other} among all {rows} rows at the difference "
        f"seen, {point} would find 1 point between these two alone."
    )


def _about(seeds: float) -> str:
    return f"{'M' if seeds > MOST else 'About '}{_count(seeds).removeprefix('m')}"


def _count(seeds: float) -> str:
    return "more than 100" if seeds > MOST else f"{seeds:.0f}"


def _needed(contrast: Contrast, target: float, alpha: float) -> float:
    least = over_seeds.detectable(contrast.se, contrast.df, alpha)
    if not target:
        return math.inf
    return max(contrast.n, math.ceil(contrast.n * (least / target) ** 2))
