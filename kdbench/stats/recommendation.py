"""Which method to use: the states of all methods, and the few that are worth naming."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from kdbench.stats.contrasts import OverPairs, PairStatistics
from kdbench.stats.over_pairs import DIGITS

FASTER = 0.9
"""A method is faster if it takes less than this share of the time: 10 % is what timings vary by."""


@dataclass(frozen=True)
class Recommendation:
    """What follows from the comparisons for the choice of a method.

    Attributes:
        state: method -> "leading" (may be the best), "unplaced" (cannot be placed) or "behind";
            only of methods with a standing.
        why: unplaced method -> reasons: "noisy" (its runs differ too much), "troubled" (a run
            diverged or failed), "student" (not shown to be better than training alone).
        leader: leading method with the highest mean; None if no method is leading.
        shortlist: the leading methods whose interval to the leader holds 0, by mean.
        named: the leader, then each of the shortlist that takes less time than all before it.
        cheaper: a faster method that is behind the leader but better than the baseline.
        shade: whether the leading methods are marked: not if they are more than half.
    """

    state: Mapping[str, str] = field(default_factory=dict)
    why: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leader: str | None = None
    shortlist: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    cheaper: str | None = None
    shade: bool = False

    def states(self, state: str) -> list[str]:
        """Return the methods with a state, in the grid's order."""
        return [method for method, own in self.state.items() if own == state]


def recommend(
    pairs: Mapping[str, PairStatistics],
    over: OverPairs,
    *,
    times: Mapping[str, float],
    student: str | None = None,
    baseline: str | None = None,
    troubled: Collection[str] = (),
    simplicity: Mapping[str, Sequence[float]] | None = None,
) -> Recommendation:
    """Place every method and choose those that are worth naming.

    Args:
        pairs: name -> what the runs on that pair show.
        over: the same over pairs.
        times: row -> training time in any unit.
        student: row of the student trained alone.
        baseline: row of the baseline.
        troubled: methods with a run that diverged or failed.
        simplicity: method -> sort key that decides between equal means, e.g. the number of extra
            parameters; then the grid's order decides.
    """
    placed = over.standings
    if placed is None:
        return Recommendation()
    methods = [row for row in placed if row != student]
    noisy = {row for name in over.pairs for row in pairs[name].noisy}
    state, why = {}, {}
    for method in methods:
        if not placed[method].leading:
            state[method] = "behind"
            continue
        doubts = (
            ("noisy", method in noisy),
            ("troubled", method in troubled),
            ("student", student is not None and not _beats(over, method, student)),
        )
        why[method] = tuple(word for word, holds in doubts if holds)
        state[method] = "unplaced" if why[method] else "leading"

    def order(method: str) -> tuple[float, Sequence[float]]:
        return -round(over.means[method], DIGITS), (simplicity or {}).get(method, ())

    candidates = sorted((m for m in methods if state[m] == "leading"), key=order)
    leader = candidates[0] if candidates else None
    shortlist = [m for m in candidates if m == leader or _may_equal(over, m, str(leader))]
    named: list[str] = []
    for method in shortlist:
        if not named or times.get(method, math.nan) < FASTER * _least(times, named):
            named.append(method)
    cheaper = [
        m
        for m in methods
        if leader and baseline and m != baseline and m not in {*noisy, *troubled, *named}
        and (m, baseline) in over.contrasts and over.contrasts[m, baseline].better
        and times.get(m, math.nan) < FASTER * _least(times, named)
    ]  # fmt: skip
    marked = len(methods) - sum(word == "behind" for word in state.values())
    return Recommendation(
        state=state,
        why={method: words for method, words in why.items() if words},
        leader=leader,
        shortlist=tuple(shortlist),
        named=tuple(named),
        cheaper=min(cheaper, key=order) if cheaper else None,
        shade=2 * marked <= len(methods),
    )


def _beats(over: OverPairs, method: str, student: str) -> bool:
    """Whether the interval of the difference to the student is above 0, on the pairs there are."""
    key = method, student
    return key in over.contrasts and over.contrasts[key].low > 0


def _may_equal(over: OverPairs, method: str, leader: str) -> bool:
    """Whether the interval of the difference to the leader holds 0."""
    contrast = over.contrasts[method, leader]
    return contrast.known and contrast.low <= 0 <= contrast.high


def _least(times: Mapping[str, float], methods: Sequence[str]) -> float:
    return min(times.get(method, math.nan) for method in methods)
