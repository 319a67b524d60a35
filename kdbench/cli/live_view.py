"""What a person sees while runs train: a bar per cohort in a terminal, plain lines elsewhere."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from kdbench.execution.events import Event
from kdbench.grid.run import Run
from kdbench.runs.heartbeat import Beat
from kdbench.runs.records import Record

PLAIN_SECONDS = 10.0
"""Least time between two lines about runs that go on, where there is no terminal."""


def show(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    """Show what happens until it has happened."""
    if console.is_terminal:
        _bars(events, runs, console)
    else:
        _lines(events, runs, console)


def outcome(run: Run, record: Record) -> str:
    """One line about a run that has ended."""
    acc = f" {record.result.test_acc:.2f} %" if record.result else ""
    took = f", {duration(record.cost.seconds)}" if record.cost else ""
    reason = f": {record.reason}" if record.reason else ""
    return f"{run.title}, {run.method}: {record.status}{acc}{took}{reason}"


def duration(seconds: float | None) -> str:
    """``1:02:03`` or ``45 s``."""
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 99.5 else str(timedelta(seconds=round(seconds)))


def describe(beats: Sequence[Beat], names: Mapping[str, Run]) -> str:
    """A cohort: where it is, how fast, and its learners with their accuracies."""
    first = beats[0]
    learners = []
    for beat in beats:
        name = names[beat.run].method if beat.run in names else beat.run
        learners.append(name if beat.acc is None else f"{name} {beat.acc:.1f}")
    left = [beat.eta for beat in beats if beat.eta is not None]
    phase = "first phase, " if first.phase == "pretrain" else ""
    return (
        f"{phase}epoch {first.epoch}/{first.epochs}, {first.images_per_s:,.0f} images/s, "
        f"{duration(max(left, default=None))} to go: {', '.join(learners)}"
    )


def _cohorts(beats: Iterable[Beat]) -> dict[str, list[Beat]]:
    found: dict[str, list[Beat]] = defaultdict(list)
    for beat in beats:
        found[beat.cohort].append(beat)
    return found


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _bars(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    names = {run.id: run for run in runs}
    bars: dict[str, TaskID] = {}
    cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    with Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[about]}", style="dim", markup=False, table_column=cut),
        console=console,
        transient=True,
        expand=True,
    ) as view:
        whole = view.add_task("all runs", total=len(runs), about="")
        for event in events:
            if event.line:
                _say(view.console, event.line)
            for run, record in event.ended:
                _say(view.console, outcome(run, record))
            done = len(runs) - event.left
            view.update(whole, completed=done, about=f"{done}/{len(runs)}")
            groups = _cohorts(event.beats)
            for gone in set(bars) - set(groups):
                view.remove_task(bars.pop(gone))
            for cohort, beats in groups.items():
                first = beats[0]
                if cohort not in bars:
                    bars[cohort] = view.add_task(first.title, total=1.0, about="")
                share = (first.epoch - 1 + first.step / max(1, first.steps)) / max(1, first.epochs)
                view.update(bars[cohort], completed=share, about=describe(beats, names))


def _lines(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    names = {run.id: run for run in runs}
    told = time.monotonic()
    for event in events:
        if event.line:
            _say(console, event.line)
        done = len(runs) - event.left - len(event.ended)
        for run, record in event.ended:
            done += 1
            _say(console, f"[{done}/{len(runs)}] {outcome(run, record)}")
            told = time.monotonic()
        if event.beats and time.monotonic() - told >= PLAIN_SECONDS:
            told = time.monotonic()
            for beats in _cohorts(event.beats).values():
                _say(console, f"[{done}/{len(runs)}] {beats[0].title}: {describe(beats, names)}")
