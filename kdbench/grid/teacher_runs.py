"""The runs that train a grid's teachers, also where files of the grid's methods are elsewhere."""

from collections.abc import Container
from contextlib import suppress

from kdbench.errors import UserError
from kdbench.grid.expand import expand
from kdbench.grid.grid import Grid, Row
from kdbench.grid.run import Run

PLACEHOLDER = "kd"
"""A built-in method."""


def teacher_runs(grid: Grid, outside: Container[str]) -> dict[str, Run]:
    """Return the runs of a grid that train its teachers, auxiliary ones among them, by id.

    An auxiliary teacher whose own method is in a file that cannot be read is left out.

    Args:
        grid: the grid.
        outside: labels of rows with methods whose files may be elsewhere. Such a row's auxiliary
            teacher does not depend on these methods; it is left out if a pair sets it.
    """
    runs: dict[str, Run] = {}
    for row in grid.methods:
        alone = grid.model_copy(update={"methods": (row,)})
        if any(label in outside for label, _ in row.points(grid.sweep)):
            auxiliary = {key: row.options[key] for key in row.options if key == "auxiliary"}
            pairs = tuple(pair.model_copy(update={"options": {}}) for pair in grid.pairs)
            methods = (Row(name=PLACEHOLDER, options=auxiliary),)
            alone = grid.model_copy(update={"methods": methods, "pairs": pairs, "sweep": {}})
        # Row by row: one row whose auxiliary teacher cannot be described hides no other.
        with suppress(UserError):
            runs.update((run.id, run) for run in expand(alone).runs)
    return runs
