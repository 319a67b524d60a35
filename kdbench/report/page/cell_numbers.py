"""A cell's numbers as lines of its details: accuracy, difference, published figure and cost."""

import statistics
from collections.abc import Sequence
from typing import Any

from kdbench.grid.published import is_second_hand
from kdbench.grid.run import BASELINES
from kdbench.report import numbers
from kdbench.report.page import method_details
from kdbench.runs.records import Record
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.decision import Decision
from kdbench.wording import counted

Lines = list[tuple[str, str]]


def accuracy(row: Any, aggregate: Aggregate) -> Lines:
    """Describe its mean and its place on the pair."""
    if not numbers.known(row.mean):
        return []
    decision, held_out = aggregate.decision, aggregate.headline.held_out
    what = f"{aggregate.headline.name.capitalize()}, last epoch, mean ± sd"
    lines = [(what, f"{numbers.spread(row.mean, row.sd)} %")]
    if numbers.known(row.mean_lo):
        ends = f"{numbers.number(row.mean_lo)} to {numbers.number(row.mean_hi)} %"
        lines.append(("95 % t interval of the mean", ends))
    gap = numbers.number(100 * row.recovered_gap, 0) if numbers.known(row.recovered_gap) else ""
    if gap and row.method not in BASELINES:
        lines.append(("Recovered gap to the teacher", f"{gap} %"))
    if numbers.known(row.test_se):
        lines.append(("Standard error of one accuracy (number of images)",
                      f"{numbers.number(row.test_se)} points"))  # fmt: skip
    if held_out and numbers.known(row.test_mean):
        lines.append(("Test accuracy (do not choose by it)", f"{numbers.number(row.test_mean)} %"))
    if not held_out and numbers.known(row.best_mean):
        lines.append(("Best epoch (selected on the test set; not the headline)",
                      f"{numbers.number(row.best_mean)} %"))  # fmt: skip
    if row.pair in decision.on_pair and not held_out:
        if words := method_details.verdict_on_pair(decision, row.pair, row.method):
            lines.append(("On this pair", words))
        lines += method_details.place((decision.pairs[row.pair].standings or {}).get(row.method))
    return lines


def difference(row: Any, decision: Decision) -> Lines:
    """Describe its difference to the baseline on the pair."""
    key = row.method, decision.baseline or ""
    contrast = decision.pairs[row.pair].contrasts.get(key) if row.pair in decision.pairs else None
    if contrast is None:
        return []
    value = f"{numbers.signed(contrast.diff)} points, {counted(contrast.n, 'seed')} in common"
    lines = [("Paired difference", value)]
    if numbers.known(contrast.sd):
        lines.append(("Standard deviation over seeds", f"{numbers.number(contrast.sd)} points"))
    if not contrast.known:
        return lines
    return [
        *lines,
        ("95 % interval", numbers.interval(contrast.low, contrast.high)),
        ("Degrees of freedom", numbers.number(contrast.df, 1)),
        ("p, this comparison alone", numbers.p_value(contrast.p)),
        ("p, adjusted for all rows of the pair", numbers.p_value(contrast.p_adj)),
    ]


def published(row: Any) -> Lines:
    """Compare it with the published figure."""
    if not numbers.known(row.published_mean):
        return []
    second_hand = " (second-hand)" if is_second_hand(row.published_notes) else ""
    figure = numbers.spread(row.published_mean, row.published_sd)
    lines = [("Published", f"{figure} %{second_hand}")]
    if numbers.known(row.mean):
        lines.append(
            ("Here − published", f"{numbers.signed(row.mean - row.published_mean)} points")
        )
    if isinstance(row.published_source, str):
        lines.append(("Source", row.published_source))
    if isinstance(row.published_notes, str) and row.published_notes:
        lines.append(("The source's notes", row.published_notes))
    return lines


def answers(records: Sequence[Record | None]) -> Lines:
    """Describe the test accuracies of a cell's other predictions (``Method.answers``)."""
    found: dict[str, list[float]] = {}
    for record in records:
        result = record.result if record and record.status == "done" else None
        for name, accuracy in ((result.answers if result else None) or {}).items():
            found.setdefault(name, []).append(accuracy)
    lines = []
    for name, values in found.items():
        sd = statistics.stdev(values) if len(values) > 1 else None
        lines.append((name, f"{numbers.spread(statistics.fmean(values), sd)} %"))
    return lines


def cost(row: Any, baseline: str | None) -> Lines:
    """Describe what a run cost."""
    if not numbers.known(row.seconds):
        return []
    lines = []
    if numbers.known(row.time_ratio) and baseline:
        lines.append((f"Training time / {baseline}", numbers.times(row.time_ratio)))
    total = row.seconds + row.teacher_seconds
    own = (
        f"{numbers.number(total, 1)} s, of which teacher {numbers.number(row.teacher_seconds, 1)} s"
    )
    lines += [
        ("Time of a run, mean over seeds", own),
        ("One training step, without the teacher", f"{numbers.number(row.step_ms)} ms"),
        ("Parameters of the student", numbers.number(row.params, 0)),
        ("Extra parameters in training", numbers.number(row.params_extra, 0)),
        ("Parameters deployed", numbers.number(row.params_deployed, 0)),
        ("Multiply-accumulates per image", numbers.number(row.macs, 0)),
        ("Peak memory of the process", f"{numbers.number(row.peak_mb, 0)} MB"),
    ]
    return lines
