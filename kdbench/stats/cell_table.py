"""One data frame with everything a page shows: a row per method and pair.

Tables only select from it and format.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdbench.grid import published
from kdbench.grid.grid import Grid
from kdbench.grid.run import BASELINES, Cell
from kdbench.runs.records import Cost, Record
from kdbench.stats import over_seeds
from kdbench.stats.cell_summary import (
    STATUSES,
    Summaries,
    Summary,
    by_pair,
    row_label,
    teacher_accuracy,
)
from kdbench.stats.decision import Decision
from kdbench.stats.headline import Headline, headline

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("method", "teacher", "student", "pair", "dataset", "protocol"),
    *("n", "expected", "mean", "sd", "measured_on", "test_mean", "best_mean", "status"),
    *("mean_lo", "mean_hi", "seeds", "accuracies"),
    *("diverged", "failed", "skipped", "missing"),
    *("diff", "diff_sd", "diff_n", "lo", "hi", "p", "p_adj", "df", "se"),
    *("rank_lo", "rank_hi", "behind", "state", "noisy"),
    *("ari_ratio", "ari_unreliable", "recovered_gap", "test_se"),
    *("seconds", "teacher_seconds", "time_ratio", "step_ms"),
    *("params", "params_extra", "params_deployed", "macs", "peak_mb"),
    *("published_mean", "published_sd", "published_diff", "published_source", "published_notes"),
    *("published_epoch", "published_objective"),
    *("reason", "bad_runs", "runs"),
)
COUNTS = ("params", "params_extra", "params_deployed", "macs", "diff_n", "rank_lo", "rank_hi")


def cell_table(
    grid: Grid,
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    summaries: Summaries,
    decision: Decision,
) -> "pd.DataFrame":
    """Compute ``COLUMNS`` for each method and pair, including rows ``teacher`` and ``student``.

    ``mean`` and all that is computed from it: the grid's ``headline``, accuracy on ``measured_on``;
    ``test_mean``: test accuracy.
    ``mean_lo``, ``mean_hi``: 95 % t interval of the mean over seeds; ``seeds``, ``accuracies``: of
    each run, separated by spaces. ``diff`` to ``se`` compare with the report's baseline;
    ``rank_lo`` to ``noisy`` place the row among all rows of its pair; ``ari_ratio``: gain of the
    report's ``ari_of`` over this row; ``time_ratio``: training time divided by the baseline's;
    ``published_diff``: our mean minus the published one.

    Args:
        summaries: of the same cells and records.
        decision: what follows from them.

    Raises:
        ValueError: the report's reference is not a known published table.
    """
    import pandas as pd

    reference = row_label(cells, grid.report.ari_of) if grid.report.ari_of else None
    rows: list[dict[str, Any]] = []
    for pair, members in by_pair(cells).items():
        rows += _pair(grid, pair, members, summaries[pair], records, decision, reference)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(COUNTS, "Int64"))


def _pair(
    grid: Grid,
    pair: str,
    cells: Sequence[Cell],
    summaries: Mapping[str, Summary],
    records: Mapping[str, Record],
    decision: Decision,
    reference: str | None,
) -> list[dict[str, Any]]:
    """Compute the rows of one pair."""
    nothing = Summary(0, {}, {}, {}, math.nan, (), ())
    baseline, compared_by = decision.baseline, headline(grid)
    student, base = summaries.get("student", nothing), summaries.get(baseline or "", nothing)
    teacher = teacher_accuracy(cells, records, compared_by)
    base_seconds = sum(_seconds(base.costs))
    data, none = grid.dataset.title, dict.fromkeys(STATUSES[1:], 0)
    rows = []
    for cell in cells:
        name, summary = cell.method, summaries[cell.method]
        is_teacher = name == "teacher"
        accuracy = teacher if is_teacher else summary.mean
        costs = summary.costs
        seconds, teacher_seconds = _seconds(costs)
        row: dict[str, Any] = {
            "method": name,
            "teacher": cell.teacher,
            "student": cell.student,
            "pair": pair,
            "dataset": grid.dataset.labelled.title if name == "student" else data,
            "protocol": grid.protocol.name,
            "n": summary.n,
            "expected": summary.expected,
            "mean": accuracy,
            "sd": summary.sd,
            "measured_on": compared_by.images,
            "test_mean": teacher_accuracy(cells, records) if is_teacher else summary.test_mean,
            "best_mean": summary.best,
            "status": summary.status,
            **_spread(summary),
            **(none | {s: count for s, count in summary.statuses.items() if s != "done"}),
            "recovered_gap": over_seeds.recovered_gap(accuracy, student.mean, teacher),
            "test_se": over_seeds.standard_error(accuracy, _images(grid, summary, compared_by)),
            "seconds": seconds,
            "teacher_seconds": teacher_seconds,
            "time_ratio": math.nan
            if is_teacher
            else _ratio(seconds + teacher_seconds, base_seconds),
            "step_ms": over_seeds.mean([cost.step_ms for cost in costs]),
            "peak_mb": max([cost.peak_mb for cost in costs], default=math.nan),
            **{count: getattr(costs[0], count) if costs else None for count in COUNTS[:4]},
            "reason": "; ".join(dict.fromkeys(reason for _, reason, _ in summary.reasons)),
            "bad_runs": " ".join(run for _, _, run in summary.reasons),
            "runs": " ".join(run.id for run in cell.runs),
        }
        if is_teacher:
            row |= _teacher(grid, cell, summary, accuracy)
        else:
            row |= _placed(decision, pair, name)
        if reference and name not in (*BASELINES, reference):
            row |= _ari(summaries.get(reference, nothing), summary, student)
        rows.append(row | _published(grid, cell, accuracy))
    return rows


def _spread(summary: Summary) -> dict[str, Any]:
    """Return the accuracy of every seed and the interval of their mean."""
    values = list(summary.accuracies.values())
    low, high = over_seeds.t_interval(values)
    return {
        "mean_lo": low,
        "mean_hi": high,
        "seeds": " ".join(map(str, summary.accuracies)),
        "accuracies": " ".join(f"{value:.10g}" for value in values),
    }


def _teacher(grid: Grid, cell: Cell, summary: Summary, accuracy: float) -> dict[str, Any]:
    """Return the columns in which a teacher's row differs from a student's."""
    if not cell.runs:
        known = not math.isnan(accuracy)
        runs = grid.teachers.get(cell.teacher, "")
        return {"n": int(known), "expected": 1, "status": "imported", "sd": math.nan, "runs": runs}
    protocol = grid.teacher.protocol or grid.protocol
    dataset = grid.teacher.dataset or grid.dataset.labelled
    return {"protocol": protocol.name, "dataset": dataset.title}


def _placed(decision: Decision, pair: str, name: str) -> dict[str, Any]:
    """Return a row's difference to the baseline and its place among the rows of the pair."""
    statistics = decision.pairs[pair]
    placed = (statistics.standings or {}).get(name)
    columns: dict[str, Any] = {
        "state": decision.on_pair[pair].state.get(name),
        "noisy": name in statistics.noisy,
    }
    if placed:
        columns |= {
            "rank_lo": placed.rank_low, "rank_hi": placed.rank_high, "behind": placed.behind
        }  # fmt: skip
    if decision.baseline is None or name == decision.baseline:
        return columns
    contrast = statistics.contrasts.get((name, decision.baseline))
    if contrast is None:
        return columns | {"diff_n": 0}
    return columns | {
        "diff": contrast.diff,
        "diff_sd": contrast.sd,
        "diff_n": contrast.n,
        "lo": contrast.low,
        "hi": contrast.high,
        "p": contrast.p,
        "p_adj": contrast.p_adj,
        "df": contrast.df,
        "se": contrast.se,
    }


def _ari(reference: Summary, method: Summary, student: Summary) -> dict[str, Any]:
    [ratio] = over_seeds.relative_improvements([reference.mean], [method.mean], [student.mean])
    gaps = over_seeds.gaps(method.accuracies, student.accuracies)
    se = over_seeds.spread(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan
    complete = reference.n and method.n and student.n
    return {
        "ari_ratio": ratio,
        "ari_unreliable": over_seeds.unreliable(method.mean, student.mean, se)
        if complete
        else None,
    }


def _published(grid: Grid, cell: Cell, accuracy: float) -> dict[str, Any]:
    # A held-out accuracy is not comparable with a published test accuracy.
    if not grid.report.reference or headline(grid).held_out:
        return {}
    data = grid.dataset.label or grid.dataset.name
    terms = {term.method: term.hyper for run in cell.runs[:1] for term in run.terms}
    figure = published.lookup(
        grid.report.reference, cell.method, cell.teacher, cell.student, data, terms
    )
    if figure is None:
        return {}
    return {
        "published_mean": figure.mean,
        "published_sd": figure.sd,
        "published_diff": accuracy - figure.mean,
        "published_source": figure.source,
        "published_notes": figure.notes,
        "published_epoch": figure.epoch,
        "published_objective": "; ".join([figure.objective, *_setting(cell, figure)]),
    }


def _setting(cell: Cell, figure: published.Published) -> list[str]:
    """Describe the hyper-parameters of a published figure, and the cell's where they differ."""
    ours: dict[str, Any] = {}
    for run in cell.runs[:1]:
        for term in run.terms:
            ours |= term.hyper
    return [
        f"{key} {value:g}" + (f", here {ours[key]:g}" if ours.get(key, value) != value else "")
        for key, value in figure.setting.items()
    ]


def _seconds(costs: Sequence[Cost]) -> tuple[float, float]:
    """Return mean seconds over seeds of the student and of the teacher."""
    own, teacher = [cost.seconds for cost in costs], [cost.teacher_seconds for cost in costs]
    return over_seeds.mean(own), over_seeds.mean(teacher)


def _ratio(seconds: float, baseline: float) -> float:
    return seconds / baseline if baseline else math.nan


def _images(grid: Grid, summary: Summary, compared_by: Headline) -> int:
    """Return the number of images that the headline is measured on; 0 if it is unknown."""
    results = (record.result for record in summary.records if record.result)
    return next((compared_by.count(grid.dataset, result) for result in results), 0)


def average_improvements(frame: "pd.DataFrame") -> dict[str, tuple[float, int, bool]]:
    """Return for each method the reference's ARI, its number of pairs, and if any is unreliable."""
    improvements = {}
    columns = ["method", "ari_ratio", "ari_unreliable"]
    rows = frame.loc[frame["ari_unreliable"].notna(), columns]
    for method, group in rows.groupby("method", sort=False):
        ratios = [float(ratio) for ratio in group["ari_ratio"]]
        unreliable = bool(group["ari_unreliable"].astype(bool).any())
        improvements[str(method)] = (sum(ratios) / len(ratios), len(ratios), unreliable)
    return improvements
