"""One self-contained HTML page per grid, and the index of a folder of results."""

import base64
import hashlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from kdbench.grid.grid import Grid
from kdbench.grid.run import Run
from kdbench.report import numbers
from kdbench.report.page import (
    answers,
    cell_details,
    embedded_plots,
    hero,
    main_table,
    method_facts,
    results_index,
    table_section,
)
from kdbench.report.tables import accuracy
from kdbench.report.tables.table import Table
from kdbench.report.text import claims, facts
from kdbench.stats.aggregate import Aggregate
from kdbench.wording import counted

if TYPE_CHECKING:
    from jinja2 import Environment

CELLS = 5_000
"""Most cells with details on the page; with more it would have tens of megabytes."""
DEPARTURES = "../../docs/departures.md"
"""Link from a folder of results in a checkout."""
SCRIPTS = (
    "theme.js", "sort.js", "main_table.js", "pinned_head.js", "cell_hints.js", "curves.js",
    "cell_details.js", "method_details.js", "comparison.js", "hero.js", "start.js",
)  # fmt: skip
STYLES = ("style.css", "hero.css", "table.css", "details.css")


def render(
    aggregate: Aggregate,
    *,
    tables: Iterable[Table] = (),
    plots: Callable[[], Mapping[str, str]] = dict,
    command: Callable[[Run], str] | None = None,
) -> str:
    """Write the page, which depends on nothing but the arguments.

    Args:
        aggregate: the grid's statistics.
        tables: shown below the main one.
        plots: title -> text of an SVG; called as late as possible.
        command: returns the command that repeats a run; None: the page shows no commands.
    """
    grid, frame = aggregate.evidence.grid, aggregate.frame
    columns = main_table.columns(aggregate)
    opens = len(frame) <= CELLS
    rows = main_table.rows(aggregate, bars=opens)
    section = table_section.table_section(aggregate, rows, columns, opens=opens)
    supports, against = claims.claim_lines(aggregate)
    data = (
        cell_details.payload(aggregate, rows, columns, command) if opens else cell_details.NOTHING
    )
    questions = answers.answers(aggregate)
    return _fill(
        "page.html.j2",
        SCRIPTS,
        title=grid.title,
        departures=DEPARTURES,
        introduction=_introduction(grid, rows, columns),
        description=" ".join([*questions[0].sentences[:1], questions[0].command]).strip(),
        claim=" ".join(grid.report.supports.split()),
        answers=questions,
        further=answers.further(aggregate, rows, columns),
        hero=hero.hero(aggregate),
        supports=supports,
        against=against,
        columns=columns,
        rows=rows,
        **table_section.values(section),
        counts=main_table.counts([cell for row in rows for cell in row.cells]),
        letters=main_table.LETTERS,
        words=main_table.WORDS,
        reasons=accuracy.reasons(frame),
        tables=[*tables, _methods(rows)],
        facts=facts.fact_lines(aggregate),
        opens=opens,
        curve_note=_curve_note(data) if opens else "",
        commands=_commands(grid.source),
        data=cell_details.script(data),
        figures=cache(lambda: embedded_plots.embed(plots())),
    )  # fmt: skip


def index(results: Path) -> str:
    """Write the index of all grids in a folder of results, from the folder's contents alone.

    Args:
        results: the folder; each folder in it with a ``leaderboard.csv`` is a grid.
    """
    return _fill(
        "index.html.j2",
        ("theme.js", "index.js"),
        ("style.css", "index.css"),
        title="Results",
        entries=results_index.entries(results),
    )


def _fill(
    template: str, scripts: Iterable[str], styles: Iterable[str] = STYLES, **values: Any
) -> str:
    """Fill a template with styles and scripts, and a policy that allows only these.

    Even if some text were rendered as markup, no browser would run or load anything for it.
    """
    style, code = "".join(map(_read, styles)), "".join(map(_read, scripts))
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(code)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _templates().get_template(template).render(
        policy=policy, style=Markup(style), code=Markup(code), **values
    )  # fmt: skip
    # YAML can contain half a surrogate pair, which UTF-8 cannot encode.
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
        "number": numbers.number,
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


def _introduction(
    grid: Grid, rows: list[main_table.TableRow], columns: list[main_table.Column]
) -> str:
    methods = [row.name for row in rows if not row.baseline]
    pairs = numbers.listed([column.name for column in columns], 4)
    return (
        f"{counted(len(methods), 'method')} on {grid.dataset.title}; teacher → student: {pairs}; "
        f"{counted(len(grid.seeds), 'seed')}."
    )


def _methods(rows: list[main_table.TableRow]) -> Table:
    """List the family and paper of each method, and where its code is if not all are built in."""
    import pandas as pd

    methods = [row for row in rows if not row.baseline]
    columns = {
        "Method": [row.name for row in methods],
        "Family": [row.family for row in methods],
        "Paper": [row.about for row in methods],
    }
    if any(row.facts.source != method_facts.BUILT_IN for row in methods):
        columns["Source"] = [row.facts.source for row in methods]
    return Table("Methods", pd.DataFrame(columns))


def _curve_note(data: Mapping[str, Any]) -> str:
    if not data["points"]:
        return "Learning curves are left out to limit the page's size; see kdbench show RUN."
    if not data["curves"]:
        return "There are no learning curves."
    return (
        f"Learning curves are drawn from at most {data['points']} evenly spaced epochs and are "
        "rounded to about 0.02 percentage points; the numbers next to them are exact."
    )


def _commands(source: str) -> list[str]:
    grid = shlex.quote(" ".join(source.split()))
    return [
        f"kdbench report --grid {grid}   # rewrite this page from the records",
        f"kdbench run --grid {grid}      # train the missing runs",
    ]
