"""Tables of false positives and coverage. Unless stated, all true means are equal."""

from collections.abc import Sequence

import numpy as np

from benchmarks.decisions.alternatives import BEFORE, DUNNETT, POOLED, RULES, THIS, Rule
from benchmarks.decisions.rule import differences
from benchmarks.decisions.scenarios import (
    COLLAPSE,
    COLLAPSE_POINTS,
    COLLAPSE_RATE,
    NOISY_BASE,
    ODD_ONE,
    UNSEEN,
    Scenario,
)
from benchmarks.decisions.simulation import (
    ROWS,
    Flags,
    Setting,
    any_told,
    any_told_by_dunnett,
    covered,
    false_discoveries,
    simulate,
    to_baseline,
)
from benchmarks.decisions.table import Table, percent

SMALLEST = Setting(seeds=3, pairs=1)
OTHERS = (Setting(5, 1), Setting(3, 2), Setting(3, 7))
FEW_ROWS = (3, 4, 6, 8, 12)
LIMITS = (SMALLEST, Setting(5, 1), Setting(3, 2))
BETTER = 5
"""Rows that differ in the table of false discoveries."""
CELL = "false positives of any row against the baseline / coverage of 95 % intervals, %"


def rates(
    scenario: Scenario, setting: Setting, grids: int, rules: dict[str, Rule]
) -> dict[str, tuple[Flags, Flags]]:
    """Return for each rule whether any row was marked, [G], and what was covered, [G, M - 1].

    The rule called ``DUNNETT`` judges by Dunnett's distribution, all others by Bonferroni.
    """
    told: dict[str, list[Flags]] = {}
    held: dict[str, list[Flags]] = {}
    for accuracies in simulate(scenario, setting, grids):
        d = differences(accuracies)
        for name, rule in rules.items():
            e = to_baseline(rule(d), setting.rows)
            judged = any_told_by_dunnett(e) if name == DUNNETT else any_told(e)
            told.setdefault(name, []).append(judged)
            held.setdefault(name, []).append(covered(e))
    return {name: (np.concatenate(told[name]), np.concatenate(held[name])) for name in told}


def familywise(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Compare the rules with 3 seeds on one pair."""
    rules = {**RULES, DUNNETT: RULES[THIS]}
    found = [rates(scenario, SMALLEST, grids, rules) for scenario in scenarios]
    rows = [(name, *(_cell(*rate[name]) for rate in found)) for name in RULES]
    rows.append((DUNNETT, *(percent(rate[DUNNETT][0]) for rate in found)))
    head = (str(SMALLEST), *(scenario.name for scenario in scenarios))
    return [Table(f"{ROWS} rows: {CELL}", head, tuple(rows))]


def unseen(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Compare rules in scenarios that were not looked at while this rule was chosen."""
    chosen = {name: RULES[name] for name in (BEFORE, POOLED, THIS)}
    found = [rates(scenario, SMALLEST, grids, chosen) for scenario in UNSEEN]
    rows = [(name, *(_cell(*rate[name]) for rate in found)) for name in chosen]
    noisy_rows = found[-1][THIS][1][:, :3]
    title = (
        f"Scenarios not used to choose the rule, {ROWS} rows: {CELL}. Coverage of the three noisy "
        f"rows: {percent(noisy_rows)}"
    )
    head = (str(SMALLEST), *(scenario.name for scenario in UNSEEN))
    return [Table(title, head, tuple(rows))]


def elsewhere(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Apply this rule to more seeds and pairs."""
    everywhere = (*scenarios, *UNSEEN)
    rows = []
    for setting in OTHERS:
        found = (rates(s, setting, grids, {THIS: RULES[THIS]})[THIS] for s in everywhere)
        rows.append((str(setting), *(_cell(*rate) for rate in found)))
    head = ("this rule", *(scenario.name for scenario in everywhere))
    return [Table(f"{ROWS} rows: {CELL}", head, tuple(rows))]


def few_rows(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Apply this rule to fewer rows."""
    rows = []
    for count in FEW_ROWS:
        setting = SMALLEST._replace(rows=count)
        found = (rates(s, setting, grids, {THIS: RULES[THIS]})[THIS] for s in scenarios)
        rows.append((f"{count} rows", *(_cell(*rate) for rate in found)))
    head = (f"this rule, {SMALLEST}", *(scenario.name for scenario in scenarios))
    return [Table(CELL[0].upper() + CELL[1:], head, tuple(rows))]


def discoveries(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Control false discoveries in place of false positives, where some rows differ."""
    means = np.zeros(ROWS)
    means[-BETTER:] = 2.0
    null = means[1:] == 0
    shares = []
    for scenario in scenarios:
        found = [
            false_discoveries(to_baseline(RULES[THIS](differences(accuracies)), ROWS), null)
            for accuracies in simulate(scenario, SMALLEST, grids, means)
        ]
        shares.append(percent(np.concatenate(found)))
    title = (
        f"False discoveries of Benjamini and Hochberg's procedure at 5 %, %; {BETTER} of "
        f"{ROWS - 1} rows are 2 points better than the baseline"
    )
    head = (f"this rule, {SMALLEST}", *(scenario.name for scenario in scenarios))
    return [Table(title, head, (("p-values of one comparison", *shares),))]


def limits(scenarios: Sequence[Scenario], grids: int) -> list[Table]:
    """Show where the rule does not hold what it states."""
    del scenarios
    base = [rates(NOISY_BASE, s, grids, {THIS: RULES[THIS]})[THIS] for s in LIMITS]
    rows = [("baseline 3 x as noisy, false positives / coverage", *(_cell(*rate) for rate in base))]
    true = COLLAPSE_RATE * COLLAPSE_POINTS  # of baseline - row
    for name in (BEFORE, THIS):
        cells = []
        for setting in LIMITS:
            held = [
                covered(to_baseline(RULES[name](differences(y)), ROWS), true)[:, ODD_ONE - 1]
                for y in simulate(COLLAPSE, setting, grids)
            ]
            cells.append(percent(np.concatenate(held)))
        rows.append((f"row that collapses in a fifth of its runs, coverage: {name}", *cells))
    return [Table("Limits, %", ("", *map(str, LIMITS)), tuple(rows))]


def _cell(told: Flags, held: Flags) -> str:
    return f"{percent(told)}/{percent(held, 0)}"
