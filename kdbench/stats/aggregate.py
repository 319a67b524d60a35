"""Every statistic of a report, computed once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.errors import UserError
from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record
from kdbench.stats.cell_summary import Summaries, summaries
from kdbench.stats.cell_table import cell_table
from kdbench.stats.method_table import MethodTable, method_table

if TYPE_CHECKING:
    import pandas as pd


class LeaderboardError(UserError):
    """Records that cannot be combined in one table, or an unknown published table."""


@dataclass(frozen=True)
class Aggregate:
    """The statistics that tables, plots and pages select from.

    Attributes:
        evidence: the grid, its cells and their records.
        summaries: the results of each cell's runs.
        frame: of ``cell_table``: a row per method and pair.
        methods: a row per method, over all pairs.
        data: digest of the data that all runs used; None without records.
    """

    evidence: Evidence
    summaries: Summaries
    frame: "pd.DataFrame"
    methods: MethodTable
    data: str | None


def aggregate(evidence: Evidence) -> Aggregate:
    """Compute all statistics of a grid.

    Raises:
        LeaderboardError: records of different data; an unknown reference.
    """
    grid, cells, records = evidence.grid, evidence.cells, evidence.records
    data = check_data(grid, cells, records)
    cell_summaries = summaries(cells, records)
    try:
        frame = cell_table(grid, cells, records, cell_summaries)
    except ValueError as error:
        raise LeaderboardError(f"{grid.source}: {error}") from error
    methods = method_table(evidence, cell_summaries)
    return Aggregate(evidence, cell_summaries, frame, methods, data)


def check_data(grid: Grid, cells: Iterable[Cell], records: Mapping[str, Record]) -> str | None:
    """Return the digest of the data that all records used; None without records.

    Raises:
        LeaderboardError: records used different data.
    """
    same_teacher_data = grid.teacher.dataset in (None, grid.dataset)
    digests = [
        (record.result.data, run.id)
        for cell in cells
        if cell.method != "teacher" or same_teacher_data
        for run in cell.runs
        if (record := records.get(run.id)) and record.result
    ]
    if len({digest for digest, _ in digests}) > 1:
        runs: dict[str, dict[str, None]] = {}
        for digest, run_id in digests:
            runs.setdefault(digest, {})[run_id] = None
        *few, most = sorted(runs.items(), key=lambda item: (len(item[1]), item[0]))
        differing = "; ".join(
            f"{', '.join(list(ids)[:5])}{', ...' if len(ids) > 5 else ''} "
            f"{'has' if len(ids) == 1 else 'have'} {digest[:12]}"
            for digest, ids in few
        )
        raise LeaderboardError(
            f"{grid.source}: runs used different data and cannot be combined in one table: "
            f"{differing}; the other {len(most[1])} (e.g. {next(iter(most[1]))}) {most[0][:12]}"
        )
    return digests[0][0] if digests else None
