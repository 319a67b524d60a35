"""Evidence to ``results/<grid>/``: a page, its tables for other tools, its plots, its records.

Everything is a pure function of the evidence: no clock, no machine of its own.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.errors import UserError
from kdbench.files import write_atomically
from kdbench.grid import published, train_command
from kdbench.grid.expand import expand
from kdbench.grid.grid import Grid
from kdbench.grid.run import Run
from kdbench.report.page import html
from kdbench.report.plots import pictures
from kdbench.report.plots.in_background import DrawHere, Pictures
from kdbench.report.tables import accuracy, supplementary
from kdbench.report.tables.over_pairs import across_pairs
from kdbench.report.tables.published import published_figures
from kdbench.report.tables.table import Table
from kdbench.report.text import latex
from kdbench.report.text.claims import claims
from kdbench.report.text.facts import facts
from kdbench.report.text.markdown import escape, render
from kdbench.report.text.terminal import Terminal
from kdbench.runs import archive
from kdbench.runs.evidence import Evidence, without_local_paths
from kdbench.stats.aggregate import Aggregate, LeaderboardError, aggregate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LeaderboardError", "files", "markdown", "terminal", "write"]

PAGE = "leaderboard.md"
COMMANDS = 400
"""Cells up to which the page has the command of each; finding one takes some milliseconds."""


def write(
    evidence: Evidence, results: Path, whole: Aggregate | None = None, draw: DrawHere | None = None
) -> Path:
    """Write ``files`` to ``results/<grid>/``, and the page over all grids beside it.

    Args:
        whole: the evidence's ``aggregate``, where it is there already.
        draw: its plots; None: here.

    Returns:
        The page.

    Raises:
        LeaderboardError: records of different data; an unknown reference.
        OSError: the folder cannot be written; every file in it is then as before or whole.
    """
    target = results / evidence.grid.name
    contents = files(whole or aggregate(evidence), draw)
    (target / "plots").mkdir(parents=True, exist_ok=True)
    # The page last: who finds it finds what it speaks of.
    for name in sorted(contents, key=lambda name: name == PAGE):
        write_atomically(target / name, contents[name])
    write_atomically(results / "index.html", html.index(results))
    return target / PAGE


def files(whole: Aggregate, draw: DrawHere | None = None) -> dict[str, bytes]:
    """All files of ``results/<grid>/``: name -> content."""
    evidence = whole.evidence
    drawn = (draw or DrawHere(evidence))(whole.frame, _ranks(whole))
    shown = _tables(whole)
    # What needs no plots comes first: somebody else may be drawing them meanwhile.
    out = {archive.NAME: archive.dump(evidence)} if _archived(evidence) else {}
    out |= {
        "leaderboard.csv": _csv(whole.frame),
        "leaderboard.parquet": archive.table(whole.frame),
        "leaderboard.tex": latex.leaderboard(whole, shown.main[0]).encode(),
        "across.csv": _csv(whole.methods.frame),
        "index.html": _html(whole, drawn, shown).encode(),
    }
    return out | {PAGE: markdown(whole, drawn(), shown).encode(), **pictures.files(drawn())}


def _html(whole: Aggregate, drawn: Pictures, shown: "_Tables") -> str:
    """The page for a browser."""
    few = len(whole.evidence.cells) <= COMMANDS
    return html.render(
        whole.evidence,
        whole.frame,
        found=whole.summaries,
        digest=whole.data,
        further=[*shown.main, *shown.further],
        plots=lambda: {picture.title: picture.svg.decode() for picture in drawn()},
        command=_commands_of(whole.evidence) if few else None,
    )


def _commands_of(evidence: Evidence) -> Callable[[Run], str]:
    """What repeats a run, from the grid alone: teachers of teachers stand in no cell."""
    known = {run.id: run for one in evidence.cells for run in one.runs}

    def find(run_id: str) -> Run:
        if run_id not in known:
            known.update((run.id, run) for run in expand(evidence.grid).runs)
        if run_id not in known:
            raise UserError(f"{run_id}: no run of this grid")
        return known[run_id]

    return lambda run: train_command.command(
        without_local_paths(run), lambda run_id: without_local_paths(find(run_id))
    )


def _archived(evidence: Evidence) -> bool:
    return len({run.id for one in evidence.cells for run in one.runs}) <= archive.MOST


def _csv(frame: "pd.DataFrame") -> bytes:
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.10g").encode()


def terminal(whole: Aggregate) -> Terminal:
    """The main table for ``rich.print``."""
    return Terminal(whole)


def _ranks(whole: Aggregate) -> pictures.Ranks:
    rows = whole.methods.frame.dropna(subset="rank")
    ends = rows[["rank", "rank_lo", "rank_hi"]].itertuples(index=False, name=None)
    return dict(zip(rows["method"], ends, strict=True))


def markdown(
    whole: Aggregate, drawn: Sequence[pictures.Picture] = (), shown: "_Tables | None" = None
) -> str:
    """The page.

    Args:
        drawn: the plots beside it. shown: its tables, where they are there already.
    """
    shown = shown or _tables(whole)
    grid, cells, records = whole.evidence.grid, whole.evidence.cells, whole.evidence.records
    parts = [
        f"# {escape(grid.title)}\n",
        _commands(grid),
        facts(grid, cells, records, whole.data),
        claims(grid, cells, records, whole.frame),
        *(render(table) for table in shown.main),
        _unfinished(whole.frame),
        *(f"## {plot.title}\n\n![{plot.alt}](plots/{plot.name}.svg)\n" for plot in drawn),
        *(render(table) for table in shown.further),
        _elsewhere(archived=_archived(whole.evidence)),
    ]
    return "\n".join(part for part in parts if part)


def _commands(grid: Grid) -> str:
    source = shlex.quote(" ".join(grid.source.split()))
    return (
        "```sh\n"
        f"kdbench report --grid {source}   # writes this page again from the records\n"
        f"kdbench run --grid {source}      # trains what is missing\n"
        "```\n"
    )


def _elsewhere(*, archived: bool) -> str:
    records = (
        "[records.parquet](records.parquet) holds every run's settings, record and learning curve: "
        "`kdbench report --from` writes this folder again from it."
        if archived
        else f"Of more than {archive.MOST:,} runs no archive is kept."
    )
    return (
        "All numbers of this page are in [leaderboard.csv](leaderboard.csv) (or "
        "[.parquet](leaderboard.parquet)): each cell, with every seed's accuracy and the ids of "
        f"its runs; and in [across.csv](across.csv), over pairs. {records} The main table for a "
        "paper: [leaderboard.tex](leaderboard.tex). `kdbench show ID` prints a run and the command "
        "that repeats it.\n"
    )


# --- tables ---


@dataclass(frozen=True)
class _Tables:
    """What all pages show; the first of ``main`` is the table of accuracies."""

    main: list[Table]
    further: list[Table]


def _tables(whole: Aggregate) -> _Tables:
    return _Tables(_main_tables(whole), _further_tables(whole))


def _main_tables(whole: Aggregate) -> list[Table]:
    overall, frame = whole.methods, whole.frame
    out = [accuracy.accuracy(frame, ari_of=overall.reference)]
    if overall.baseline and frame["diff_n"].notna().any():
        out.append(accuracy.differences(frame, overall.baseline))
    if (frame["n"] > 0).any():
        out.append(across_pairs(overall, frame, whole.evidence.grid.report.tie))
    return out


def _further_tables(whole: Aggregate) -> list[Table]:
    grid, frame, overall = whole.evidence.grid, whole.frame, whole.methods
    out = []
    if overall.reference and frame["ari_unreliable"].notna().any():
        out.append(accuracy.improvements(frame, overall.reference, overall.frame))
    if grid.report.reference:
        out.append(_published(grid, frame))
    if frame["seconds"].notna().any():
        out.append(supplementary.costs(frame, overall.baseline))
    out += [supplementary.best_epoch(frame), supplementary.objectives(whole.evidence.cells)]
    return out


def _published(grid: Grid, frame: "pd.DataFrame") -> Table:
    reference = str(grid.report.reference)
    table = published_figures(frame, reference)
    note = (
        f"Published on {', '.join(published.datasets(reference))}, here {grid.dataset.title} under "
        f"{grid.protocol.name}. Figures of other data are left out; whether the protocols agree is "
        "for the reader to judge: a paper may report the best epoch, or use other teachers."
    )
    return Table(table.title, table.rows, table.bold, (note, *table.notes))


def _unfinished(frame: "pd.DataFrame") -> str:
    """Why cells are not whole."""
    lines = [f"- {escape(line)}" for line in accuracy.reasons(frame)]
    missing = int(frame["missing"].sum())
    if missing:
        lines.append(f"- {missing} of the runs in this table have no record yet.")
    return "\n".join(["## What is not there", "", *lines]) + "\n" if lines else ""
