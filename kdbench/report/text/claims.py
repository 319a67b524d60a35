"""The claims that the evidence supports and those that it does not, as text."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kdbench.grid.grid import Grid
from kdbench.report.numbers import signed
from kdbench.report.text.markdown import escape
from kdbench.runs.records import Result
from kdbench.stats import over_seeds
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import first_result
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd

NOT_STATED = "Not stated in the grid file."
LISTED = 12
"""Largest number of significant differences that are listed."""


def claims(aggregate: Aggregate) -> str:
    """Write supported and unsupported claims as Markdown."""
    supports, against = claim_lines(aggregate)
    lines = ["**What this supports**", *_items(supports)]
    lines += ["", "**What this does not support**", *_items(against)]
    return "\n".join(lines) + "\n"


def claim_lines(aggregate: Aggregate) -> tuple[list[str], list[str]]:
    """Return supported and unsupported claims as plain sentences."""
    evidence, frame, baseline = aggregate.evidence, aggregate.frame, aggregate.methods.baseline
    grid = evidence.grid
    against = [grid.report.against.strip() or NOT_STATED]
    against += _test_set(first_result(evidence.cells, evidence.records), frame)
    against += _seeds(frame, baseline)
    against.append(_one_teacher(grid))
    supports = [grid.report.supports.strip() or NOT_STATED]
    supports += _significant_differences(frame, baseline)
    return supports, against


def _items(texts: Iterable[str]) -> list[str]:
    return ["", *(f"- {escape(text)}" for text in texts)]


def _significant_differences(frame: "pd.DataFrame", baseline: str | None) -> list[str]:
    """List the significant differences to the baseline."""
    tested = frame[frame["p_holm"].notna()]
    if baseline is None or tested.empty:
        return []
    significant = tested[tested["p_holm"] < over_seeds.ALPHA]
    first = significant.head(LISTED)
    texts = [
        f"{method} on {pair} ({signed(diff)})"
        for method, pair, diff in zip(first["method"], first["pair"], first["diff"], strict=True)
    ]
    if len(significant) > LISTED:
        texts.append(f"and {len(significant) - LISTED} more")
    return [
        f"Significantly different from {baseline} (paired t test, two-sided 5 %, Holm-adjusted "
        f"within each pair): {len(significant)} of {len(tested)}"
        f"{': ' + '; '.join(texts) if texts else ''}."
    ]


def _test_set(first: Result | None, frame: "pd.DataFrame") -> list[str]:
    means = frame.loc[(frame["method"] != "teacher") & (frame["n"] > 0), "mean"]
    if first is None or means.empty:
        return []
    typical, n_test = float(means.mean()), first.n_test
    se = over_seeds.standard_error(typical, n_test)
    return [
        f"Test set: an accuracy of {typical:.1f} % on {n_test:,} images has a standard error of "
        f"{se:.2f} points. All methods share these images; conclusions hold for this test set only."
    ]


def _seeds(frame: "pd.DataFrame", baseline: str | None) -> list[str]:
    """State the smallest difference to the baseline that these seeds detect with power 80 %."""
    if baseline is None:
        return ["Differences: the report's baseline is not a row of this grid."]
    rows = frame[(frame["diff_n"] > 1) & (frame["method"] != "student")]
    if rows.empty:
        return [
            f"Differences: fewer than two seeds in common with {baseline}; no difference between "
            "methods can be tested."
        ]
    pairs = zip(rows["diff_n"], rows["diff_sd"], strict=True)
    nan = math.nan
    sd = over_seeds.pooled_sd(
        over_seeds.Difference(int(n), nan, float(s), nan, nan, nan) for n, s in pairs
    )
    n = int(rows["diff_n"].median())
    least = over_seeds.detectable_difference(sd, n)
    return [
        f"Differences: with {counted(n, 'seed')} and a pooled standard deviation of paired "
        f"differences to {baseline} of {sd:.2f} points, a paired t test (two-sided 5 %) has "
        f"power below 80 % for true differences under {least:.2f} points, before any "
        "adjustment for the number of methods."
    ]


def _one_teacher(grid: Grid) -> str:
    return (
        f"Teachers: each was trained once (seed {grid.teacher.seed}) or imported, so no ± and no "
        "interval includes the variance between trainings of a teacher."
    )
