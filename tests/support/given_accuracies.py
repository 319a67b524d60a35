"""Statistics of a grid whose runs have given accuracies, times and parameters."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_grids import aggregate_of, ended, make_cells, make_grid, make_record

from kdbench.grid.grid import Report
from kdbench.stats.aggregate import Aggregate

VECTORS = Path(__file__).parents[1] / "stats" / "vectors"
Accuracies = Mapping[str, Mapping[int, float]]


def statistics(
    pairs: Sequence[Accuracies],
    *,
    names: Sequence[str] = (),
    times: Mapping[str, float] | None = None,
    deployed: Mapping[str, Sequence[int]] | None = None,
    diverged: Collection[str] = (),
    methods: Sequence[str] = (),
    held_out: bool = False,
    **grid_changes: Any,
) -> Aggregate:
    """Return the statistics of a grid.

    Args:
        pairs: for each pair row -> seed -> accuracy in percent; a seed without one is missing.
        names: ``TEACHER -> STUDENT`` of each pair; made up if they are not given.
        times: row -> training time over the baseline's; a row without one takes the same time.
        deployed: row -> parameters that it deploys on each pair; the student alone has 1000.
        diverged: rows of which the first missing run has diverged.
        methods: further methods, without results.
        held_out: the accuracies are of held-out images; those on test images are 1 point lower.
        grid_changes: fields of the grid.
    """
    rows = list(dict.fromkeys(row for one in pairs for row in one))
    seeds = sorted({seed for one in pairs for values in one.values() for seed in values} or {0})
    names = names or [f"big -> small{i}" for i in range(len(pairs))]
    networks = [(teacher, student) for teacher, student in (name.split(" -> ") for name in names)]
    grid = make_grid(networks, seeds, **{"report": Report()} | grid_changes)
    cells = make_cells(grid, [row for row in [*rows, *methods] if row != "student"])
    if "student" not in rows:
        cells = [cell for cell in cells if cell.method != "student"]
    records = {}
    for cell in cells:
        index = networks.index((cell.teacher, cell.student))
        known = pairs[index].get(cell.method, {})
        for run in cell.runs:
            if run.seed not in known and cell.method != "teacher":
                if cell.method in diverged:
                    records[run.id] = ended(run, "diverged", "loss is nan")
                continue
            accuracy = known.get(run.seed, 95.0)
            record = make_record(run, accuracy - held_out)
            assert record.cost is not None and record.result is not None
            result = replace(record.result, val_acc=accuracy if held_out else None)
            seconds = 100 * (times or {}).get(cell.method, 1.0)
            params = (deployed or {}).get(cell.method, [1000] * len(pairs))[index]
            cost = replace(
                record.cost,
                seconds=seconds - record.cost.teacher_seconds,
                params_deployed=params,
            )
            records[run.id] = replace(record, result=result, cost=cost)
    return aggregate_of(grid, cells, records)


def vector(name: str) -> dict[str, Any]:
    """Return rows, seeds and accuracies of a test vector, and the times that it gives."""
    given = json.loads((VECTORS / f"{name}.json").read_text())
    pairs = [
        {row: {int(seed): value for seed, value in values.items()} for row, values in one.items()}
        for one in given["pairs"]
    ]
    return {"pairs": pairs, "times": given.get("times", {})}
