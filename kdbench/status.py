"""Where a grid and its runs stand, read off ``runs/``."""

import csv
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from kdbench import cell, progress, records
from kdbench.expand import Expansion
from kdbench.grid import Grid
from kdbench.live import duration
from kdbench.progress import Beat
from kdbench.records import Record, RecordError
from kdbench.run import Cell, Run
from kdbench.slurm import claims
from kdbench.trained import about

ORDER = ("done", "running", "queued", "pending", "blocked", "diverged", "failed", "skipped")


def states(
    runs: Iterable[Run],
    found: Mapping[str, Record],
    beats: Mapping[str, Beat],
    queued: Collection[str] = (),
) -> dict[str, str]:
    """How each run stands: its record's status, or running, queued, pending, or blocked.

    Args:
        runs: those that others learn from before these.
        found: records. beats: fresh heartbeats. queued: ids of runs that wait in Slurm's queue.
    """
    out: dict[str, str] = {}
    for run in runs:
        record = found.get(run.id)
        if record is not None:
            out[run.id] = record.status
        elif run.id in beats:
            out[run.id] = "running"
        elif run.id in queued:
            out[run.id] = "queued"
        else:
            # Nobody can learn from one that ended without a network, or never will end.
            teacher = out.get(run.teacher.run, "done") if run.teacher else "done"
            ends = teacher in ("done", "running", "queued", "pending")
            out[run.id] = "pending" if ends else "blocked"
    return out


def count(one: Iterable[str]) -> str:
    """``3 done, 1 failed``; nothing for none."""
    total = Counter(one)
    return ", ".join(f"{total[name]} {name}" for name in ORDER if total[name])


def rows(expansion: Expansion) -> Iterator[tuple[str, Cell]]:
    """The pairs' names and cells; teachers and auxiliary teachers come once, first."""
    seen: set[str] = set()
    shown = {run.id for one in expansion.cells for run in one.runs}
    for run in expansion.runs:
        if run.id not in shown and run.teacher:
            pair = f"{run.teacher.arch} -> {run.student}"
            yield pair, Cell(f"{run.method} (auxiliary)", run.teacher.arch, run.student, (run,))
    for one in expansion.cells:
        if one.method != "teacher":
            yield f"{one.teacher} -> {one.student}", one
        elif one.teacher not in seen:
            seen.add(one.teacher)
            yield one.teacher, one


def render(grid: Grid, expansion: Expansion, runs: Path) -> Group:
    """One line per cell, and a line that counts."""
    ids = [run.id for run in expansion.runs]
    found = records.load(runs, ids)
    beats = progress.load(runs, (i for i in ids if i not in found))
    how = states(expansion.runs, found, beats, claims.queued(runs))
    table = Table(
        Column("pair", no_wrap=True),
        Column("method", no_wrap=True),
        Column("runs", justify="right"),
        "state",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    last = ""
    for pair, one in rows(expansion):
        if pair != last and last:
            table.add_section()
        state = Text(_cell(one, how, found, beats))
        table.add_row(
            Text(pair if pair != last else ""), Text(one.method), str(len(one.runs)), state
        )
        last = pair
    line = f"{len(ids)} runs: {count(how.values())}"
    return Group(Text(grid.title, style="bold"), table, Text(line))


def _cell(
    one: Cell, how: Mapping[str, str], found: Mapping[str, Record], beats: Mapping[str, Beat]
) -> str:
    parts = [count(how[run.id] for run in one.runs)]
    accs = [r.result.test_acc for run in one.runs if (r := found.get(run.id)) and r.result]
    if accs:
        parts.append(f"{sum(accs) / len(accs):.2f} %")
    for run in one.runs:
        beat = beats.get(run.id)
        if beat:
            acc = f"{beat.acc:.1f} %, " if beat.acc is not None else ""
            phase = "first phase, " if beat.phase == "pretrain" else ""
            parts.append(
                f"seed {run.seed}: {phase}epoch {beat.epoch}/{beat.epochs}, {acc}"
                f"{duration(beat.eta)} to go"
            )
    reasons: dict[str, list[int]] = {}
    for run in one.runs:
        record = found.get(run.id)
        if record and record.reason:
            reasons.setdefault(record.reason, []).append(run.seed)
    for reason, seeds in list(reasons.items())[:3]:
        which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
        parts.append(f"{which}: {reason}")
    return "; ".join(part for part in parts if part)


def watching(grid: Grid, expansion: Expansion, runs: Path) -> None:
    """Show ``render`` until every run has ended, none can go on, or Ctrl-C."""
    console = Console()
    with Live(render(grid, expansion, runs), console=console, auto_refresh=False) as view:
        while _going(expansion, runs):
            time.sleep(2)
            view.update(render(grid, expansion, runs), refresh=True)


def _going(expansion: Expansion, runs: Path) -> bool:
    found = records.load(runs, (run.id for run in expansion.runs))
    return "pending" in states(expansion.runs, found, {}).values()


def forget(expansion: Expansion, runs: Path, wanted: Iterable[str]) -> list[Run]:
    """Put aside the records with these statuses, and damaged ones: their runs are missing again.

    A teacher whose checkpoint is damaged or gone is of use to nobody: it is trained again, too.
    """
    wanted = set(wanted)
    taught = {run.teacher.run for run in expansion.runs if run.teacher}
    forgotten = []
    for run in expansion.runs:
        try:
            record = records.read(runs, run.id)
            bad = record is not None and record.status in wanted
            done = record is not None and record.status == "done"
        except RecordError:
            bad, done = True, False
        if bad or (done and run.id in taught and not _usable(runs, run)):
            path = records.folder(runs, run.id) / "record.json"
            path.replace(path.with_name("record.previous.json"))
            forgotten.append(run)
    return forgotten


def _usable(runs: Path, run: Run) -> bool:
    """Whether the network that a run left can be read."""
    from kdbench.checkpoint import CheckpointDamaged, read  # imports torch

    try:
        return "model" in read(records.folder(runs, run.id) / "checkpoint.pt")
    except CheckpointDamaged:
        return False


def one_run(runs: Path, run_id: str) -> Group:
    """All there is to know of one run; ``run_id`` may be the start of an id.

    Raises:
        UserError: no run, or several, start so.
    """
    name = records.find(runs, run_id)
    record = records.read(runs, name)
    lines = _imported(runs, name) if name.startswith("import-") else _trained(runs, name)
    if record is None:
        beat = progress.read(runs, name)
        how = f"running, epoch {beat.epoch}/{beat.epochs}" if beat else "not ended"
        return Group(*lines, Text(how))
    lines.append(Text(f"{record.status}{': ' + record.reason if record.reason else ''}"))
    for title, part in (("result", record.result), ("cost", record.cost)):
        if part is not None:
            told = {key: value for key, value in vars(part).items() if value is not None}
            lines.append(Text(f"{title}: {json.dumps(told)}"))
    lines.append(Text(f"environment: {json.dumps(record.environment)}"))
    lines += [Text(f"attempt: {attempt}") for attempt in record.attempts]
    lines += [Text(record.traceback.rstrip(), style="red")] if record.traceback else []
    curve = _curve(records.folder(runs, name) / "history.csv")
    return Group(*lines, *([curve] if curve else []))


def _trained(runs: Path, name: str) -> list[Text]:
    run = records.read_run(runs, name)
    return [
        Text(f"{run.title}, {run.method}", style="bold"),
        Text(f"run {name}"),
        Text(f"protocol {run.protocol}, dataset {run.dataset.title}"),
        Text(f"config: {json.dumps(run.to_json())}"),
        Text(f"again: {cell.command(run, partial(records.read_run, runs))}"),
    ]


def _imported(runs: Path, name: str) -> list[Text]:
    told = about(runs, name)
    return [
        Text(f"{told.get('student')}, imported", style="bold"),
        Text(f"run {name}"),
        Text(f"config: {json.dumps(told)}"),
        Text(f"in a grid: teachers: {{{told.get('student')}: {name}}}"),
    ]


def _curve(path: Path) -> Table | None:
    """Some twelve rows of a run's history."""
    if not path.exists():
        return None
    with path.open(newline="") as file:
        history = list(csv.DictReader(file))
    columns = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    every = max(1, len(history) // 12)
    for i, row in enumerate(history):
        if i % every == 0 or i == len(history) - 1:
            table.add_row(*(f"{float(row[name]):g}" for name in columns))
    return table
