"""The top of a page: what was run, and what the evidence supports and what not."""

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

if TYPE_CHECKING:
    import pandas as pd


# --- what it supports ---


def claims(aggregate: Aggregate) -> str:
    """Write what the evidence supports and what it does not, as Markdown."""
    supports, against = claim_lines(aggregate)
    lines = ["**What this supports**", *_items(supports)]
    lines += ["", "**What it does not**", *_items(against)]
    return "\n".join(lines) + "\n"


def claim_lines(aggregate: Aggregate) -> tuple[list[str], list[str]]:
    """Return what the evidence supports and what it does not, as plain sentences."""
    evidence, frame, baseline = aggregate.evidence, aggregate.frame, aggregate.methods.baseline
    grid = evidence.grid
    against = [grid.report.against.strip() or "The grid's file does not say."]
    against += _test_set(first_result(evidence.cells, evidence.records), frame)
    against += _seeds(frame, baseline)
    against.append(_one_teacher(grid))
    supports = [grid.report.supports.strip() or "The grid's file does not say."]
    supports += _told_apart(frame, baseline)
    return supports, against


def _items(texts: Iterable[str]) -> list[str]:
    return ["", *(f"- {escape(text)}" for text in texts)]


def _told_apart(frame: "pd.DataFrame", baseline: str | None) -> list[str]:
    """Which differences to the baseline a test tells from 0."""
    tested = frame[frame["p_holm"].notna()]
    if baseline is None or tested.empty:
        return []
    told = tested[tested["p_holm"] < over_seeds.ALPHA]
    first = told.head(12)
    texts = [
        f"{method} on {pair} ({signed(diff)})"
        for method, pair, diff in zip(first["method"], first["pair"], first["diff"], strict=True)
    ]
    shown = "; ".join(texts) + (f"; and {len(told) - 12} more" if len(told) > 12 else "")
    return [
        f"Different from {baseline} (paired t test, 5 %, Holm-adjusted within a pair): "
        f"{len(told)} of {len(tested)}{': ' + shown if texts else ''}."
    ]


def _test_set(first: Result | None, frame: "pd.DataFrame") -> list[str]:
    means = frame.loc[(frame["method"] != "teacher") & (frame["n"] > 0), "mean"]
    if first is None or means.empty:
        return []
    typical, n_test = float(means.mean()), first.n_test
    se = over_seeds.standard_error(typical, n_test)
    return [
        f"Test set: one accuracy of {typical:.1f} % on {n_test:,} images has a standard error of "
        f"{se:.2f} points. All methods share these images; conclusions are about this test set."
    ]


def _seeds(frame: "pd.DataFrame", baseline: str | None) -> list[str]:
    """The smallest difference to the baseline that these seeds can be expected to find."""
    if baseline is None:
        return ["Differences: the baseline of the report is no row of this grid."]
    rows = frame[(frame["diff_n"] > 1) & (frame["method"] != "student")]
    if rows.empty:
        return [
            f"Differences: fewer than two seeds in common with {baseline}; no difference between "
            "two methods can be told from chance."
        ]
    pairs = zip(rows["diff_n"], rows["diff_sd"], strict=True)
    nan = math.nan
    sd = over_seeds.pooled_sd(
        over_seeds.Difference(int(n), nan, float(s), nan, nan, nan) for n, s in pairs
    )
    n = int(rows["diff_n"].median())
    return [
        f"Differences: with {n} seeds and a spread of paired differences to {baseline} of "
        f"{sd:.2f} points (pooled), a true difference below "
        f"{over_seeds.detectable_difference(sd, n):.2f} points is missed more often than in one "
        "case of five (two-sided 5 %, power 80 %), before any adjustment for the number of "
        "methods."
    ]


def _one_teacher(grid: Grid) -> str:
    return (
        "Teachers: one training of each (seed "
        f"{grid.teacher.seed}, or an imported checkpoint), so the variance between teachers is in "
        "no ± and no interval."
    )
