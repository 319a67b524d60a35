"""Facts about the runs: data, protocol, teachers, machine and code."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell
from kdbench.report.text.markdown import escape
from kdbench.runs.records import Record, Result
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import (
    STATUSES,
    by_pair,
    first_result,
    statuses,
    teacher_accuracy,
    teacher_ids,
)
from kdbench.stats.headline import Headline, shown_answers
from kdbench.wording import counted


def facts(aggregate: Aggregate) -> str:
    """Return ``fact_lines`` as a Markdown list."""
    lines = fact_lines(aggregate)
    return "".join(f"- **{name}**: {escape(text)}\n" for name, text in lines)


def fact_lines(aggregate: Aggregate) -> list[tuple[str, str]]:
    """Describe what was run: (name, plain text)."""
    evidence = aggregate.evidence
    grid, cells, records = evidence.grid, evidence.cells, evidence.records
    headline = aggregate.headline
    images = headline.images if headline.held_out else "the test set"
    return [
        ("Data", _data(grid, first_result(cells, records), aggregate.data)),
        ("Protocol", protocol(grid)),
        ("Objective", _objective(grid)),
        *_pair_options(grid),
        (
            "Headline",
            f"top-1 accuracy on {images} after the last epoch, in percent; no epoch, method or "
            "setting is selected on the test set by kdbench",
        ),
        *(("Rows with another accuracy", line) for line in shown_answers(headline)),
        ("Seeds", f"{', '.join(map(str, grid.seeds))}, the same for every method"),
        *_teachers(cells, records, headline),
        *_environment(cells, records),
        ("Runs", _count(cells, records)),
    ]


def _data(grid: Grid, first: Result | None, digest: str | None) -> str:
    if first is None or digest is None:
        return f"{grid.dataset.title}; not read by any run yet"
    return (
        f"{grid.dataset.title}; {first.n_train:,} training and {first.n_test:,} test images; "
        f"digest {digest}"
    )


def protocol(grid: Grid) -> str:
    """Describe all settings of a grid's protocol."""
    p = grid.protocol
    lrs = p.lr_of | {pair.student: pair.lr for pair in grid.pairs if pair.lr is not None}
    students = {pair.student for pair in grid.pairs}
    special = ", ".join(f"{name} {lr:g}" for name, lr in sorted(lrs.items()) if name in students)
    schedule: dict[str, str] = {
        "step": f"multiplied by {p.schedule.factor:g} after epochs "
        f"{', '.join(map(str, p.schedule.milestones)) or 'none'}",
        "cosine": f"cosine to 0, warm-up {p.schedule.warmup:.0%}",
        "constant": "constant",
    }
    crops = f"pad {p.crop_pad} and crop" if p.crop_pad else "no crops"
    settings = [
        counted(p.epochs, "epoch"),
        f"batch {p.batch_size}",
        f"{p.optimizer or 'SGD'}, learning rate {p.lr:g}" + (f" ({special})" if special else ""),
        schedule[p.schedule.kind],
        f"momentum {p.momentum:g}{' (Nesterov)' if p.nesterov else ''}",
        f"weight decay {p.weight_decay:g}",
        f"{crops}, {'flips' if p.flip else 'no flips'}",
        p.precision + (", compiled" if p.compile else ""),
        f"pretraining phase, if a method has one: {counted(p.pretrain_epochs, 'epoch')}",
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


def _pair_options(grid: Grid) -> list[tuple[str, str]]:
    """Describe the options that methods have on single pairs."""
    texts = [f"{pair}: {pair.options_text}" for pair in grid.pairs if pair.options]
    return [("Options of pairs", " | ".join(texts))] if texts else []


def _teachers(
    cells: Sequence[Cell], records: Mapping[str, Record], headline: Headline
) -> list[tuple[str, str]]:
    """Describe each teacher's accuracy and weights; warn if its students used different weights."""
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
    lines: dict[str, None] = {}
    for members in by_pair(cells).values():
        for run_id in teacher_ids(members):
            accuracy = teacher_accuracy(members, records, headline)
            digests = list(weights.get(run_id, {}))
            text = f"{members[0].teacher} (run {run_id}): "
            text += "no accuracy yet" if math.isnan(accuracy) else f"{accuracy:.2f} %"
            text += f", weights {', '.join(digest[:16] for digest in digests) or 'unknown yet'}"
            if len(digests) > 1:
                text += " - ATTENTION: not all students were trained with the same weights"
            lines[text] = None
    return [("Teachers", "; ".join(lines))] if lines else []


def _environment(cells: Iterable[Cell], records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Describe the machines and code of the runs, with a warning if they differ."""
    # Most records share one environment, so each environment is described once.
    runs: Counter[int] = Counter()
    environments: dict[int, Mapping[str, Any]] = {}
    for run_id in dict.fromkeys(run.id for cell in cells for run in cell.runs):
        record = records.get(run_id)
        if record is not None and record.result is not None:
            key = id(record.environment)
            runs[key] += 1
            environments[key] = record.environment
    seen: dict[str, Counter[str]] = {"Machine": Counter(), "Code": Counter()}
    varying: dict[str, None] = {}
    for key, environment in environments.items():
        seen["Machine"][_machine(environment)] += runs[key]
        seen["Code"][_code(environment)] += runs[key]
        varying |= dict.fromkeys(environment.get("nondeterministic") or ())
    lines = []
    for name, counts in seen.items():
        descriptions = [
            f"{text} ({counted(n, 'run')})" if len(counts) > 1 else text
            for text, n in counts.items()
        ]
        warning = "ATTENTION: not the same for all runs: " if len(counts) > 1 else ""
        if descriptions:
            lines.append((name, warning + "; ".join(descriptions)))
    if varying:
        operations = ", ".join(sorted(varying))
        lines.append(
            ("Repeatability", f"these operations of some runs vary in the last bits: {operations}")
        )
    return lines


def _machine(environment: Mapping[str, Any]) -> str:
    device = str(environment.get("device", "device not recorded"))
    on_cpu = device == "cpu" and environment.get("processor")
    threads = environment.get("threads")
    torch = environment.get("versions", {}).get("torch")
    parts = [f"cpu ({processor(environment)})" if on_cpu else device]
    parts += _libraries(environment)
    parts += [counted(threads, "thread")] if threads else []
    parts += [f"torch {torch}"] if torch else []
    return ", ".join(parts)


def processor(environment: Mapping[str, Any]) -> str:
    """Name the processor of a record, with the vector instructions that were in use."""
    words = [environment.get("processor"), environment.get("cpu_capability")]
    if limit := environment.get("onednn_limit"):
        words.append(f"oneDNN limited to {limit}")
    return ", ".join(str(word) for word in words if word)


def gpu(environment: Mapping[str, Any]) -> str:
    """Describe a record's GPU beyond its name; "" if it was made on a CPU."""
    words = _libraries(environment)
    for text, key in (
        ("driver {}", "driver"),
        ("capability {}", "capability"),
        ("{} multiprocessors", "multiprocessors"),
        ("{:,} MB", "gpu_mb"),
    ):
        if environment.get(key):
            words.append(text.format(environment[key]))
    if "tf32" in environment:
        words.append(f"convolutions in {'TF32' if environment['tf32'] else 'IEEE precision'}")
    if environment.get("deterministic") is False:
        words.append("NOT DETERMINISTIC")
    return ", ".join(words)


def _libraries(environment: Mapping[str, Any]) -> list[str]:
    """Name a GPU's libraries, which decide bits."""
    versions = ("CUDA", environment.get("cuda")), ("cuDNN", environment.get("cudnn"))
    return [f"{name} {version}" for name, version in versions if version]


def _code(environment: Mapping[str, Any]) -> str:
    version = environment.get("versions", {}).get("kdbench")
    commit = environment.get("commit")
    parts = [f"kdbench {version}"] if version else []
    parts.append(f"commit {commit[:12]}" if commit else "commit not recorded")
    return ", ".join(parts) + (" WITH UNCOMMITTED CHANGES" if environment.get("dirty") else "")


def _count(cells: Iterable[Cell], records: Mapping[str, Record]) -> str:
    counts = statuses(cells, records)
    parts = [f"{counts.get(status, 0)} {status}" for status in STATUSES]
    return f"{sum(counts.values())}: {', '.join(parts)}"
