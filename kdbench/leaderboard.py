"""A grid's cells and records to ``results/<grid>/``: one page, its CSV and its plot.

The page is a pure function of grid and records: no clock, no machine of its own.
"""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench import plots, published, stats, tables
from kdbench.errors import UserError
from kdbench.grid import Grid
from kdbench.records import Record, Result, write_atomically
from kdbench.run import Cell
from kdbench.tables import Table, escape

if TYPE_CHECKING:
    import pandas as pd
    import rich.table


class LeaderboardError(UserError):
    """Records that do not belong into one table, or a reference that is no published table."""


def write(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], results: Path) -> Path:
    """Write ``results/<grid>/leaderboard.{md,csv}`` and ``plots/accuracy.{svg,png}``.

    Returns:
        The page.

    Raises:
        LeaderboardError: records of different data; an unknown reference.
        OSError: the folder cannot be written; every file in it is then as before or whole.
    """
    frame = _tidy(grid, cells, records)
    page = markdown(grid, cells, records, frame)
    csv = frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")
    figure = plots.accuracy(grid.title, cells, records)
    target = results / grid.name
    (target / "plots").mkdir(parents=True, exist_ok=True)
    write_atomically(target / "leaderboard.csv", csv)
    write_atomically(target / "plots" / "accuracy.svg", plots.svg(figure))
    write_atomically(target / "plots" / "accuracy.png", plots.png(figure))
    write_atomically(target / "leaderboard.md", page)
    return target / "leaderboard.md"


def terminal(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]
) -> "rich.table.Table":
    """The main table for ``rich.print``.

    Raises:
        LeaderboardError: as ``write``.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    frame = _tidy(grid, cells, records)
    table = tables.accuracy(frame, ari_of=_ari_of(grid, cells))
    out = RichTable(title=Text(grid.title), box=box.SIMPLE_HEAD)
    columns = [str(name) for name in table.rows.columns]
    for i, name in enumerate(columns):
        out.add_column(Text(name), justify="left" if i == 0 else "right")
    for i, row in enumerate(table.rows.itertuples(index=False)):
        marked = zip(columns, row, strict=True)
        out.add_row(
            *(Text(str(text), "bold" if (i, name) in table.bold else "") for name, text in marked)
        )
    out.caption = Text("Bold: the best, and all not distinguishable from it. (k/n): k of n seeds.")
    return out


def markdown(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], frame: "pd.DataFrame"
) -> str:
    """The page.

    Args:
        frame: of ``tables.tidy``.
    """
    parts = [
        f"# {escape(grid.title)}\n",
        _commands(grid),
        _facts(grid, cells, records),
        _claims(grid, cells, records, frame),
        *(tables.markdown(table) for table in _main_tables(grid, cells, frame)),
        _unfinished(frame),
        "## Every seed\n\n![Accuracy of every seed, a panel per pair](plots/accuracy.svg)\n",
        *(tables.markdown(table) for table in _further_tables(grid, cells, frame)),
        "All numbers of this page, and the ids of every cell's runs, are in "
        "[leaderboard.csv](leaderboard.csv); `kdbench show ID` prints a run and the command that "
        "repeats it.\n",
    ]
    return "\n".join(part for part in parts if part)


def check_data(grid: Grid, cells: Iterable[Cell], records: Mapping[str, Record]) -> str | None:
    """The digest of the data that all records used; None without records.

    Raises:
        LeaderboardError: they used different data.
    """
    same_teacher_data = grid.teacher.dataset in (None, grid.dataset)
    runs: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.method == "teacher" and not same_teacher_data:
            continue
        for run in cell.runs:
            record = records.get(run.id)
            if record and record.result:
                runs.setdefault(record.result.data, {})[run.id] = None
    if len(runs) > 1:
        *few, most = sorted(runs.items(), key=lambda item: (len(item[1]), item[0]))
        told = "; ".join(
            f"{', '.join(list(ids)[:5])}{', ...' if len(ids) > 5 else ''} "
            f"{'has' if len(ids) == 1 else 'have'} {digest[:12]}"
            for digest, ids in few
        )
        raise LeaderboardError(
            f"{grid.source}: its runs used different data and do not belong into one table: "
            f"{told}; the other {len(most[1])} (e.g. {next(iter(most[1]))}) {most[0][:12]}"
        )
    return next(iter(runs), None)


def _tidy(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> "pd.DataFrame":
    check_data(grid, cells, records)
    try:
        return tables.tidy(grid, cells, records)
    except ValueError as error:
        raise LeaderboardError(f"{grid.source}: {error}") from error


def _ari_of(grid: Grid, cells: Sequence[Cell]) -> str | None:
    return tables.find(cells, grid.report.ari_of) if grid.report.ari_of else None


# --- the top of the page ---


def _commands(grid: Grid) -> str:
    source = shlex.quote(" ".join(grid.source.split()))
    return (
        "```sh\n"
        f"kdbench report --grid {source}   # writes this page again from the records\n"
        f"kdbench run --grid {source}      # trains what is missing\n"
        "```\n"
    )


def _facts(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> str:
    """What was run, as a list."""
    results = _results(cells, records)
    lines = [
        ("Data", _data(grid, results, check_data(grid, cells, records))),
        ("Protocol", _protocol(grid)),
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
    return "".join(f"- **{name}**: {escape(text)}\n" for name, text in lines)


def _results(cells: Iterable[Cell], records: Mapping[str, Record]) -> list[Result]:
    """Of the students, in the order of the grid."""
    found = (records.get(run.id) for cell in cells if cell.method != "teacher" for run in cell.runs)
    return [record.result for record in found if record and record.result]


def _data(grid: Grid, results: Sequence[Result], digest: str | None) -> str:
    if not results or digest is None:
        return f"{grid.dataset.title}; no run has read it yet"
    first = results[0]
    return (
        f"{grid.dataset.title}; {first.n_train:,} training and {first.n_test:,} test images; "
        f"digest {digest}"
    )


def _protocol(grid: Grid) -> str:
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
        p.precision,
        f"first phase, where a method has one, {p.pretrain_epochs} epochs",
    ]
    source = f" [{p.source}]" if p.source else ""
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
    for members in stats.by_pair(cells).values():
        for run_id in stats.teacher_ids(members):
            accuracy = stats.teacher_accuracy(members, records)
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
    seen: dict[str, Counter[str]] = {"Machine": Counter(), "Code": Counter()}
    for run_id in dict.fromkeys(run.id for cell in cells for run in cell.runs):
        record = records.get(run_id)
        if record is None or record.result is None:
            continue
        seen["Machine"][_machine(record.environment)] += 1
        seen["Code"][_code(record.environment)] += 1
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
    parts = [f"cpu ({environment['processor']})" if on_cpu else device]
    parts += [f"{threads} thread{'' if threads == 1 else 's'}"] if threads else []
    parts += [f"torch {torch}"] if torch else []
    return ", ".join(parts)


def _code(environment: Mapping[str, Any]) -> str:
    version = environment.get("versions", {}).get("kdbench")
    commit = environment.get("commit")
    parts = [f"kdbench {version}"] if version else []
    parts.append(f"commit {commit[:12]}" if commit else "commit not recorded")
    return ", ".join(parts) + (" WITH UNCOMMITTED CHANGES" if environment.get("dirty") else "")


def _count(cells: Iterable[Cell], records: Mapping[str, Record]) -> str:
    runs = {run.id: run for cell in cells for run in cell.runs}
    statuses = stats.summarise(list(runs.values()), records).statuses
    told = [f"{statuses.get(status, 0)} {status}" for status in stats.STATUSES]
    return f"{len(runs)}: {', '.join(told)}"


# --- what it supports ---


def _claims(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], frame: "pd.DataFrame"
) -> str:
    baseline = tables.find(cells, grid.report.baseline)
    against = [grid.report.against.strip() or "The grid's file does not say."]
    against += _test_set(_results(cells, records), frame)
    against += _seeds(frame, baseline)
    against.append(_one_teacher(grid))
    supports = [grid.report.supports.strip() or "The grid's file does not say."]
    supports += _told_apart(frame, baseline)
    lines = ["**What this supports**", *_items(supports)]
    lines += ["", "**What it does not**", *_items(against)]
    return "\n".join(lines) + "\n"


def _items(texts: Iterable[str]) -> list[str]:
    return ["", *(f"- {escape(text)}" for text in texts)]


def _told_apart(frame: "pd.DataFrame", baseline: str | None) -> list[str]:
    """Which differences to the baseline a test tells from 0."""
    tested = frame[frame["p_holm"].notna()]
    if baseline is None or tested.empty:
        return []
    told = tested[tested["p_holm"] < stats.ALPHA]
    texts = [
        f"{method} on {pair} ({diff:+.2f})"
        for method, pair, diff in zip(told["method"], told["pair"], told["diff"], strict=True)
    ]
    shown = "; ".join(texts[:12]) + (f"; and {len(texts) - 12} more" if len(texts) > 12 else "")
    return [
        f"Different from {baseline} (paired t test, 5 %, Holm-adjusted within a pair): "
        f"{len(told)} of {len(tested)}{': ' + shown if texts else ''}."
    ]


def _test_set(results: Sequence[Result], frame: "pd.DataFrame") -> list[str]:
    means = frame.loc[(frame["method"] != "teacher") & (frame["n"] > 0), "mean"]
    if not results or means.empty:
        return []
    typical, n_test = float(means.mean()), results[0].n_test
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


# --- tables ---


def _main_tables(grid: Grid, cells: Sequence[Cell], frame: "pd.DataFrame") -> list[Table]:
    baseline, reference = tables.find(cells, grid.report.baseline), _ari_of(grid, cells)
    out = [tables.accuracy(frame, ari_of=reference)]
    if baseline and frame["diff_n"].notna().any():
        out.append(tables.differences(frame, baseline))
    return out


def _further_tables(grid: Grid, cells: Sequence[Cell], frame: "pd.DataFrame") -> list[Table]:
    baseline, reference = tables.find(cells, grid.report.baseline), _ari_of(grid, cells)
    out = []
    if reference and frame["ari_unreliable"].notna().any():
        out.append(tables.improvements(frame, reference))
    if grid.report.reference:
        out.append(_published(grid, frame))
    if frame["seconds"].notna().any():
        out.append(tables.costs(frame, baseline))
    out += [tables.best_epoch(frame), tables.objectives(cells)]
    return out


def _published(grid: Grid, frame: "pd.DataFrame") -> Table:
    reference = str(grid.report.reference)
    table = tables.published_figures(frame, reference)
    notes = [
        f"Published on {', '.join(published.datasets(reference))}, here {grid.dataset.title} under "
        f"{grid.protocol.name}. Figures of other data are left out; whether the protocols agree is "
        "for the reader to judge: a paper may report the best epoch, or use other teachers.",
    ]
    return Table(table.title, table.rows, table.bold, (*notes, *table.notes))


def _unfinished(frame: "pd.DataFrame") -> str:
    """Why cells are not whole."""
    lines = [f"- {escape(line)}" for line in tables.reasons(frame)]
    missing = int(frame["missing"].sum())
    if missing:
        lines.append(f"- {missing} of the runs in this table have no record yet.")
    return "\n".join(["## What is not there", "", *lines]) + "\n" if lines else ""
