"""The report of ``kdbench show`` on one run."""

import json
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdbench.grid.repeat_command import Commands
from kdbench.grid.run import is_imported
from kdbench.runs import heartbeat, history, records, short_ids
from kdbench.runs.records import RecordError


def describe_run(runs: Path, run_id: str) -> Group:
    """Describe one run; ``run_id`` may be the first characters of an id.

    Raises:
        UserError: no id, or several, begin with ``run_id``.
    """
    name = short_ids.complete(runs, run_id)
    record = records.read(runs, name)
    lines = _imported(runs, name) if is_imported(name) else _trained(runs, name)
    if record is None:
        beat = heartbeat.read(runs, name)
        state = f"running, epoch {beat.epoch}/{beat.epochs}" if beat else "not finished"
        return Group(*lines, Text(state))
    lines.append(Text(f"{record.status}{': ' + record.reason if record.reason else ''}"))
    for title, part in (("result", record.result), ("cost", record.cost)):
        if part is not None:
            values = {key: value for key, value in vars(part).items() if value is not None}
            lines.append(Text(f"{title}: {json.dumps(values)}"))
    if not records.has_checksum(runs, name):
        lines.append(Text("record: without a checksum, so only checked for possible values"))
    lines.append(Text(f"environment: {json.dumps(record.environment)}"))
    lines += [Text(f"attempt: {attempt}") for attempt in record.attempts]
    lines += [Text(record.traceback.rstrip(), style="red")] if record.traceback else []
    try:
        curve = _curve(history.read(runs, name, record=record))
    except RecordError as damage:  # the rest is worth showing
        return Group(*lines, Text(str(damage), style="red"))
    return Group(*lines, *([curve] if curve else []))


def _trained(runs: Path, name: str) -> list[Text]:
    run = records.read_run(runs, name)
    return [
        Text(f"{run.title}, {run.method}", style="bold"),
        Text(f"run {name}"),
        Text(f"protocol {run.protocol}, dataset {run.dataset.title}"),
        Text(f"config: {json.dumps(run.to_json())}"),
        Text(f"repeat with: {Commands(partial(records.read_run, runs))(run)}"),
    ]


def _imported(runs: Path, name: str) -> list[Text]:
    config = records.read_run_json(runs, name)
    return [
        Text(f"{config.get('student')}, imported", style="bold"),
        Text(f"run {name}"),
        Text(f"config: {json.dumps(config)}"),
        Text(f"in a grid: teachers: {{{config.get('student')}: {name}}}"),
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
