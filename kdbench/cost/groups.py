"""Refuse groups of networks that cannot be built, or that no memory holds, before training."""

from collections.abc import Iterable

from kdbench.cost.estimate import data_shape
from kdbench.cost.network_cost import DataShape, network_cost
from kdbench.data.readers.by_name import absent_folders
from kdbench.errors import UserError
from kdbench.grid.run import Run, Term
from kdbench.method import Group, Incompatible
from kdbench.registry import lookup
from kdbench.registry.lookup import built_in_path


def check_groups(source: str, runs: Iterable[Run], memory: float | None) -> None:
    """Check the groups that methods bring (``Method.group``).

    Args:
        source: name of the grid, for messages.
        runs: runs of its rows.
        memory: bytes that a run can use; None or 0: unknown.

    Raises:
        UserError: a method refuses its hyper-parameters, or a group needs more memory, even without
            its methods; a line for each row.
    """
    lines: dict[str, str] = {}
    for run in runs:
        for term in run.terms:
            if run.method in lines or not lookup.describe(built_in_path(term.where)).brings_peers:
                continue
            if problem := _problem(run, term, memory):
                lines[run.method] = f"{source}: methods.{run.method}: {problem}"
    if lines:
        raise UserError("\n".join(lines.values()))


def _problem(run: Run, term: Term, memory: float | None) -> str:
    """Return why a run's group cannot be trained; "" if it can."""
    try:
        group = lookup.load(built_in_path(term.where)).group(**term.hyper)
    except ValueError as error:
        return str(error)
    except (Exception, SystemExit):  # of a plugin; its run will fail alone
        return ""
    if group is None:
        return ""
    if group.size < 2:
        return f"peers: a group of {group.size} networks; expected at least 2"
    if not memory or absent_folders(run.dataset):
        return ""
    try:
        needed = least_bytes(run, data_shape(run.dataset), group)
    except Incompatible:  # the run will be skipped
        return ""
    if needed <= memory:
        return ""
    return (
        f"a group of {group.size:,} networks {run.student} needs at least "
        f"{needed / 2**30:,.1f} GB, but {memory / 2**30:,.1f} GB are available"
    )


def least_bytes(run: Run, shape: DataShape, group: Group) -> float:
    """Return the bytes of a group's weights, momenta and activations in a training step.

    Counted with two networks, and extrapolated, so that a huge group takes no time.

    Raises:
        Incompatible: the group shares more stages than the network has.
    """
    alone = network_cost(run.student, shape)
    two = network_cost(run.student, shape, Group(2, group.shared, group.rescale))
    bf16, b = run.training.precision == "bf16", run.training.batch_size

    def needed(parameters: int, kept: float) -> float:
        return 3 * 4 * parameters + b * kept

    first = needed(alone.parameters, alone.in_precision(bf16).kept)
    both = needed(two.parameters, two.in_precision(bf16).kept)
    return first + (group.size - 1) * (both - first)
