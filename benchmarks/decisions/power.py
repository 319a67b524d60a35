"""Tables of power, leading groups, distances behind the best and rank ranges."""

from collections.abc import Sequence

import numpy as np

from benchmarks.decisions.alternatives import (
    ALPHA,
    BEFORE,
    POOLED,
    RULES,
    THIS,
    holm,
    p_values,
)
from benchmarks.decisions.rule import Estimates, differences
from benchmarks.decisions.scenarios import NOISY, ODD_ONE, Scenario
from benchmarks.decisions.simulation import (
    ROWS,
    Flags,
    Ranks,
    Setting,
    bootstrapped_ranks,
    leading_before,
    leading_hsu,
    simulate,
    standings,
    to_baseline,
)
from benchmarks.decisions.table import Table, percent

POWER = {
    "normal": (Setting(3, 1), Setting(3, 2), Setting(3, 7), Setting(5, 1), Setting(5, 2)),
    "spread": (Setting(3, 2),),
    "records": (Setting(3, 2), Setting(5, 2)),
}
GROUPS = {
    "normal": (Setting(3, 1), Setting(3, 2), Setting(5, 2)),
    "records": (Setting(3, 2),),
}
STEPS = np.repeat([0.0, -0.3, -1.0, -2.0, -3.0], [1, 10, 5, 5, 5])
"""True means in the table of groups. Row 0 is the true best."""
LADDER = np.linspace(0.0, -3.0, ROWS)
"""True means for distances and ranks: no two are equal."""
EFFECTS = (0.5, 1.0, 2.0)
HSU = f"Hsu, {POOLED}"
SMALLEST = Setting(3, 1)
BOOTSTRAP = f"bootstrapped ranks (before), {SMALLEST}"


def power(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Compare the power to find one row that is better than the baseline; the others equal it."""
    rows = []
    for scenario, setting in _chosen(POWER, scenarios):
        cells = []
        for rule in (BEFORE, THIS):
            found = [
                _found(to_baseline(RULES[rule](differences(accuracies)), ROWS), rule == BEFORE)
                for accuracies in simulate(scenario, setting, grids)
            ]
            *alone, told = (np.concatenate(parts) for parts in zip(*found, strict=True))
            singles = ", ".join(percent(shares, 0) for shares in alone)
            cells.append(f"{singles}; {percent(told, 0)}")
        rows.append((f"{scenario.name}, {setting}", *cells))
    title = "Power, %: one comparison +0.5, +1, +2 points; told apart in the table +2"
    return [Table(title, ("", BEFORE, THIS), tuple(rows))]


def _found(e: Estimates, by_holm: bool) -> list[Flags]:
    """Check which rows are found if they are better by each effect, and marked at the last.

    Variances do not depend on means: a row that is better by x has the same standard error, and x
    is added to its difference. Bonferroni's adjustment needs no other row, so every row is used;
    Holm's needs all of them, so only one row is.
    """
    shifted = [e._replace(diff=e.diff - effect) for effect in EFFECTS]  # baseline - row
    alone = [(p_values(one) < ALPHA) & (one.diff < 0) for one in shifted]
    last = shifted[-1]
    if not by_holm:
        return [*alone, (p_values(last) * e.diff.shape[1] < ALPHA) & (last.diff < 0)]
    p = p_values(e)
    p[:, 0] = p_values(last)[:, 0]
    return [*alone, (holm(p)[:, 0] < ALPHA) & (last.diff[:, 0] < 0)]


def groups(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Compare leading groups.

    Ten rows are truly 0.3 points below the best, and five each 1, 2 and 3 points.
    """
    rows = []
    for scenario, setting in _chosen(GROUPS, scenarios):
        leading: dict[str, list[Flags]] = {BEFORE: [], THIS: [], HSU: []}
        for accuracies in simulate(scenario, setting, grids, STEPS):
            d = differences(accuracies)
            leading[BEFORE].append(leading_before(RULES[BEFORE](d), ROWS))
            leading[THIS].append(standings(RULES[THIS](d), ROWS).leading)
            leading[HSU].append(leading_hsu(RULES[POOLED](d), ROWS))
        rows.append((f"{scenario.name}, {setting}", *(_group(x) for x in leading.values())))
    title = (
        f"Leading group of {ROWS}: true best in it, % / size / rows truly 2 points below in it, % "
        "/ 3 points below, %"
    )
    return [Table(title, ("", BEFORE, THIS, HSU), tuple(rows))]


def _group(batches: list[Flags]) -> str:
    leading = np.concatenate(batches)
    below = (percent(leading[:, mean == STEPS], 0) for mean in (-2.0, -3.0))
    return f"{percent(leading[:, 0])} / {leading.sum(1).mean():.1f} / {' / '.join(below)}"


def ranges(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Count how often distances behind the best and rank ranges hold what is true of a row.

    The true means are evenly spaced over 3 points, so every row has one true rank. The order of
    rows is that of their means; row 0 is the best.
    """
    cells: dict[str, list[str]] = {str(setting): [] for setting in GROUPS["normal"]}
    cells[BOOTSTRAP] = []
    for scenario in scenarios:
        for setting in GROUPS["normal"]:
            behind, rank, bootstrap = [], [], []
            for accuracies in simulate(scenario, setting, grids, LADDER):
                found = standings(RULES[THIS](differences(accuracies)), ROWS)
                behind.append(found.behind >= -LADDER)
                rank.append(_holds(found.rank_low, found.rank_high))
                if setting == SMALLEST:
                    bootstrap.append(_holds(*bootstrapped_ranks(accuracies[:, 0])))
            shares = (percent(np.concatenate(held)) for held in (behind, rank))
            cells[str(setting)].append(" / ".join(shares))
            if bootstrap:
                cells[BOOTSTRAP].append(f"- / {percent(np.concatenate(bootstrap))}")
    title = "Rows of which is true, %: at most so far behind the best / rank range"
    head = ("", *(scenario.name for scenario in scenarios))
    return [Table(title, head, tuple((name, *row) for name, row in cells.items()))]


def _holds(low: Ranks, high: Ranks) -> Flags:
    true = np.arange(1, ROWS + 1)
    return np.asarray((low <= true) & (true <= high))


def noisy_in_group(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Show that a noisy row stays in the leading group, although it is 3 points below the best."""
    del scenarios
    means = np.zeros(ROWS)
    means[ODD_ONE] = -3.0
    cells = []
    for setting in GROUPS["normal"]:
        leading = [
            standings(RULES[THIS](differences(accuracies)), ROWS).leading[:, ODD_ONE]
            for accuracies in simulate(NOISY, setting, grids, means)
        ]
        cells.append(percent(np.concatenate(leading)))
    title = "Row 5 x as noisy and truly 3 points below all others: in the leading group, %"
    return [Table(title, ("", *map(str, GROUPS["normal"])), (("this rule", *cells),))]


def _chosen(
    settings: dict[str, tuple[Setting, ...]], scenarios: Sequence[Scenario]
) -> list[tuple[Scenario, Setting]]:
    """Return the scenarios that there are with each of their settings."""
    known = {scenario.name: scenario for scenario in scenarios}
    return [(known[name], one) for name, ones in settings.items() if name in known for one in ones]
