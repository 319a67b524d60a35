"""The claims that the evidence supports and those that it does not, as text."""

from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING

from kdbench.grid.grid import Grid
from kdbench.report.numbers import listed, signed
from kdbench.report.text.markdown import escape
from kdbench.runs.records import Result
from kdbench.stats import over_seeds
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import first_result
from kdbench.stats.decision import Decision
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd

NOT_STATED = "Not stated in the grid file."
LISTED = 12
"""Largest number of differences that are listed."""


def claims(aggregate: Aggregate) -> str:
    """Write supported and unsupported claims as Markdown."""
    supports, against = claim_lines(aggregate)
    lines = ["**What this supports**", *_items(supports)]
    lines += ["", "**What this does not support**", *_items(against)]
    return "\n".join(lines) + "\n"


def claim_lines(aggregate: Aggregate) -> tuple[list[str], list[str]]:
    """Return supported and unsupported claims as plain sentences."""
    evidence, frame, decision = aggregate.evidence, aggregate.frame, aggregate.decision
    grid = evidence.grid
    against = [grid.report.against.strip() or NOT_STATED]
    if not aggregate.headline.held_out:
        against += _test_set(first_result(evidence.cells, evidence.records), frame)
        against += _seeds(decision)
    against.append(_one_teacher(grid))
    supports = [grid.report.supports.strip() or NOT_STATED]
    if not aggregate.headline.held_out:
        supports += _differences(decision)
    return supports, against


def _items(texts: Iterable[str]) -> list[str]:
    return ["", *(f"- {escape(text)}" for text in texts)]


def _differences(decision: Decision) -> list[str]:
    """List the rows that differ from the baseline over pairs, after allowing for all rows."""
    baseline, over = decision.baseline, decision.over
    to_baseline = [c for c in over.contrasts.once() if baseline in (c.row, c.other)]
    known = [c if c.other == baseline else c.reversed() for c in to_baseline if c.known]
    if not known:
        return []
    where = f"over {counted(len(over.pairs), 'pair')}, after allowing for all {decision.rows} rows"
    texts = []
    for word, told in (
        ("better", [c for c in known if c.better]),
        ("worse", [c for c in known if c.worse]),
    ):
        best_first = sorted(told, key=lambda c: -abs(c.diff))
        names = [f"{c.row} ({signed(c.diff)})" for c in best_first]
        texts.append(f"{word}: {listed(names, LISTED) or 'none'}")
    return [f"Compared with {baseline} {where} (5 %): {'; '.join(texts)}."]


def _test_set(first: Result | None, frame: "pd.DataFrame") -> list[str]:
    means = frame.loc[(frame["method"] != "teacher") & (frame["n"] > 0), "test_mean"]
    if first is None or means.empty:
        return []
    typical, n_test = float(means.mean()), first.n_test
    se = over_seeds.standard_error(typical, n_test)
    return [
        f"Test set: an accuracy of {typical:.1f} % on {n_test:,} images has a standard error of "
        f"{se:.2f} points. All methods share these images; conclusions hold for this test set only."
    ]


def _seeds(decision: Decision) -> list[str]:
    """State the smallest difference to the baseline that these seeds detect with power 80 %."""
    baseline = decision.baseline
    if baseline is None:
        return ["Differences: the report's baseline is not a row of this grid."]
    known = [c for c in decision.over.contrasts.once() if baseline in (c.row, c.other) and c.known]
    if not known:
        return [
            f"Differences: fewer than two seeds in common with {baseline}; no difference between "
            "methods can be tested."
        ]
    family = over_seeds.ALPHA / max(decision.rows - 1, 1)
    alone, among_all = (
        median(over_seeds.detectable(c.se, c.df, alpha) for c in known)
        for alpha in (over_seeds.ALPHA, family)
    )
    return [
        f"Differences: with {counted(min(c.n for c in known), 'seed')} on "
        f"{counted(len(decision.over.pairs), 'pair')}, a true difference to {baseline} of less "
        f"than {alone:.2f} points would probably be missed (power below 80 %) by one comparison "
        f"chosen beforehand, and one of less than {among_all:.2f} points in the tables, which "
        f"allow for all {decision.rows} rows."
    ]


def _one_teacher(grid: Grid) -> str:
    return (
        f"Teachers: each was trained once (seed {grid.teacher.seed}) or imported, so no ± and no "
        "interval includes the variance between trainings of a teacher."
    )
