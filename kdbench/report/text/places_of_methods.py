"""Sentences on the places of all methods: which lead, which cannot be placed, which are behind."""

from collections.abc import Sequence

from kdbench.grid.run import BASELINES
from kdbench.report import numbers
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.decision import Decision

NOTHING = "No method has a result yet."
MOST = 8
"""Longest list of names in a sentence."""


def no_ranking(decision: Decision) -> str:
    """Say why rows cannot be ranked; empty if they can."""
    begun = [one for one in decision.pairs.values() if one.means]
    if not begun:
        return NOTHING
    if all(len(one.untested) == len(one.means) for one in begun):
        return "One seed each: no difference can be judged."
    if not decision.over.pairs:
        return "No difference has an interval, so none can be judged."
    if decision.over.standings is not None:
        return ""
    rows = decision.over.complete
    for i, row in enumerate(rows):
        for other in rows[i + 1 :]:
            if (row, other) not in decision.over.contrasts:
                return f"{row} and {other} have no seed in common, so the rows cannot be ranked."
    return "No method has two seeds or more on every pair yet."


def nothing_leads(decision: Decision) -> str:
    """Say why no method is recommended."""
    over, student = decision.over, decision.student
    placed = over.standings or {}
    if student is not None and student in placed:
        if placed[student].leading:
            return "These seeds do not show that any method beats training alone."
        methods = [row for row in placed if row != student]
        if not any(over.contrasts[row, student].low > 0 for row in methods):
            return "No method is shown to beat the student trained alone."
    if not decision.recommendation.state:
        return "No method has two seeds or more on every pair yet."
    return "No method is recommended: none that may be the best can be placed."


def others(aggregate: Aggregate, leader: str) -> list[str]:
    """Say which other methods may be the best, which cannot be placed, and which are behind."""
    decision = aggregate.decision
    advice, behind = decision.recommendation, (decision.over.standings or {})[leader].behind
    also = [row for row in _by_mean(decision, "leading") if row != leader]
    last = _by_mean(decision, "behind")
    lines = []
    if also and advice.shade:
        lines.append(
            f"{len(also)} {'others' if len(also) > 1 else 'other'} may be as good or better: "
            f"{listed(also)}; "
            f"{_behind(leader, behind, 'the best of them' if len(also) > 1 else 'it')}."
        )
    elif also:
        lines.append(
            f"{_number_of_seeds(decision)} do not single out a method: {len(also) + 1} of "
            f"{len(advice.state)} may be the best; {_behind(leader, behind, 'it')}."
        )
        if last:
            lines.append(f"Clearly behind: {listed(last)}.")
    lines += unplaced(aggregate)
    if last and not (also and not advice.shade):
        alone = not also and not advice.why
        told = all(decision.over.contrasts[leader, row].told for row in last)
        if alone and told and len(last) > 1:
            lines.append(f"{leader} is told from all others.")
        elif len(last) == 1:
            lines.append(f"{last[0]} is behind.")
        else:
            lines.append(f"All {len(last)} others are behind.")
    return lines


def _behind(leader: str, points: float, best: str) -> str:
    if not numbers.known(points):
        return f"how far {leader} is below {best} is not known"
    most = f"at most {numbers.number(points)}" if points >= 0.005 else "less than 0.01"
    return f"{leader} is {most} points below {best}"


def _number_of_seeds(decision: Decision) -> str:
    """Return the seeds of the comparisons, e.g. ``3 seeds`` or ``2 to 3 seeds``."""
    placed = decision.over.standings or {}
    ns = {c.n for c in decision.over.contrasts.once() if c.row in placed and c.other in placed}
    return f"{min(ns)} seeds" if len(ns) == 1 else f"{min(ns)} to {max(ns)} seeds"


def unplaced(aggregate: Aggregate) -> list[str]:
    """Say which methods cannot be placed, those with the same reason together."""
    decision = aggregate.decision
    groups: dict[str, list[str]] = {}
    for method in _by_mean(decision, "unplaced"):
        groups.setdefault(_reason(aggregate, method)[0], []).append(method)
    texts = []
    for reason, methods in groups.items():
        where = {_reason(aggregate, method)[1] for method in methods}
        [pairs] = where if len(where) == 1 else [()]
        on = f" on {pairs[0]}" if len(pairs) == 1 and several(decision) else ""
        texts.append(f"{listed(methods)} ({reason}{on})")
    return [f"Cannot be placed: {'; '.join(texts)}."] if texts else []


def reason(aggregate: Aggregate, method: str) -> str:
    """Return why a method cannot be placed, e.g. ``runs differ too much on v8w16 → r8w8``."""
    text, pairs = _reason(aggregate, method)
    one = len(pairs) == 1 and several(aggregate.decision)
    return f"{text} on {pairs[0]}" if one else text


def _reason(aggregate: Aggregate, method: str) -> tuple[str, tuple[str, ...]]:
    """Return the first reason why a method cannot be placed, and the pairs that it concerns."""
    decision = aggregate.decision
    reason = decision.recommendation.why[method][0]
    if reason == "noisy":
        noisy = [name for name in decision.over.pairs if method in decision.pairs[name].noisy]
        return "runs differ too much", tuple(noisy)
    if reason == "student":
        return "not shown to beat training alone", ()
    runs = [rows[method] for rows in aggregate.summaries.values() if method in rows]
    diverged = any(one.statuses.get("diverged") for one in runs)
    return f"a run {'diverged' if diverged else 'failed'}", ()


def not_ranked(aggregate: Aggregate) -> list[str]:
    """Name the methods that have fewer than two seeds on some pair."""
    decision = aggregate.decision
    pairs = len(decision.over.pairs)
    groups: dict[str, list[str]] = {}
    for row in dict.fromkeys(name for one in aggregate.summaries.values() for name in one):
        if row in (*BASELINES, *decision.over.complete):
            continue
        missing = sum(row not in decision.pairs[name].means for name in decision.over.pairs)
        reason = f"{missing} of {pairs} pairs missing" if pairs > 1 else "no result"
        groups.setdefault(reason if missing else "one seed", []).append(row)
    texts = [f"{listed(rows)} ({reason})" for reason, rows in groups.items()]
    return [f"Not ranked: {'; '.join(texts)}."] if texts else []


def left_out(decision: Decision) -> list[str]:
    """Say which pairs do not count."""
    groups: dict[str, list[str]] = {}
    for name in decision.over.left_out:
        one = decision.pairs[name]
        tested = len(one.means) > len(one.untested)
        state = "no interval" if tested else "one seed" if one.means else "no result yet"
        groups.setdefault(state, []).append(name)
    return [
        f"Left out: {listed(names)} {'has' if len(names) == 1 else 'have'} {state}."
        for state, names in groups.items()
    ]


def several(decision: Decision) -> bool:
    """Check whether the grid has several pairs."""
    return len(decision.pairs) > 1


def over_pairs(decision: Decision) -> str:
    """Return the pairs that a mean is over, e.g. ``over 6 of 7 pairs``; empty for one pair."""
    used, pairs = len(decision.over.pairs), len(decision.pairs)
    if not several(decision):
        return ""
    return f" over {used} pairs" if used == pairs else f" over {used} of {pairs} pairs"


def rows_of(decision: Decision) -> list[str]:
    """Return all rows with a result, in the grid's order."""
    return list(dict.fromkeys(row for one in decision.pairs.values() for row in one.means))


def methods_of(decision: Decision) -> list[str]:
    """Return all rows with a result except the student."""
    return [row for row in rows_of(decision) if row != decision.student]


def _by_mean(decision: Decision, state: str) -> list[str]:
    """Return the methods with a state, the highest mean first."""
    methods = decision.recommendation.states(state)
    return sorted(methods, key=lambda row: -decision.over.means[row])


def listed(names: Sequence[str]) -> str:
    """Join names, e.g. ``kd, at, 3 more``."""
    rest = len(names) - MOST + 1
    shown = names if len(names) <= MOST else [*names[: MOST - 1], f"{rest} more"]
    return ", ".join(shown)
