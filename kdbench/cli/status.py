"""State of a grid and its runs, read from ``runs/``."""

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from kdbench.cli.safe_console import SafeConsole
from kdbench.execution.slurm import queued_runs
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell, Run
from kdbench.runs import heartbeat, lease, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.lease import Holder
from kdbench.runs.records import Record
from kdbench.stats.headline import ON_TEST, Headline, headline
from kdbench.wording import duration

ORDER = ("done", "running", "queued", "held", "pending", "blocked", "diverged", "failed", "skipped")


def states(
    runs: Iterable[Run],
    loaded: Mapping[str, Record],
    beats: Mapping[str, Beat],
    queued: Collection[str] = (),
    held: Collection[str] = (),
) -> dict[str, str]:
    """Return the state of each run: its record's status, or the first of these that applies.

    running: it has a recent heartbeat; queued; held: a process has its lease, but no recent
    heartbeat; blocked: its teacher has no result and never will; pending.

    Args:
        runs: runs, teachers before their students.
        loaded: records by run id.
        beats: recent heartbeats by run id.
        queued: ids of runs that wait in Slurm's queue.
        held: ids of runs with a lease.
    """
    state: dict[str, str] = {}
    for run in runs:
        record = loaded.get(run.id)
        if record is not None:
            state[run.id] = record.status
        elif run.id in beats:
            state[run.id] = "running"
        elif run.id in queued:
            state[run.id] = "queued"
        elif run.id in held:
            state[run.id] = "held"
        else:
            # A student is blocked if its teacher has failed or can never be trained.
            teacher = state.get(run.teacher.run, "done") if run.teacher else "done"
            possible = teacher in ("done", "running", "queued", "held", "pending")
            state[run.id] = "pending" if possible else "blocked"
    return state


def count(states: Iterable[str]) -> str:
    """Count states, as in ``3 done, 1 failed``; empty if there are none."""
    total = Counter(states)
    return ", ".join(f"{total[state]} {state}" for state in ORDER if total[state])


def rows(expansion: Expansion) -> Iterator[tuple[str, Cell]]:
    """Yield the cells with the names of their pairs; teachers and auxiliaries come once, first."""
    seen: set[str] = set()
    in_cells = {run.id for cell in expansion.cells for run in cell.runs}
    for run in expansion.runs:
        if run.id not in in_cells and run.teacher:
            cell = Cell(f"{run.method} (auxiliary)", run.teacher.arch, run.student, (run,))
            yield cell.pair, cell
    for cell in expansion.cells:
        if cell.method != "teacher":
            yield cell.pair, cell
        elif cell.teacher not in seen:
            seen.add(cell.teacher)
            yield cell.teacher, cell


@dataclass(frozen=True)
class Snapshot:
    """What the folder of runs says of a grid's runs at one moment; all by run id.

    Attributes:
        loaded: records.
        beats: recent heartbeats of runs without a record.
        holders: processes with the lease of a run without record and recent heartbeat.
        state_of: state of every run, as ``states`` returns it.
    """

    loaded: Mapping[str, Record]
    beats: Mapping[str, Beat]
    holders: Mapping[str, Holder]
    state_of: Mapping[str, str]


def snapshot(expansion: Expansion, runs: Path) -> Snapshot:
    """Read records, heartbeats, leases and the queue of Slurm.

    Raises:
        RecordError: a record is damaged.
    """
    ids = [run.id for run in expansion.runs]
    loaded = records.load(runs, ids)
    beats = heartbeat.load(runs, (i for i in ids if i not in loaded))
    silent = (i for i in ids if i not in loaded and i not in beats)
    holders = {i: found for i in silent if (found := lease.holder(records.folder(runs, i)))}
    state_of = states(expansion.runs, loaded, beats, queued_runs.queued(runs), holders)
    return Snapshot(loaded, beats, holders, state_of)


def render(grid: Grid, expansion: Expansion, runs: Path) -> Group:
    """Draw one line per cell, and a line with totals."""
    now = snapshot(expansion, runs)
    table = Table(
        Column("pair", no_wrap=True),
        Column("method", no_wrap=True),
        Column("runs", justify="right"),
        "state",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    last = ""
    for pair, cell in rows(expansion):
        if pair != last and last:
            table.add_section()
        state = Text(_describe_cell(cell, now, headline(grid)))
        table.add_row(
            Text(pair if pair != last else ""), Text(cell.method), str(len(cell.runs)), state
        )
        last = pair
    line = f"{len(expansion.runs)} runs: {count(now.state_of.values())}"
    return Group(Text(grid.title, style="bold"), table, Text(line))


def mean_accuracy(
    cell: Cell, loaded: Mapping[str, Record], headline: Headline = ON_TEST
) -> float | None:
    """Return the mean accuracy in percent of a cell's results so far; None without one."""
    ended = (record for run in cell.runs if (record := loaded.get(run.id)))
    every = (headline.of(record.result, cell.method) for record in ended)
    accs = [acc for acc in every if not math.isnan(acc)]
    return sum(accs) / len(accs) if accs else None


def _describe_cell(cell: Cell, now: Snapshot, compared_by: Headline) -> str:
    parts = [count(now.state_of[run.id] for run in cell.runs)]
    mean = mean_accuracy(cell, now.loaded, compared_by)
    if mean is not None:
        parts.append(f"{mean:.2f} %")
    for run in cell.runs:
        beat = now.beats.get(run.id)
        if beat:
            acc = f"{beat.acc:.1f} %, " if beat.acc is not None else ""
            phase = "pretraining, " if beat.phase == "pretrain" else ""
            parts.append(
                f"seed {run.seed}: {phase}epoch {beat.epoch}/{beat.epochs}, {acc}"
                f"{duration(beat.eta)} to go"
            )
        holder = now.holders.get(run.id)
        if holder and now.state_of[run.id] == "held":
            end = ", which has ended" if holder.owner.is_dead() else ""
            parts.append(f"seed {run.seed}: held by {holder}{end}")
    reasons: dict[str, list[int]] = {}
    for run in cell.runs:
        record = now.loaded.get(run.id)
        if record and record.reason:
            reasons.setdefault(record.reason, []).append(run.seed)
    for reason, seeds in list(reasons.items())[:3]:
        which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
        parts.append(f"{which}: {reason}")
    return "; ".join(part for part in parts if part)


def show_live(grid: Grid, expansion: Expansion, runs: Path) -> None:
    """Refresh ``render`` until no run is pending, or until Ctrl-C."""
    console = SafeConsole()
    with Live(render(grid, expansion, runs), console=console, auto_refresh=False) as view:
        while _any_pending(expansion, runs):
            time.sleep(2)
            view.update(render(grid, expansion, runs), refresh=True)


def _any_pending(expansion: Expansion, runs: Path) -> bool:
    loaded = records.load(runs, (run.id for run in expansion.runs))
    return "pending" in states(expansion.runs, loaded, {}).values()
