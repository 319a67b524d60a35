"""A grid's evidence to one HTML page, which needs nothing beside itself; a folder of them, too."""

import base64
import hashlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from kdbench.grid.run import Run
from kdbench.report.page import (
    answers,
    cell_details,
    embedded_plots,
    main_table,
    numbers,
    results_index,
)
from kdbench.report.tables import accuracy
from kdbench.report.tables.table import Table
from kdbench.report.text import claims, facts
from kdbench.runs.evidence import Evidence
from kdbench.stats.cell_summary import Summaries, row_label, summaries

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

CELLS = 5_000
"""Cells up to which each opens its details; with more they would be tens of megabytes."""


def render(
    evidence: Evidence,
    frame: "pd.DataFrame",
    *,
    found: Summaries | None = None,
    digest: str | None = None,
    further: Iterable[Table] = (),
    plots: Callable[[], Mapping[str, str]] | None = None,
    command: Callable[[Run], str] | None = None,
) -> str:
    """The page: a pure function of what it is given.

    Args:
        evidence: of the grid. frame: of ``tidy``, of the same evidence.
        found: ``summaries`` of the cells, where they are there already.
        digest: of the data that all runs used; None where no run has read it.
        further: tables to show below the main one.
        plots: title -> text of an SVG; asked for as late as can be.
        command: a run to the line that repeats it; None: the page has no such lines.
    """
    grid, cells, records = evidence.grid, evidence.cells, evidence.records
    baseline = row_label(cells, grid.report.baseline)
    columns = main_table.columns(evidence, frame)
    found = summaries(cells, records) if found is None else found
    opens = len(frame) <= CELLS
    board = main_table.rows(evidence, frame, found, baseline, bars=opens)
    methods = [row for row in board if not row.baseline]
    supports, against = claims.claim_lines(grid, cells, records, frame)
    data = cell_details.NOTHING
    if opens:
        data = cell_details.payload(evidence, frame, board, baseline, command)
    return _fill(
        "page.html.j2",
        ("theme.js", "sort.js", "board.js", "drawer.js"),
        title=grid.title,
        lead=_lead(evidence, board, columns),
        answers=answers.answers(evidence, frame, board, columns, baseline),
        supports=supports,
        against=against,
        baseline=baseline,
        columns=columns,
        heads=_heads(columns, baseline),
        rows=board,
        groups=[group for group in ([r for r in board if r.baseline], methods) if group],
        families=list(dict.fromkeys(row.family for row in methods)),
        datasets=list(dict.fromkeys(column.dataset for column in columns)),
        seeds=len(grid.seeds),
        counts=main_table.counts([box for row in board for box in row.boxes]),
        letters=main_table.LETTERS,
        words=main_table.WORDS,
        reasons=accuracy.reasons(frame),
        tables=[*further, _methods(board)],
        facts=facts.fact_lines(grid, cells, records, digest),
        opens=opens,
        curve_note=_curve_note(data) if opens else "",
        commands=_commands(grid.source),
        data=cell_details.script(data),
        figures=cache(lambda: embedded_plots.embed(plots() if plots else {})),
    )  # fmt: skip


def index(results: Path) -> str:
    """The page over all grids in a folder of results: a pure function of what lies there.

    Args:
        results: the folder; a grid is a folder in it with a ``leaderboard.csv``.
    """
    return _fill(
        "index.html.j2",
        ("theme.js", "sort.js", "index.js"),
        title="Results",
        entries=results_index.entries(results),
    )


def _fill(template: str, scripts: Iterable[str], **values: Any) -> str:
    """A template with its style and scripts inside, and a policy that allows only these.

    So whatever text may slip through as markup, no browser runs or loads anything for it.
    """
    style, code = _read("style.css"), "".join(map(_read, scripts))
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(code)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _templates().get_template(template).render(
        policy=policy, style=Markup(style), code=Markup(code), **values
    )  # fmt: skip
    # Half a surrogate pair, which YAML can write, is no text that a file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kdbench.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "signed": numbers.signed,
        "interval": numbers.interval,
        "times": numbers.times,
        "zip": zip,
        "v": lambda value: "" if numbers.plain(value) is None else numbers.plain(value),
    }
    return environment


def _read(name: str) -> str:
    return resources.files("kdbench.report.page").joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _lead(
    evidence: Evidence, board: list[main_table.TableRow], columns: list[main_table.Column]
) -> str:
    methods = [row.name for row in board if not row.baseline]
    pairs = numbers.listed([column.name for column in columns], 4)
    return (
        "Knowledge distillation: a small network, the student, learns from a larger trained one, "
        f"the teacher; each method is another way to teach. Here: {len(methods)} methods on "
        f"{evidence.grid.dataset.title}, teacher → student {pairs}."
    )


def _methods(board: list[main_table.TableRow]) -> Table:
    """What every row is."""
    import pandas as pd

    lines = [(row.name, row.family, row.about) for row in board if not row.baseline]
    return Table("Methods", pd.DataFrame(lines, columns=["Method", "Family", "Paper"]))


def _heads(columns: list[main_table.Column], baseline: str | None) -> list[dict[str, Any]]:
    """The columns of the main table: label, a second line, what it sorts as, its pair."""
    heads: list[tuple[str, str, str, int | None]] = [
        ("Method", "", "text", None),
        ("Family", "", "text", None),
        ("Year", "of the paper", "number", None),
    ]
    if baseline:
        heads.append((f"− {baseline}", "points, mean over pairs", "number", None))
    heads.append(("Among best", f"on … of {len(columns)} pairs", "number", None))
    if baseline:
        heads.append(("Time", f"in that of {baseline}", "number", None))
    for i, column in enumerate(columns):
        words = {"same": "same architecture", "cross": "cross architecture"}
        heads.append((column.name, words.get(column.architecture, ""), "number", i))
    return [dict(zip(("label", "small", "kind", "pair"), head, strict=True)) for head in heads]


def _curve_note(data: Mapping[str, Any]) -> str:
    if not data["points"]:
        return "Learning curves are left out of this page for its size; kdbench show RUN has them."
    if not data["curves"]:
        return "There are no learning curves."
    return (
        f"Learning curves have at most {data['points']} points, evenly spaced over the epochs, "
        "and steps of 0.02 points; the numbers beside them are exact."
    )


def _commands(source: str) -> list[str]:
    grid = shlex.quote(" ".join(source.split()))
    return [
        f"kdbench report --grid {grid}   # writes this page again from the records",
        f"kdbench run --grid {grid}      # trains what is missing",
    ]
