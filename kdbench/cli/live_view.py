"""Progress display during training: a bar per cohort in a terminal, plain lines elsewhere."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from kdbench.execution.events import Event
from kdbench.grid.run import Run
from kdbench.runs.heartbeat import Beat
from kdbench.runs.records import Record
from kdbench.wording import duration

PLAIN_SECONDS = 10.0
"""Shortest time between two progress lines if there is no terminal."""


def show(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    """Show events until they end."""
    if console.is_terminal:
        _show_bars(events, runs, console)
    else:
        _show_lines(events, runs, console)


def outcome(run: Run, record: Record) -> str:
    """Describe a run that has ended in one line."""
    acc = f" {record.result.test_acc:.2f} %" if record.result else ""
    took = f", {duration(record.cost.seconds)}" if record.cost else ""
    reason = f": {record.reason}" if record.reason else ""
    return f"{run.title}, {run.method}: {record.status}{acc}{took}{reason}"


def describe(beats: Sequence[Beat], runs: Mapping[str, Run]) -> str:
    """Describe a cohort: its progress, speed, and learners with their accuracies."""
    first = beats[0]
    learners = []
    for beat in beats:
        name = runs[beat.run].method if beat.run in runs else beat.run
        learners.append(name if beat.acc is None else f"{name} {beat.acc:.1f}")
    remaining = [beat.eta for beat in beats if beat.eta is not None]
    phase = "pretraining, " if first.phase == "pretrain" else ""
    return (
        f"{phase}epoch {first.epoch}/{first.epochs}, {first.images_per_s:,.0f} images/s, "
        f"{duration(max(remaining, default=None))} to go: {', '.join(learners)}"
    )


def _cohorts(beats: Iterable[Beat]) -> dict[str, list[Beat]]:
    cohorts: dict[str, list[Beat]] = defaultdict(list)
    for beat in beats:
        cohorts[beat.cohort].append(beat)
    return cohorts


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_bars(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    by_id = {run.id: run for run in runs}
    bars: dict[str, TaskID] = {}
    ellipsis = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    with Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[about]}", style="dim", markup=False, table_column=ellipsis),
        console=console,
        transient=True,
        expand=True,
    ) as view:
        overall = view.add_task("all runs", total=len(runs), about="")
        for event in events:
            if event.line:
                _print(view.console, event.line)
            for run, record in event.ended:
                _print(view.console, outcome(run, record))
            done = len(runs) - event.left
            view.update(overall, completed=done, about=f"{done}/{len(runs)}")
            cohorts = _cohorts(event.beats)
            for ended in set(bars) - set(cohorts):
                view.remove_task(bars.pop(ended))
            for cohort, beats in cohorts.items():
                first = beats[0]
                if cohort not in bars:
                    bars[cohort] = view.add_task(first.title, total=1.0, about="")
                share = (first.epoch - 1 + first.step / max(1, first.steps)) / max(1, first.epochs)
                view.update(bars[cohort], completed=share, about=describe(beats, by_id))


def _show_lines(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    by_id = {run.id: run for run in runs}
    printed = time.monotonic()
    for event in events:
        if event.line:
            _print(console, event.line)
        done = len(runs) - event.left - len(event.ended)
        for run, record in event.ended:
            done += 1
            _print(console, f"[{done}/{len(runs)}] {outcome(run, record)}")
            printed = time.monotonic()
        if event.beats and time.monotonic() - printed >= PLAIN_SECONDS:
            printed = time.monotonic()
            for beats in _cohorts(event.beats).values():
                _print(console, f"[{done}/{len(runs)}] {beats[0].title}: {describe(beats, by_id)}")
