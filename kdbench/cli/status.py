"""Where a grid and its runs stand, read off ``runs/``."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from kdbench.cli.live_view import duration
from kdbench.execution.slurm import queued_runs
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell, Run
from kdbench.runs import heartbeat, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.records import Record

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
            cell = Cell(f"{run.method} (auxiliary)", run.teacher.arch, run.student, (run,))
            yield cell.pair, cell
    for one in expansion.cells:
        if one.method != "teacher":
            yield one.pair, one
        elif one.teacher not in seen:
            seen.add(one.teacher)
            yield one.teacher, one


def render(grid: Grid, expansion: Expansion, runs: Path) -> Group:
    """One line per cell, and a line that counts."""
    ids = [run.id for run in expansion.runs]
    found = records.load(runs, ids)
    beats = heartbeat.load(runs, (i for i in ids if i not in found))
    how = states(expansion.runs, found, beats, queued_runs.queued(runs))
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
