"""How many seeds would settle a difference, as a sentence."""

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
    needed = needed_seeds(typical, 1.0)
    if needed <= typical.n:
        return f"{typical.n} seeds suffice to find 1 point between two rows."
    return f"{about_seeds(needed)} seeds would find 1 point between two rows."


def _settle(contrast: Contrast, rows: int) -> str:
    row, other = contrast.row, contrast.other
    point = seed_count(needed_seeds(contrast, 1.0))
    if contrast.low <= 0 <= contrast.high:
        seen = about_seeds(needed_seeds(contrast, contrast.diff))
        return (
            f"{seen} seeds would settle {row} against {other} at the difference seen, {point} a "
            "difference of 1 point."
        )
    seen = about_seeds(needed_seeds(contrast, contrast.diff, over_seeds.ALPHA / (rows - 1)))
    return (
        f"{seen} seeds would tell {row} from {other} among all {rows} rows at the difference "
        f"seen, {point} would find 1 point between these two alone."
    )


def about_seeds(seeds: float) -> str:
    """Begin a sentence with a number of seeds, e.g. ``About 26`` or ``More than 100``."""
    return f"{'M' if seeds > MOST else 'About '}{seed_count(seeds).removeprefix('m')}"


def seed_count(seeds: float) -> str:
    """Format a number of seeds, e.g. ``26`` or ``more than 100``."""
    return "more than 100" if seeds > MOST else f"{seeds:.0f}"


def needed_seeds(contrast: Contrast, target: float, alpha: float = over_seeds.ALPHA) -> float:
    """Return the seeds that would detect a true difference of ``target`` points."""
    freedom = round(contrast.df, 9)  # over pairs, two seeds can give 0.99999...
    return over_seeds.seeds_needed(contrast.se, freedom, contrast.n, target, alpha)
