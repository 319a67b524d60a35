"""A row of a second grid joins the rows of the first, to be compared with one of them."""

from collections.abc import Collection

from kdbench.grid.run import Cell
from kdbench.runs.evidence import Evidence
from kdbench.stats.cell_summary import Summaries, summaries
from kdbench.stats.headline import Headline, with_answers


def added(
    first: Evidence, second: Evidence, rows: Summaries, label: str, compared_by: Headline
) -> tuple[Summaries, str]:
    """Add a row of a second grid to the pairs of the first.

    Args:
        first: the grid whose pairs are compared.
        second: the grid of the row.
        rows: summaries of the first grid.
        label: of the row in the second grid.
        compared_by: the accuracy that is compared.

    Returns:
        The summaries, and the name of the row in them.
    """
    taken = {row for members in rows.values() for row in members}
    if label in taken and _same_settings(first, second, label):
        return rows, label
    name = _free_name(first, second, taken, label)
    others = summaries(
        cells_of(second, label), second.records, with_answers(compared_by, second.grid)
    )
    joined = {
        pair: {**members, name: others[pair][label]} if pair in others else members
        for pair, members in rows.items()
    }
    return joined, name


def cells_of(evidence: Evidence, label: str) -> list[Cell]:
    """Return the cells of a row."""
    return [cell for cell in evidence.cells if cell.method == label]


def _same_settings(first: Evidence, second: Evidence, label: str) -> bool:
    """Check whether both grids' rows of this label have the same settings on common pairs.

    Such a row is not added: two copies of the same runs would make differences look smaller than
    they are.
    """
    ours, theirs = (
        {cell.pair: cell.runs[0].seedless for cell in cells_of(evidence, label) if cell.runs}
        for evidence in (first, second)
    )
    common = [pair for pair in ours if pair in theirs]
    return bool(common) and all(ours[pair] == theirs[pair] for pair in common)


def _free_name(first: Evidence, second: Evidence, taken: Collection[str], label: str) -> str:
    """Return the label, or, if another row has it, the label and the name of the grid."""
    if label not in taken:
        return label
    places = [second.grid.name] if second.grid.name != first.grid.name else []
    places += [second.grid.source, *map(str, range(2, len(taken) + 3))]
    return next(name for place in places if (name := f"{label} ({place})") not in taken)
