"""Comparisons of rows as values, with the same keys in every document."""

from typing import Any

from kdbench.stats.paired_differences import Contrast


def contrast(contrast: Contrast) -> dict[str, Any]:
    """Return the difference ``row - other``; what is unknown is nan."""
    return {
        "row": contrast.row,
        "other": contrast.other,
        "pairs": contrast.pairs,
        "seeds": contrast.n,
        "diff_points": contrast.diff,
        "low_points": contrast.low,
        "high_points": contrast.high,
        "se_points": contrast.se,
        "df": contrast.df,
        "sd_points": contrast.sd,
        "p": contrast.p,
        "p_adjusted": contrast.p_adj,
        "told_apart": contrast.told,
    }


def pair_name(name: str) -> str:
    """Return a pair's name in a report as grid files write it, as all documents do."""
    return name.replace(" → ", " -> ")
