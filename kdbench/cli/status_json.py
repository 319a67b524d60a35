"""``kdbench status --json``: the state of a grid as values."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from kdbench.cli.json_output import grid_keys
from kdbench.cli.status import ORDER, Snapshot, mean_accuracy, rows
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell, Run
from kdbench.runs.heartbeat import Beat
from kdbench.runs.lease import Holder
from kdbench.stats.headline import ON_HELD_OUT


def content(grid: Grid, expansion: Expansion, now: Snapshot) -> dict[str, Any]:
    """Return a row per cell, and a row per run of a cell; rows are those of the table.

    A run in several cells, such as a student of two pairs, has a row in each; ``states`` counts it
    once.
    """
    cells = list(rows(expansion))
    return grid_keys(grid) | {
        "runs_total": len(expansion.runs),
        "states": counts(now.state_of.values()),
        "cells": [_cell(pair, cell, now) for pair, cell in cells],
        "runs": [row for pair, cell in cells for row in _runs(pair, cell, now)],
    }


def counts(states: Iterable[str]) -> dict[str, int]:
    """Count every state, also those that no run has."""
    total = Counter(states)
    return {state: total[state] for state in ORDER}


def _cell(pair: str, cell: Cell, now: Snapshot) -> dict[str, Any]:
    return {
        "pair": pair,
        "method": cell.method,
        "runs": len(cell.runs),
        "states": counts(now.state_of[run.id] for run in cell.runs),
        "test_acc_percent": mean_accuracy(cell, now.loaded),
        "val_acc_percent": mean_accuracy(cell, now.loaded, ON_HELD_OUT),
    }


def _runs(pair: str, cell: Cell, now: Snapshot) -> Iterator[dict[str, Any]]:
    for run in cell.runs:
        yield {"pair": pair, "method": cell.method} | _run(run, now)


def _run(run: Run, now: Snapshot) -> dict[str, Any]:
    record, state = now.loaded.get(run.id), now.state_of[run.id]
    result = record.result if record else None
    beat = now.beats.get(run.id)
    holder = now.holders.get(run.id) if state == "held" else None
    return {
        "seed": run.seed,
        "id": run.id,
        "state": state,
        "reason": (record.reason if record else "") or None,
        "test_acc_percent": result.test_acc if result else None,
        "val_acc_percent": result.val_acc if result else None,
        "progress": progress(beat) if beat else None,
        "holder": _holder(holder) if holder else None,
    }


def progress(beat: Beat) -> dict[str, Any]:
    """Return what a heartbeat says; ``seconds_left`` is None if it is not known."""
    return {
        "phase": beat.phase,
        "epoch": beat.epoch,
        "epochs": beat.epochs,
        "step": beat.step,
        "steps_per_epoch": beat.steps,
        "test_acc_percent": beat.acc,
        "images_per_second_of_cohort": beat.images_per_s,
        "seconds_left": beat.eta,
        "host": beat.host,
        "pid": beat.pid,
    }


def _holder(holder: Holder) -> dict[str, Any]:
    return {
        "host": holder.owner.host,
        "pid": holder.owner.pid,
        "job": holder.owner.job or None,
        "ended": holder.owner.is_dead(),
        "seconds_since_sign": holder.sign.age,
    }
