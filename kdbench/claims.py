"""The top of a page: what was run, and what the evidence supports and what not."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdbench import stats
from kdbench.grid import Grid
from kdbench.markdown import escape
from kdbench.records import Record, Result
from kdbench.run import Cell
from kdbench.summary import STATUSES, by_pair, first_result, statuses, teacher_accuracy, teacher_ids
from kdbench.tidy import find

if TYPE_CHECKING:
    import pandas as pd


def facts(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], digest: str | None
) -> str:
    """What was run, as a Markdown list of ``fact_lines``."""
    lines = fact_lines(grid, cells, records, digest)
    return "".join(f"- **{name}**: {escape(text)}\n" for name, text in lines)


def fact_lines(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], digest: str | None
) -> list[tuple[str, str]]:
    """What was run: (name, text), plain; ``digest`` of the data, None where no run has read it."""
    return [
        ("Data", _data(grid, first_result(cells, records), digest)),
        ("Protocol", protocol(grid)),
        ("Objective", _objective(grid)),
        (
            "Headline",
            "top-1 accuracy on the test set after the last epoch, in percent; no epoch, method or "
            "setting is selected on the test set by kdbench",
        ),
        ("Seeds", f"{', '.join(map(str, grid.seeds))}, the same for every method"),
        *_teachers(grid, cells, records),
        *_environment(cells, records),
        ("Runs", _count(cells, records)),
    ]


def _data(grid: Grid, first: Result | None, digest: str | None) -> str:
    if first is None or digest is None:
        return f"{grid.dataset.title}; no run has read it yet"
    return (
        f"{grid.dataset.title}; {first.n_train:,} training and {first.n_test:,} test images; "
        f"digest {digest}"
    )


def protocol(grid: Grid) -> str:
    """All settings of a grid's protocol."""
    p = grid.protocol
    lrs = p.lr_of | {pair.student: pair.lr for pair in grid.pairs if pair.lr is not None}
    students = {pair.student for pair in grid.pairs}
    own = ", ".join(f"{name} {lr:g}" for name, lr in sorted(lrs.items()) if name in students)
    schedule: dict[str, str] = {
        "step": f"times {p.schedule.factor:g} after epochs "
        f"{', '.join(map(str, p.schedule.milestones)) or 'none'}",
        "cosine": f"cosine to 0, warm-up {p.schedule.warmup:.0%}",
        "constant": "constant",
    }
    crops = f"pad {p.crop_pad} and crop" if p.crop_pad else "no crops"
    settings = [
        f"{p.epochs} epochs",
        f"batch {p.batch_size}",
        f"SGD, learning rate {p.lr:g}" + (f" ({own})" if own else ""),
        schedule[p.schedule.kind],
        f"momentum {p.momentum:g}{' (Nesterov)' if p.nesterov else ''}",
        f"weight decay {p.weight_decay:g}",
        f"{crops}, {'flips' if p.flip else 'no flips'}",
        p.precision + (", compiled" if p.compile else ""),
        f"first phase, where a method has one, {p.pretrain_epochs} epochs",
    ]
    source = f" ({p.source})" if p.source else ""
    return f"{p.name}{source}: {'; '.join(settings)}"


def _objective(grid: Grid) -> str:
    p = grid.protocol
    return (
        "gamma·CE + alpha·T²·KL + sum of beta·term, "
        f"gamma {p.gamma:g}, alpha {p.alpha:g}, T {p.temperature:g} unless a method says otherwise "
        "(see Objectives)"
    )


def _teachers(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]
) -> list[tuple[str, str]]:
    """Accuracy and weights of each teacher, and whether all its students had these weights."""
    weights: dict[str, dict[str, None]] = {}
    for cell in cells:
        for run in cell.runs:
            record = records.get(run.id)
            result = record.result if record else None
            if result is None:
                continue
            if cell.method == "teacher":
                weights.setdefault(run.id, {})[result.weights] = None
            elif run.teacher and result.teacher_weights:
                weights.setdefault(run.teacher.run, {})[result.teacher_weights] = None
    told: dict[str, None] = {}
    for members in by_pair(cells).values():
        for run_id in teacher_ids(members):
            accuracy = teacher_accuracy(members, records)
            digests = list(weights.get(run_id, {}))
            text = f"{members[0].teacher} (run {run_id}): "
            text += "no accuracy yet" if math.isnan(accuracy) else f"{accuracy:.2f} %"
            text += f", weights {', '.join(digest[:16] for digest in digests) or 'not known yet'}"
            if len(digests) > 1:
                text += " - ATTENTION: not all students learned from the same weights"
            told[text] = None
    return [("Teachers", "; ".join(told))] if told else []


def _environment(cells: Iterable[Cell], records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Where the runs were trained, with what; a difference between runs is pointed out."""
    # Most records share one environment: each is looked at once.
    runs: Counter[int] = Counter()
    environments: dict[int, Mapping[str, Any]] = {}
    for run_id in dict.fromkeys(run.id for cell in cells for run in cell.runs):
        record = records.get(run_id)
        if record is not None and record.result is not None:
            key = id(record.environment)
            runs[key] += 1
            environments[key] = record.environment
    seen: dict[str, Counter[str]] = {"Machine": Counter(), "Code": Counter()}
    for key, environment in environments.items():
        seen["Machine"][_machine(environment)] += runs[key]
        seen["Code"][_code(environment)] += runs[key]
    lines = []
    for name, counts in seen.items():
        told = [f"{text} ({n} runs)" if len(counts) > 1 else text for text, n in counts.items()]
        several = "ATTENTION: not the same for all runs: " if len(counts) > 1 else ""
        if told:
            lines.append((name, several + "; ".join(told)))
    return lines


def _machine(environment: Mapping[str, Any]) -> str:
    device = str(environment.get("device", "device not recorded"))
    on_cpu = device == "cpu" and environment.get("processor")
    threads = environment.get("threads")
    torch = environment.get("versions", {}).get("torch")
    parts = [f"cpu ({processor(environment)})" if on_cpu else device]
    parts += [f"{threads} thread{'' if threads == 1 else 's'}"] if threads else []
    parts += [f"torch {torch}"] if torch else []
    return ", ".join(parts)


def processor(environment: Mapping[str, Any]) -> str:
    """Name the processor of a record, with the vector instructions that were in use."""
    words = [environment.get("processor"), environment.get("cpu_capability")]
    if limit := environment.get("onednn_limit"):
        words.append(f"oneDNN limited to {limit}")
    return ", ".join(str(word) for word in words if word)


def _code(environment: Mapping[str, Any]) -> str:
    version = environment.get("versions", {}).get("kdbench")
    commit = environment.get("commit")
    parts = [f"kdbench {version}"] if version else []
    parts.append(f"commit {commit[:12]}" if commit else "commit not recorded")
    return ", ".join(parts) + (" WITH UNCOMMITTED CHANGES" if environment.get("dirty") else "")


def _count(cells: Iterable[Cell], records: Mapping[str, Record]) -> str:
    found = statuses(cells, records)
    told = [f"{found.get(status, 0)} {status}" for status in STATUSES]
    return f"{sum(found.values())}: {', '.join(told)}"


# --- what it supports ---


def claims(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], frame: "pd.DataFrame"
) -> str:
    """What this supports and what it does not, as Markdown; ``frame`` is that of ``tidy``."""
    supports, against = claim_lines(grid, cells, records, frame)
    lines = ["**What this supports**", *_items(supports)]
    lines += ["", "**What it does not**", *_items(against)]
    return "\n".join(lines) + "\n"


def claim_lines(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], frame: "pd.DataFrame"
) -> tuple[list[str], list[str]]:
    """What this supports and what it does not: plain sentences."""
    baseline = find(cells, grid.report.baseline)
    against = [grid.report.against.strip() or "The grid's file does not say."]
    against += _test_set(first_result(cells, records), frame)
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
    told = tested[tested["p_holm"] < stats.ALPHA]
    first = told.head(12)
    texts = [
        f"{method} on {pair} ({diff:+.2f})"
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
    se = stats.standard_error(typical, n_test)
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
    sd = stats.pooled_sd(stats.Difference(int(n), nan, float(s), nan, nan, nan) for n, s in pairs)
    n = int(rows["diff_n"].median())
    return [
        f"Differences: with {n} seeds and a spread of paired differences to {baseline} of "
        f"{sd:.2f} points (pooled), a true difference below "
        f"{stats.detectable_difference(sd, n):.2f} points is missed more often than in one case of "
        "five (two-sided 5 %, power 80 %), before any adjustment for the number of methods."
    ]


def _one_teacher(grid: Grid) -> str:
    return (
        "Teachers: one training of each (seed "
        f"{grid.teacher.seed}, or an imported checkpoint), so the variance between teachers is in "
        "no ± and no interval."
    )
