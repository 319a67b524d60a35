"""Every statistic of a report, computed once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.errors import UserError
from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell
from kdbench.runs.data_digests import DataChanged, recorded
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record
from kdbench.stats.cell_summary import Summaries, row_label, students, summaries
from kdbench.stats.cell_table import cell_table
from kdbench.stats.decision import Decision, decide
from kdbench.stats.headline import Headline, headline
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
        decision: comparisons of all rows, the source of every interval and mark.
        data: digest of the data that all runs used; None without records.
    """

    evidence: Evidence
    summaries: Summaries
    frame: "pd.DataFrame"
    methods: MethodTable
    decision: Decision
    data: str | None

    @property
    def headline(self) -> Headline:
        """The accuracy that ``summaries`` and ``frame`` compare: test accuracy, or held-out."""
        return headline(self.evidence.grid)


def aggregate(evidence: Evidence) -> Aggregate:
    """Compute all statistics of a grid.

    Raises:
        LeaderboardError: records of different data; an unknown reference.
    """
    grid, cells, records = evidence.grid, evidence.cells, evidence.records
    data = check_data(grid, cells, records)
    check_answers(grid, cells, records)
    cell_summaries = summaries(cells, records, headline(grid))
    decision = decide(cells, cell_summaries, row_label(cells, grid.report.baseline))
    if headline(grid).held_out:  # its rows are values to choose among, not methods
        decision = decision.without_recommendation()
    try:
        frame = cell_table(grid, cells, records, cell_summaries, decision)
    except ValueError as error:
        raise LeaderboardError(f"{grid.source}: {error}") from error
    methods = method_table(evidence, cell_summaries, decision)
    return Aggregate(evidence, cell_summaries, frame, methods, decision, data)


def check_answers(grid: Grid, cells: Iterable[Cell], records: Mapping[str, Record]) -> None:
    """Check that finished runs have the answers that their rows show.

    Raises:
        LeaderboardError: one has not.
    """
    shown = headline(grid)
    for cell in cells:
        answer = shown.answer(cell.method)
        for run in cell.runs if answer else ():
            record = records.get(run.id)
            if record and record.result and answer not in (record.result.answers or {}):
                accepted = ", ".join(record.result.answers or ()) or "none"
                raise LeaderboardError(
                    f"{grid.source}: report.answers.{cell.method}: {answer}: unknown; run {run.id} "
                    f"has {accepted}"
                )


def check_data(grid: Grid, cells: Iterable[Cell], records: Mapping[str, Record]) -> str | None:
    """Return the digest of the data that the students' records used; None without records.

    Raises:
        LeaderboardError: records on one data set used different data.
    """
    cells = list(cells)
    try:
        made_of = recorded(grid.source, (run for cell in cells for run in cell.runs), records)
    except DataChanged as error:
        raise LeaderboardError(str(error)) from None
    data = (run.dataset for run in students(cells))
    return next((made_of[dataset].digest for dataset in data if dataset in made_of), None)
