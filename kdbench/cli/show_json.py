"""``kdbench show --json``: one run as values."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kdbench.cli.show import RunFiles, in_a_grid
from kdbench.cli.status_json import progress
from kdbench.runs import history
from kdbench.runs.measurements import Cost, Result

PERCENT = {
    *("train_acc", "test_acc", "test_top5", "best_acc"),
    *("teacher_acc", "val_acc", "selected_acc", "answers"),
}
"""Accuracies of results and learning curves; their keys get the unit ``_percent``."""


def content(files: RunFiles) -> dict[str, Any]:
    """Return settings, record, the whole learning curve, versions and the repeat command.

    The settings are those of ``run.json``. Every key is there for every run; what is not known is
    None.
    """
    run, record, beat = files.run, files.record, files.beat
    state = record.status if record else "running" if beat else "unfinished"
    return {
        "id": files.id,
        "imported": run is None,
        "title": run.title if run else f"{files.settings.get('student')}, imported",
        "method": run.method if run else None,
        "protocol": run.protocol if run else None,
        "dataset": run.dataset.title if run else None,
        "state": state,
        "reason": (record.reason if record else "") or None,
        "settings": files.settings,
        "repeat": files.repeat or None,
        "in_a_grid": None if run else in_a_grid(files),
        "progress": progress(beat) if beat else None,
        "result": _values(Result, record.result) if record and record.result else None,
        "cost": _values(Cost, record.cost) if record and record.cost else None,
        "has_checksum": files.has_checksum if record else None,
        "environment": record.environment if record else None,
        "attempts": record.attempts if record else [],
        "traceback": (record.traceback if record else "") or None,
        "curve": [_with_units(row | {"epoch": int(row["epoch"])}) for row in files.curve],
        "curve_problem": files.damage or None,
    }


def _values(kind: type[Result | Cost], measured: Result | Cost) -> dict[str, Any]:
    """Return all fields of a result or cost in their order."""
    return _with_units({field.name: getattr(measured, field.name) for field in fields(kind)})


def _with_units(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{key}_percent" if key in PERCENT or history.is_answer(key) else key: value
        for key, value in values.items()
    }
