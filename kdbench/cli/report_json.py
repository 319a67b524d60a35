"""``kdbench report --json``: the files written, and the comparisons that decide."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench.cli.contrast_json import contrast, pair_name
from kdbench.cli.json_output import grid_keys
from kdbench.grid.run import Cell, Run
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import STATUSES, Summary, by_pair
from kdbench.stats.contrasts import PairStatistics
from kdbench.stats.over_seeds import mean
from kdbench.stats.paired_differences import Contrasts
from kdbench.stats.recommendation import Recommendation
from kdbench.stats.standings import Standing


def content(aggregate: Aggregate, files: Sequence[Path]) -> dict[str, Any]:
    """Return the files, and the numbers of ``Aggregate.decision`` on each pair and over pairs.

    Args:
        aggregate: statistics of the grid.
        files: paths of the files written, the page among them.
    """
    decision, choice = aggregate.decision, aggregate.decision.recommendation
    return {
        **grid_keys(aggregate.evidence.grid),
        **_written(files, "leaderboard.md"),
        "side_by_side": False,
        "accuracy": aggregate.headline.key,
        "baseline": decision.baseline,
        "tie_points": aggregate.evidence.grid.report.tie,
        "rows_compared": decision.rows,
        "pairs": [
            _pair(name, pair, decision.pairs[name], aggregate)
            for name, pair in by_pair(aggregate.evidence.cells).items()
        ],
        "over_pairs": _over_pairs(aggregate),
        "other_pairs": _other_pairs(aggregate),
        "recommendation": {
            "leader": choice.leader,
            "shortlist": choice.shortlist,
            "named": choice.named,
            "for_less_time": choice.cheaper,
            "marks_shown": choice.shade,
        },
    }


def side_by_side(grids: Sequence[Evidence], page: Path) -> dict[str, Any]:
    """Return the files of grids with different protocols, between which nothing is compared."""
    each = [evidence.grid for evidence in grids]
    return {
        "grid": page.parent.name,
        "title": "; ".join(grid.title for grid in each),
        "file": " --grid ".join(grid.source for grid in each),
        **_written([page.with_suffix(".csv"), page], page.name),
        "side_by_side": True,
    }


def _written(files: Sequence[Path], page: str) -> dict[str, Any]:
    pages = [path for path in files if path.name == page]
    return {"folder": pages[0].parent, "page": pages[0], "files": list(files)}


def _pair(
    name: str, cells: Sequence[Cell], pair: PairStatistics, aggregate: Aggregate
) -> dict[str, Any]:
    """Return the comparisons on one pair; a row per method, teacher and student included."""
    decision, frame = aggregate.decision, aggregate.frame
    of_pair = frame[frame["pair"] == name]
    means = dict(zip(of_pair["method"].tolist(), of_pair["mean"].tolist(), strict=True))
    rows = []
    for cell in cells:
        summary = aggregate.summaries[name][cell.method]
        rows.append(
            {
                "method": cell.method,
                "mean_percent": means[cell.method],  # also of an imported teacher
                "sd_points": summary.sd,
                "test_acc_percent": summary.test_mean,
                "training_seconds": mean(c.seconds + c.teacher_seconds for c in summary.costs),
                "noisy": cell.method in pair.noisy,
                **_place(
                    cell.method, decision.baseline, pair.contrasts, pair.standings,
                    decision.on_pair[name],
                ),
                "states": {status: summary.statuses.get(status, 0) for status in STATUSES},
                "runs": list(_runs(cell.runs, summary, aggregate.evidence)),
            }
        )  # fmt: skip
    return {
        "pair": pair_name(name),
        "d0": pair.d0,
        "typical_sd_points": math.sqrt(pair.typical),
        "untested": pair.untested,
        "rows": rows,
    }


def _runs(runs: Sequence[Run], summary: Summary, evidence: Evidence) -> Iterator[dict[str, Any]]:
    for run in runs:
        record = evidence.records.get(run.id)
        yield {
            "seed": run.seed,
            "id": run.id,
            "state": record.status if record else "missing",
            "reason": (record.reason if record else "") or None,
            "acc_percent": summary.accuracies.get(run.seed),
        }


def _over_pairs(aggregate: Aggregate) -> dict[str, Any]:
    """Return the comparisons over pairs; a row per method that has a result, and the student."""
    decision = aggregate.decision
    over, frame = decision.over, aggregate.methods.frame
    ari = dict(zip(frame["method"].tolist(), frame["ari"].tolist(), strict=True))
    rows = list(dict.fromkeys(row for pair in decision.pairs.values() for row in pair.means))
    noisy = {row: [n for n in decision.pairs if row in decision.pairs[n].noisy] for row in rows}
    return {
        "pairs": list(map(pair_name, over.pairs)),
        "left_out": list(map(pair_name, over.left_out)),
        "ari_of": aggregate.methods.reference,
        "rows": [
            {
                "method": row,
                "mean_percent": over.means.get(row),
                "complete": row in over.complete,
                "noisy_on": list(map(pair_name, noisy[row])),
                "troubled": row in decision.troubled,
                "time_ratio": decision.times.get(row),
                "ari_percent": ari.get(row),
                **_place(
                    row, decision.baseline, over.contrasts, over.standings, decision.recommendation
                ),
            }
            for row in rows
        ],
    }


def _other_pairs(aggregate: Aggregate) -> dict[str, Any] | None:
    """Return what the pairs say of other pairs; None if they are too few."""
    other, baseline = aggregate.decision.other, aggregate.decision.baseline
    if other is None:
        return None
    return {
        "rows": [
            {"method": row, "to_baseline": _to_baseline(row, baseline, other.contrasts)}
            for row in other.means
        ]
    }


def _place(
    row: str,
    baseline: str | None,
    contrasts: Contrasts,
    standings: Mapping[str, Standing] | None,
    choice: Recommendation,
) -> dict[str, Any]:
    """Return the difference to the baseline, the rank range and the state of a row."""
    standing = (standings or {}).get(row)
    return {
        "to_baseline": _to_baseline(row, baseline, contrasts),
        "rank_low": standing.rank_low if standing else None,
        "rank_high": standing.rank_high if standing else None,
        "may_be_best": standing.leading if standing else None,
        "behind_points": standing.behind if standing else None,
        "state": choice.state.get(row),
        "why": list(choice.why.get(row, ())),
    }


def _to_baseline(row: str, baseline: str | None, contrasts: Contrasts) -> dict[str, Any] | None:
    known = baseline is not None and (row, baseline) in contrasts
    return contrast(contrasts[row, str(baseline)]) if known else None
