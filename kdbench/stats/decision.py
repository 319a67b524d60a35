"""What the runs of a grid show about its methods: the one source of every interval and mark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdbench.grid.run import Cell
from kdbench.stats.cell_summary import Summaries, Summary
from kdbench.stats.contrasts import OverPairs, PairStatistics, other_pairs, over, pair
from kdbench.stats.over_seeds import mean
from kdbench.stats.recommendation import Recommendation, recommend

TROUBLES = ("diverged", "failed")


@dataclass(frozen=True)
class Decision:
    """The comparisons of all rows of a grid, without the teachers.

    Attributes:
        pairs: pair -> comparisons on it.
        over: comparisons over pairs.
        other: comparisons with pairs in place of seeds; None with fewer than four pairs.
        recommendation: states and choice of the methods over pairs.
        on_pair: pair -> the same on that pair alone.
        baseline: row that differences are taken to; None if the grid lacks it.
        student: row of the students trained alone; None if the grid lacks it.
        troubled: methods with a run that diverged or failed.
        times: row -> training time over the baseline's, mean over pairs; nan if unknown.
    """

    pairs: Mapping[str, PairStatistics]
    over: OverPairs
    other: PairStatistics | None
    recommendation: Recommendation
    on_pair: Mapping[str, Recommendation]
    baseline: str | None
    student: str | None
    troubled: tuple[str, ...]
    times: Mapping[str, float]

    def without_recommendation(self) -> "Decision":
        """Return the same comparisons, with no method recommended and none marked."""
        nothing = Recommendation()
        return replace(self, recommendation=nothing, on_pair=dict.fromkeys(self.on_pair, nothing))

    @property
    def rows(self) -> int:
        """Number of rows that have an interval on some pair."""
        return rows_with_interval(self.pairs)


def on_pairs(summaries: Summaries) -> dict[str, PairStatistics]:
    """Compare the rows of each pair, without the teachers."""
    return {
        name: pair({row: s.accuracies for row, s in members.items() if row != "teacher"})
        for name, members in summaries.items()
    }


def rows_with_interval(pairs: Mapping[str, PairStatistics]) -> int:
    """Return the number of rows that have an interval on some pair."""
    return len({row for one in pairs.values() for row in one.contrasts.with_interval()})


def decide(cells: Sequence[Cell], summaries: Summaries, baseline: str | None) -> Decision:
    """Compare all rows of a grid.

    Args:
        cells: of the grid.
        summaries: of these cells.
        baseline: row that differences are taken to.
    """
    pairs = on_pairs(summaries)
    compared = over(pairs)
    rows = list(dict.fromkeys(row for one in pairs.values() for row in one.means))
    student = "student" if "student" in rows else None
    terms = {cell.method: len(cell.runs[0].terms) for cell in cells if cell.runs}
    times = {
        name: {row: _time(members, row, baseline) for row in rows}
        for name, members in summaries.items()
    }
    troubled = {
        name: [row for row, s in members.items() if any(s.statuses.get(word) for word in TROUBLES)]
        for name, members in summaries.items()
    }
    simplicity = {row: (_extra(summaries, row), terms.get(row, 1)) for row in rows}
    every = {
        row: mean(t for one in times.values() if not math.isnan(t := one[row])) for row in rows
    }
    any_trouble = tuple(row for row in rows if any(row in names for names in troubled.values()))

    def recommended(
        some: Mapping[str, PairStatistics],
        of_these: OverPairs,
        time: Mapping[str, float],
        trouble: Sequence[str],
    ) -> Recommendation:
        return recommend(
            some,
            of_these,
            times=time,
            student=student,
            baseline=baseline,
            troubled=trouble,
            simplicity=simplicity,
        )

    return Decision(
        pairs=pairs,
        over=compared,
        other=other_pairs(pairs),
        recommendation=recommended(pairs, compared, every, any_trouble),
        on_pair={
            name: recommended({name: one}, over({name: one}), times[name], troubled[name])
            for name, one in pairs.items()
        },
        baseline=baseline,
        student=student,
        troubled=any_trouble,
        times=every,
    )


def _time(members: Mapping[str, Summary], row: str, baseline: str | None) -> float:
    """Return a row's training time over the baseline's on one pair; nan if one is unknown."""
    seconds = [
        mean(cost.seconds + cost.teacher_seconds for cost in members[name].costs)
        if name in members
        else math.nan
        for name in (row, baseline or "")
    ]
    return seconds[0] / seconds[1] if seconds[1] else math.nan


def _extra(summaries: Summaries, row: str) -> float:
    """Return the parameters that a method trains besides the student's, mean over pairs."""
    costs = [members[row].costs for members in summaries.values() if row in members]
    counts = [one[0].params_extra for one in costs if one]
    return mean(counts) if counts else math.inf
