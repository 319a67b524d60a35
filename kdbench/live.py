"""What a person sees while runs train: a bar per cohort in a terminal, plain lines elsewhere."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from kdbench.jobs import Event
from kdbench.progress import Beat
from kdbench.records import Record
from kdbench.run import Run

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
    return f"{seconds:.0f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def describe(beats: Sequence[Beat], names: dict[str, Run]) -> str:
    """A cohort's learners and their accuracies: ``kd 91.2, at 90.8``."""
    told = []
    for beat in beats:
        acc = "" if beat.acc is None else f" {beat.acc:.1f}"
        told.append(f"{names[beat.run].method}{acc}")
    return ", ".join(told)


def _cohorts(beats: Iterable[Beat]) -> dict[str, list[Beat]]:
    found: dict[str, list[Beat]] = defaultdict(list)
    for beat in beats:
        found[beat.cohort].append(beat)
    return found


def _bars(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    names = {run.id: run for run in runs}
    bars: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[about]}", style="dim"),
        console=console,
        transient=True,
    ) as view:
        whole = view.add_task("all runs", total=len(runs), about="")
        for event in events:
            if event.line:
                view.console.print(event.line, highlight=False, markup=False)
            for run, record in event.ended:
                view.console.print(outcome(run, record), highlight=False, markup=False)
            done = len(runs) - event.left
            view.update(whole, completed=done, about=f"{done}/{len(runs)}")
            groups = _cohorts(event.beats)
            for gone in set(bars) - set(groups):
                view.remove_task(bars.pop(gone))
            for cohort, beats in groups.items():
                first = beats[0]
                if cohort not in bars:
                    bars[cohort] = view.add_task(first.title, total=1.0, about="")
                about = (
                    f"epoch {first.epoch}/{first.epochs}  {first.images_per_s:,.0f} images/s  "
                    f"{duration(first.eta)} to go  {describe(beats, names)}"
                )
                share = (first.epoch - 1 + first.step / max(1, first.steps)) / first.epochs
                view.update(bars[cohort], completed=share, about=about)


def _lines(events: Iterable[Event], runs: Sequence[Run], console: Console) -> None:
    names = {run.id: run for run in runs}
    told = time.monotonic()
    for event in events:
        if event.line:
            console.print(event.line, highlight=False, markup=False, soft_wrap=True)
        done = len(runs) - event.left - len(event.ended)
        for run, record in event.ended:
            done += 1
            line = f"[{done}/{len(runs)}] {outcome(run, record)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            told = time.monotonic()
        if event.beats and time.monotonic() - told > PLAIN_SECONDS:
            told = time.monotonic()
            for beats in _cohorts(event.beats).values():
                first = beats[0]
                line = (
                    f"[{done}/{len(runs)}] {first.title}: epoch {first.epoch}/{first.epochs}, "
                    f"{first.images_per_s:,.0f} images/s, {duration(first.eta)} to go: "
                    f"{describe(beats, names)}"
                )
                console.print(line, highlight=False, markup=False, soft_wrap=True)
