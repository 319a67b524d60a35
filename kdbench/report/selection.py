"""``kdbench select``: choose a swept value on held-out training images, never on test images."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdbench.errors import UserError
from kdbench.grid.grid import Grid
from kdbench.grid.run import BASELINES, Cell
from kdbench.runs.records import Record
from kdbench.stats import over_seeds
from kdbench.stats.aggregate import check_data
from kdbench.wording import counted


@dataclass(frozen=True)
class Choice:
    """One row of a sweep.

    Attributes:
        method: the row's method, without its settings.
        label: label of the row.
        val_acc: accuracy in percent on held-out images, mean over pairs of ``per_pair``.
        per_pair: pair -> mean held-out accuracy over seeds.
        n: number of runs in these means.
        expected: number of runs with a record, except skipped ones.
        best: whether ``val_acc`` is the highest of its method.
    """

    method: str
    label: str
    val_acc: float
    per_pair: Mapping[str, float]
    n: int
    expected: int
    best: bool = False


def choices(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Choice]:
    """Compute each row's held-out accuracy; failed and diverged runs count as 0."""
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    expected: dict[str, int] = defaultdict(int)
    for cell in cells:
        if cell.method in BASELINES:
            continue
        for run in cell.runs:
            record = records.get(run.id)
            if record is None or record.status == "skipped":
                continue
            expected[cell.method] += 1
            held = record.result.val_acc if record.result and record.status == "done" else 0.0
            if held is not None:
                rows[cell.method][cell.pair].append(held)
    options = []
    for label, pairs in rows.items():
        means = {pair: over_seeds.mean(values) for pair, values in pairs.items()}
        n = sum(len(values) for values in pairs.values())
        method = label.partition("(")[0]
        options.append(
            Choice(method, label, over_seeds.mean(means.values()), means, n, expected[label])
        )
    top = {c.method: max(x.val_acc for x in options if x.method == c.method) for c in options}
    return [Choice(**(vars(c) | {"best": c.val_acc == top[c.method]})) for c in options]


def render(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> Group:
    """Show a table of ``choices``.

    Raises:
        UserError: the grid has no held-out images, no run has finished, or runs used different
            data.
    """
    check_data(grid, cells, records)
    if not grid.dataset.validation:
        raise UserError(f"{grid.source}: dataset.validation: missing; e.g. 0.1 to hold out a tenth")
    rows = choices(cells, records)
    if not rows:
        raise UserError(f"{grid.source}: no run has finished; kdbench run --grid {grid.source}")
    pairs = sorted({pair for choice in rows for pair in choice.per_pair})
    table = Table("row", "held-out accuracy, %", *pairs, "runs", "")
    for choice in rows:
        table.add_row(
            Text(choice.label),
            f"{choice.val_acc:.2f}",
            *(f"{choice.per_pair[p]:.2f}" if p in choice.per_pair else "-" for p in pairs),
            str(choice.n),
            "best" if choice.best else "",
        )
    seeds = counted(len(grid.seeds), "seed")
    budget = f"{seeds}; held out: {grid.dataset.validation:.0%} of the training set"
    return Group(table, Text(budget))
