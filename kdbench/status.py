"""Where a grid and its runs stand, read off ``runs/``."""

import csv
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdbench import cell, progress, records
from kdbench.errors import UserError
from kdbench.expand import Expansion
from kdbench.grid import Grid
from kdbench.live import duration
from kdbench.progress import Beat
from kdbench.records import Record
from kdbench.run import Cell, Run

ORDER = ("done", "running", "pending", "blocked", "diverged", "failed", "skipped")


def state(run: Run, found: Mapping[str, Record], beats: Mapping[str, Beat]) -> str:
    """How a run stands: a record's status, or running, pending, blocked by its teacher."""
    record = found.get(run.id)
    if record is not None:
        return record.status
    if run.id in beats:
        return "running"
    teacher = found.get(run.teacher.run) if run.teacher else None
    return "blocked" if teacher is not None and teacher.status != "done" else "pending"


def render(grid: Grid, expansion: Expansion, runs: Path) -> Group:
    """One line per cell, and a line that counts."""
    ids = [run.id for run in expansion.runs]
    found = records.load(runs, ids)
    beats = progress.load(runs, (i for i in ids if i not in found))
    table = Table("pair", "method", "seeds", "state", title=Text(grid.title), title_justify="left")
    taught: set[str] = set()
    for one in expansion.cells:
        if one.method == "teacher":
            if one.teacher in taught or not one.runs:
                continue
            taught.add(one.teacher)
        pair = one.teacher if one.method == "teacher" else f"{one.teacher} -> {one.student}"
        about = _cell(one, found, beats)
        table.add_row(Text(pair), Text(one.method), str(len(one.runs)), Text(about))
    count = Counter(state(run, found, beats) for run in expansion.runs)
    line = ", ".join(f"{count[name]} {name}" for name in ORDER if count[name])
    return Group(table, Text(f"{len(expansion.runs)} runs: {line}"))


def _cell(one: Cell, found: Mapping[str, Record], beats: Mapping[str, Beat]) -> str:
    states = Counter(state(run, found, beats) for run in one.runs)
    parts = [f"{states[name]} {name}" for name in ORDER if states[name]]
    if len(parts) == 1:
        parts = [next(iter(states))]
    accs = [r.result.test_acc for run in one.runs if (r := found.get(run.id)) and r.result]
    if accs:
        parts.append(f"{sum(accs) / len(accs):.2f} %")
    for run in one.runs:
        beat, record = beats.get(run.id), found.get(run.id)
        if beat:
            acc = f"{beat.acc:.1f} %, " if beat.acc is not None else ""
            parts.append(
                f"seed {run.seed}: epoch {beat.epoch}/{beat.epochs}, {acc}"
                f"{duration(beat.eta)} to go"
            )
        elif record and record.reason:
            parts.append(f"seed {run.seed}: {record.reason}")
            break
    return "; ".join(parts)


def watching(grid: Grid, expansion: Expansion, runs: Path) -> None:
    """Show ``render`` until every run has ended or Ctrl-C."""
    console = Console()
    try:
        with Live(render(grid, expansion, runs), console=console, auto_refresh=False) as view:
            while any(records.read(runs, run.id) is None for run in expansion.runs):
                time.sleep(1)
                view.update(render(grid, expansion, runs), refresh=True)
    except KeyboardInterrupt:
        return


def forget(expansion: Expansion, runs: Path, wanted: Iterable[str]) -> list[Run]:
    """Put aside the records with these statuses, so that their runs are missing again."""
    wanted = set(wanted)
    forgotten = []
    for run in expansion.runs:
        record = records.read(runs, run.id)
        if record is not None and record.status in wanted:
            path = records.folder(runs, run.id) / "record.json"
            path.replace(path.with_name("record.previous.json"))
            forgotten.append(run)
    return forgotten


def one_run(runs: Path, run_id: str) -> Group:
    """All there is to know of one run; ``run_id`` may be the start of an id.

    Raises:
        UserError: no run, or several, start so.
    """
    starts = sorted(p.parent.name for p in runs.glob(f"{run_id}*/run.json"))
    if len(starts) != 1:
        what = f"{len(starts)} runs start so: {', '.join(starts[:5])}" if starts else "no such run"
        raise UserError(f"{runs}/{run_id}: {what}")
    run, record = records.read_run(runs, starts[0]), records.read(runs, starts[0])
    lines = [Text(f"{run.title}, {run.method}", style="bold"), Text(f"run {starts[0]}")]
    lines.append(Text(f"protocol {run.protocol}, dataset {run.dataset.title}"))
    if record is None:
        beat = progress.read(runs, starts[0])
        lines.append(Text(f"running, epoch {beat.epoch}/{beat.epochs}" if beat else "not ended"))
    else:
        lines.append(Text(f"{record.status}{': ' + record.reason if record.reason else ''}"))
        for name, part in (("result", record.result), ("cost", record.cost)):
            if part is not None:
                told = {k: v for k, v in vars(part).items() if v is not None}
                lines.append(Text(f"{name}: {json.dumps(told)}"))
        lines.append(Text(f"environment: {json.dumps(record.environment)}"))
        lines += [Text(record.traceback, style="red")] if record.traceback else []
        lines += [Text(f"attempt: {attempt}") for attempt in record.attempts]
    lines.append(Text(f"config: {json.dumps(run.to_json())}"))
    curve = _curve(records.folder(runs, starts[0]) / "history.csv")
    if not starts[0].startswith("import-"):
        lines.append(Text(f"again: {cell.command(run, runs)}"))
    return Group(*lines, *([curve] if curve else []))


def _curve(path: Path) -> Table | None:
    """Some twelve rows of a run's history."""
    if not path.exists():
        return None
    with path.open() as file:
        rows = list(csv.DictReader(file))
    columns = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc")
    table = Table(*columns)
    every = max(1, len(rows) // 12)
    for i, row in enumerate(rows):
        if i % every == 0 or i == len(rows) - 1:
            table.add_row(*(f"{float(row[name]):g}" for name in columns))
    return table
