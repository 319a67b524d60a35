"""The report of ``kdbench show`` on one run."""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdbench.grid.repeat_command import Commands
from kdbench.grid.run import Run, is_imported
from kdbench.runs import heartbeat, history, records, short_ids
from kdbench.runs.heartbeat import Beat
from kdbench.runs.records import Record, RecordError


@dataclass(frozen=True)
class RunFiles:
    """What the folder of a run contains.

    Attributes:
        id: the whole id.
        settings: ``run.json``.
        run: None for an imported teacher.
        repeat: the command that repeats the run, or a sentence that none does; "" for an imported
            teacher.
        record: None before the run has ended.
        beat: recent heartbeat of a run without record.
        has_checksum: whether a checksum has verified the record.
        curve: a row per epoch; empty if there is none, and before the run has ended.
        damage: what is wrong with the file of the curve; "" if it could be read.
    """

    id: str
    settings: dict[str, Any]
    run: Run | None
    repeat: str
    record: Record | None
    beat: Beat | None = None
    has_checksum: bool = False
    curve: list[dict[str, float]] = field(default_factory=list)
    damage: str = ""


def read(runs: Path, run_id: str) -> RunFiles:
    """Read one run; ``run_id`` may be the first characters of an id.

    Raises:
        UserError: no id, or several, begin with ``run_id``; settings or record are damaged.
    """
    name = short_ids.complete(runs, run_id)
    record = records.read(runs, name)
    run, repeat = None, ""
    if is_imported(name):
        settings = records.read_run_json(runs, name)
    else:
        run = records.read_run(runs, name)
        settings, repeat = run.to_json(), Commands(partial(records.read_run, runs))(run)
    if record is None:
        return RunFiles(name, settings, run, repeat, None, heartbeat.read(runs, name))
    checked = records.has_checksum(runs, name)
    try:
        curve = history.read(runs, name, record=record)
    except RecordError as damage:  # the rest is worth showing
        return RunFiles(
            name, settings, run, repeat, record, has_checksum=checked, damage=str(damage)
        )
    return RunFiles(name, settings, run, repeat, record, has_checksum=checked, curve=curve)


def describe_run(runs: Path, run_id: str) -> Group:
    """Describe one run; ``run_id`` may be the first characters of an id.

    Raises:
        UserError: as ``read``.
    """
    files = read(runs, run_id)
    record, beat = files.record, files.beat
    lines = _trained(files, files.run) if files.run else _imported(files)
    if record is None:
        state = f"running, epoch {beat.epoch}/{beat.epochs}" if beat else "not finished"
        return Group(*lines, Text(state))
    lines.append(Text(f"{record.status}{': ' + record.reason if record.reason else ''}"))
    for title, part in (("result", record.result), ("cost", record.cost)):
        if part is not None:
            values = {key: value for key, value in vars(part).items() if value is not None}
            lines.append(Text(f"{title}: {json.dumps(values)}"))
    if not files.has_checksum:
        lines.append(Text("record: without a checksum, so only checked for possible values"))
    lines.append(Text(f"environment: {json.dumps(record.environment)}"))
    lines += [Text(f"attempt: {attempt}") for attempt in record.attempts]
    lines += [Text(record.traceback.rstrip(), style="red")] if record.traceback else []
    if files.damage:
        return Group(*lines, Text(files.damage, style="red"))
    curve = _curve(files.curve)
    return Group(*lines, *([curve] if curve else []))


def _trained(files: RunFiles, run: Run) -> list[Text]:
    return [
        Text(f"{run.title}, {run.method}", style="bold"),
        Text(f"run {files.id}"),
        Text(f"protocol {run.protocol}, dataset {run.dataset.title}"),
        Text(f"config: {json.dumps(files.settings)}"),
        Text(f"repeat with: {files.repeat}"),
    ]


def in_a_grid(files: RunFiles) -> str:
    """Return the line of a grid file that uses an imported teacher."""
    return f"teachers: {{{files.settings.get('student')}: {files.id}}}"


def _imported(files: RunFiles) -> list[Text]:
    return [
        Text(f"{files.settings.get('student')}, imported", style="bold"),
        Text(f"run {files.id}"),
        Text(f"config: {json.dumps(files.settings)}"),
        Text(f"in a grid: {in_a_grid(files)}"),
    ]


def _curve(curve: list[dict[str, float]]) -> Table | None:
    """Tabulate about twelve epochs of a run's history; None without a history."""
    if not curve:
        return None
    columns = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    every = max(1, len(curve) // 12)
    for i, row in enumerate(curve):
        if i % every == 0 or i == len(curve) - 1:
            table.add_row(*(f"{row[name]:g}" if name in row else "" for name in columns))
    return table
