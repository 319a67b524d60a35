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
from kdbench.wording import counted


@dataclass(frozen=True)
class Choice:
    """One row of a sweep.

    Attributes:
        method: the row without what is swept. label: the row.
        val_acc: mean accuracy in percent on held-out images, over pairs of means over seeds.
        per_pair: those means. n: runs that count. expected: runs there should be.
        best: highest of its method.
    """

    method: str
    label: str
    val_acc: float
    per_pair: Mapping[str, float]
    n: int
    expected: int
    best: bool = False


def choices(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Choice]:
    """Every row's held-out accuracy; a run that ended badly counts as 0, not as missing."""
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
    found = []
    for label, pairs in rows.items():
        means = {pair: over_seeds.mean(values) for pair, values in pairs.items()}
        n = sum(len(values) for values in pairs.values())
        method = label.partition("(")[0]
        found.append(
            Choice(method, label, over_seeds.mean(means.values()), means, n, expected[label])
        )
    top = {c.method: max(x.val_acc for x in found if x.method == c.method) for c in found}
    return [Choice(**(vars(c) | {"best": c.val_acc == top[c.method]})) for c in found]


def render(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> Group:
    """A table of ``choices``.

    Raises:
        UserError: the grid holds nothing out, or nothing is trained yet.
    """
    if not grid.dataset.validation:
        raise UserError(f"{grid.source}: dataset.validation: missing; e.g. 0.1 holds a tenth out")
    found = choices(cells, records)
    if not found:
        raise UserError(f"{grid.source}: no run has ended yet; kdbench run --grid {grid.source}")
    pairs = sorted({pair for choice in found for pair in choice.per_pair})
    table = Table("row", "held-out accuracy, %", *pairs, "runs", "")
    for choice in found:
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
