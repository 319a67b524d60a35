"""The files of ``results/<grid>/``: pages, tables for other tools, plots and records.

They depend on nothing but the evidence: not on the time or the machine.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.files import sweep, write_atomically
from kdbench.grid import published
from kdbench.grid.grid import Grid
from kdbench.grid.repeat_command import Commands
from kdbench.report import results_folder
from kdbench.report.page import hero_image, html
from kdbench.report.page.hero import hero
from kdbench.report.plots import learning_curves, pictures
from kdbench.report.plots.in_background import Draw, GetPictures, draw_here
from kdbench.report.tables import accuracy, pair_summaries, supplementary
from kdbench.report.tables.over_pairs import ordered, over_pairs
from kdbench.report.tables.published import published_figures
from kdbench.report.tables.table import Table, in_order
from kdbench.report.text import latex, spreadsheet
from kdbench.report.text.claims import claims
from kdbench.report.text.decision_sentences import cost, sure, which
from kdbench.report.text.facts import facts
from kdbench.report.text.markdown import escape, render
from kdbench.runs import archive
from kdbench.runs.evidence import Evidence, without_local_paths
from kdbench.stats.aggregate import Aggregate
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd

PAGE = "leaderboard.md"
COMMANDS = 400
"""Most cells with a command on the page; finding one takes some milliseconds."""


def write(
    aggregate: Aggregate, results: Path, draw: Draw = draw_here, *, replace: bool = False
) -> Path:
    """Write a leaderboard as ``write_files`` does, and return the path of ``leaderboard.md``."""
    write_files(aggregate, results, draw, replace=replace)
    return page(aggregate, results)


def page(aggregate: Aggregate, results: Path) -> Path:
    """Return the path of ``leaderboard.md``."""
    return results / aggregate.evidence.grid.name / PAGE


def write_files(
    aggregate: Aggregate, results: Path, draw: Draw = draw_here, *, replace: bool = False
) -> list[Path]:
    """Write ``files`` to ``results/<grid>/``, and the index of all grids to ``results/``.

    Args:
        aggregate: the grid's statistics.
        results: folder of leaderboards.
        draw: how to draw the plots.
        replace: write even if results in the folder are lost.

    Returns:
        Their paths, in the order in which they were written.

    Raises:
        ResultsError: without ``replace``, results in the folder would be lost; nothing is written.
        OSError: the folder cannot be written; each file is then either the old or the new one.
    """
    evidence = aggregate.evidence
    target = results / evidence.grid.name
    results_folder.check_place(results, evidence.grid.name)
    if not replace:
        results_folder.check_kept(results, evidence.grid.name, evidence.cells, evidence.records)
    contents = files(aggregate, draw)
    (target / "plots").mkdir(parents=True, exist_ok=True)
    sweep(results, target, target / "plots")
    # The page last: the files that it links to exist by then.
    paths = [target / name for name in sorted(contents, key=lambda name: name == PAGE)]
    for path in paths:
        write_atomically(path, contents[path.relative_to(target).as_posix()])
    index = results / "index.html"
    write_atomically(index, html.index(results))
    return [*paths, index]


def files(aggregate: Aggregate, draw: Draw = draw_here) -> dict[str, bytes]:
    """Make all files of ``results/<grid>/``: name -> content."""
    evidence = aggregate.evidence
    get_pictures = draw(aggregate)
    tables = make_tables(aggregate)
    # Files without plots come first: another process may be drawing meanwhile.
    out = {archive.NAME: archive.dump(evidence)} if _archived(evidence) else {}
    out |= {
        "leaderboard.csv": spreadsheet.csv(aggregate.frame, digits=10).encode(),
        "leaderboard.parquet": archive.table(aggregate.frame),
        "leaderboard.tex": latex.leaderboard(aggregate).encode(),
        "across.csv": spreadsheet.csv(aggregate.methods.frame, digits=10).encode(),
        "index.html": _html(aggregate, tables, get_pictures).encode(),
        PAGE: markdown(aggregate, tables, get_pictures()).encode(),
    }
    if image := hero_image.draw(aggregate):
        out[hero_image.PATH] = image
    return out | pictures.files(get_pictures())


def _html(aggregate: Aggregate, tables: "Tables", get_pictures: GetPictures) -> str:
    """Write the page for a browser."""
    evidence, cells = aggregate.evidence, aggregate.evidence.cells
    digests = {source: facts.digests for source, facts in evidence.plugins.items()}
    commands = Commands.of_grid(evidence.grid, cells, without_local_paths, digests)
    return html.render(
        aggregate,
        tables=[*tables.main, *tables.further],
        # The page itself draws the learning curves of the methods that a reader picks.
        plots=lambda: {
            picture.title: picture.svg.decode()
            for picture in get_pictures()
            if not picture.name.startswith(learning_curves.NAME)
        },
        command=commands if len(cells) <= COMMANDS else None,
    )


def _archived(evidence: Evidence) -> bool:
    return len({run.id for one in evidence.cells for run in one.runs}) <= archive.MOST


def markdown(aggregate: Aggregate, tables: "Tables", plots: Sequence[pictures.Picture] = ()) -> str:
    """Write ``leaderboard.md``.

    Args:
        aggregate: the grid's statistics.
        tables: of the same statistics.
        plots: to show; their files are in the folder ``plots``.
    """
    evidence = aggregate.evidence
    few = pair_summaries.few_pairs(aggregate)
    parts = [
        f"# {escape(evidence.grid.title)}\n",
        *_answers(aggregate),
        _over_pairs(aggregate),
        *(render(table) for table in tables.main),
        claims(aggregate),
        _unfinished(aggregate.frame),
        *(f"## {plot.title}\n\n![{plot.alt}](plots/{plot.name}.svg)\n" for plot in plots),
        f"## {pair_summaries.ANOTHER}\n\n{few}\n" if few else "",
        *(render(table) for table in tables.further),
        "## How it was measured\n",
        facts(aggregate),
        _commands(evidence.grid),
        _other_files(archived=_archived(evidence)),
    ]
    return "\n".join(part for part in parts if part)


def _over_pairs(aggregate: Aggregate) -> str:
    """Show the picture of all methods; empty if there is none."""
    picture = hero(aggregate)
    return f"![{escape(picture.title)}]({hero_image.PATH})\n" if picture else ""


def _answers(aggregate: Aggregate) -> list[str]:
    """Write the questions that can be answered, a paragraph each."""
    questions = (
        ("Which method would you use?", which),
        ("How sure is that?", sure),
        ("At what cost?", cost),
    )
    answered = ((question, answer(aggregate)) for question, answer in questions)
    return [f"**{question}** {escape(' '.join(lines))}\n" for question, lines in answered if lines]


def _commands(grid: Grid) -> str:
    source = shlex.quote(" ".join(grid.source.split()))
    return (
        "```sh\n"
        f"kdbench report --grid {source}   # rewrite this page from the records\n"
        f"kdbench run --grid {source}      # train the missing runs\n"
        "```\n"
    )


def _other_files(*, archived: bool) -> str:
    records = (
        "[records.parquet](records.parquet) contains every run's settings, record and learning "
        "curve; `kdbench report --from` rewrites this folder from it."
        if archived
        else f"Grids of more than {archive.MOST:,} runs have no archive of their records."
    )
    return (
        "All numbers of this page are in [leaderboard.csv](leaderboard.csv) (or "
        "[.parquet](leaderboard.parquet)), per cell with all seeds' accuracies and run ids, and "
        f"in [across.csv](across.csv), over pairs. {records} [leaderboard.tex](leaderboard.tex) is "
        "the main table for a paper. `kdbench show ID` prints a run and the command that repeats "
        "it. Departures from the authors' recipes: "
        f"[docs/departures.md]({html.DEPARTURES}) in kdbench's source.\n"
    )


# --- tables ---


@dataclass(frozen=True)
class Tables:
    """The tables of both pages.

    Attributes:
        main: the table of accuracies and those that belong to it.
        further: shown below the plots.
    """

    main: list[Table]
    further: list[Table]


def make_tables(aggregate: Aggregate) -> Tables:
    """Select and format all tables of a report."""
    return Tables(_main_tables(aggregate), _further_tables(aggregate))


def _main_tables(aggregate: Aggregate) -> list[Table]:
    decision, headline = aggregate.decision, aggregate.headline
    frame = in_order(aggregate.frame, ordered(aggregate))
    out = [over_pairs(aggregate)] if (frame["n"] > 0).any() else []
    reference = aggregate.methods.reference
    out.append(accuracy.accuracy(frame, decision=decision, headline=headline, ari_of=reference))
    if decision.baseline and frame["diff_n"].notna().any() and not headline.held_out:
        out.append(accuracy.differences(frame, decision))
    return out


def _further_tables(aggregate: Aggregate) -> list[Table]:
    grid, frame, methods = aggregate.evidence.grid, aggregate.frame, aggregate.methods
    another = pair_summaries.another_pair(aggregate)
    out = [another] if another else []
    if (frame["n"] > 0).any() and not aggregate.headline.held_out:
        out.append(pair_summaries.summaries(aggregate))
    if methods.reference and frame["ari_unreliable"].notna().any():
        out.append(accuracy.improvements(frame, methods.reference, methods.frame))
    if grid.report.reference:
        out.append(_published(grid, frame))
    if frame["seconds"].notna().any():
        out.append(supplementary.costs(frame, methods.baseline))
    if not aggregate.headline.held_out:
        out.append(supplementary.best_epoch(frame))
    out.append(supplementary.objectives(aggregate.evidence.cells))
    return out


def _published(grid: Grid, frame: "pd.DataFrame") -> Table:
    reference = str(grid.report.reference)
    table = published_figures(frame, reference)
    note = (
        f"Published on {', '.join(published.datasets(reference))}, here {grid.dataset.title} under "
        f"{grid.protocol.name}. Figures for other data sets are left out. Protocols may differ: a "
        "paper may report the best epoch, or use other teachers."
    )
    return Table(table.title, table.rows, table.bold, (note, *table.notes))


def _unfinished(frame: "pd.DataFrame") -> str:
    """List why runs have no result."""
    lines = [f"- {escape(line)}" for line in accuracy.reasons(frame)]
    missing = int(frame["missing"].sum())
    if missing:
        lines.append(f"- {counted(missing, 'run')} of this table: no record yet.")
    return "\n".join(["## Missing results", "", *lines]) + "\n" if lines else ""
