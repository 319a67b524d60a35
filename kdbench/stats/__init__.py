"""Statistics of records, over seeds and over pairs, with intervals and tests."""

from kdbench.stats.over_seeds import (
    ALPHA,
    POWER,
    average_relative_improvement,
    detectable,
    gaps,
    holm,
    mean,
    recovered_gap,
    relative_improvements,
    spread,
    standard_error,
    t_interval,
    t_quantile,
    unreliable,
)

__all__ = [
    "ALPHA",
    "POWER",
    "average_relative_improvement",
    "detectable",
    "gaps",
    "holm",
    "mean",
    "recovered_gap",
    "relative_improvements",
    "spread",
    "standard_error",
    "t_interval",
    "t_quantile",
    "unreliable",
]
