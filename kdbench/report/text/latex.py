"""The tables of accuracies per pair and of results over pairs as LaTeX with booktabs."""

import re

from kdbench.report.tables import accuracy
from kdbench.report.tables.over_pairs import over_pairs
from kdbench.report.tables.table import Table
from kdbench.report.text.places_of_methods import left_out, not_ranked, unplaced
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.headline import shown_answers
from kdbench.wording import counted

PANEL = 7
"""Largest number of pairs side by side; further pairs go into panels below."""
PANELS = 4
"""Largest number of panels that fit on a page."""

HEAD = r"""% In a paper: \usepackage{{booktabs}} in the preamble, then \input{{leaderboard}}.
% By itself: pdflatex '\documentclass{{article}}\usepackage{{booktabs}}
%   \begin{{document}}\input{{leaderboard}}\end{{document}}'
\begin{{table}}[t]
\centering
\caption{{{caption}}}
\scriptsize
\setlength{{\tabcolsep}}{{3pt}}
"""

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}", '"': r"\textquotedblright{}", "-": "{-}", "[": "{[}",
    "]": "{]}", "*": "{*}",
    "±": r"$\pm$", "−": "$-$", "→": r"$\rightarrow$", "†": r"$^{\dagger}$", "–": "--",
    "…": r"\ldots{}", "·": r"$\cdot$", "∞": r"$\infty$", "²": r"$^{2}$", "×": r"$\times$",
    "●": r"$\bullet$", "▲": r"$\uparrow$", "▼": r"$\downarrow$",
}  # fmt: skip
LETTERS = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ")
"""Letters beyond ASCII that pdflatex typesets in its default encoding."""


def leaderboard(aggregate: Aggregate) -> str:
    """Write the table of accuracies in the grid's order, and the table over pairs by mean."""
    parts = [_accuracies(aggregate)]
    if (aggregate.frame["n"] > 0).any():
        parts.append(_over_pairs(aggregate))
    return "\n".join(parts)


def _over_pairs(aggregate: Aggregate) -> str:
    table = over_pairs(aggregate)
    columns = [str(name) for name in table.rows.columns]
    caption = [f"{aggregate.evidence.grid.title}.", *table.notes]
    if not aggregate.headline.held_out:
        caption += [*unplaced(aggregate), *not_ranked(aggregate), *left_out(aggregate.decision)]
    lines = [
        HEAD.format(caption=escape(" ".join(caption))).rstrip(),
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
        _line([escape(name) for name in columns]),
        r"\midrule",
    ]
    for i, row in enumerate(table.lines):
        cells = zip(columns, map(str, row), strict=True)
        lines.append(_line([_cell(text, (i, name) in table.bold) for name, text in cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _accuracies(aggregate: Aggregate) -> str:
    grid, frame, headline = aggregate.evidence.grid, aggregate.frame, aggregate.headline
    table = accuracy.accuracy(
        frame, decision=aggregate.decision, headline=headline, ari_of=aggregate.methods.reference
    )
    pair, teacher, student = (frame[name].tolist() for name in ("pair", "teacher", "student"))
    heads = dict(zip(pair, zip(teacher, student, strict=True), strict=True))
    pairs = [str(name) for name in table.rows.columns if name in heads]
    others = [str(name) for name in table.rows.columns[1:] if name not in heads]
    left = len(pairs) - PANEL * PANELS
    caption = (
        f"{grid.title}. {headline.name.capitalize()} of the last epoch in percent on "
        f"{grid.dataset.title}, "
        f"protocol {grid.protocol.name}; mean ± standard deviation over "
        f"{counted(len(grid.seeds), 'seed')}, "
        "(k/n): k of n seeds are finished."
    )
    caption = " ".join([caption, *shown_answers(headline)])
    if left > 0:
        caption += f" {counted(left, 'further pair')} {'is' if left == 1 else 'are'} not shown."
    if table.bold:
        caption = f"{caption} {table.notes[1]}"
    out = [HEAD.format(caption=escape(caption))]
    starts = range(0, min(len(pairs), PANEL * PANELS), PANEL)
    panels = [pairs[i : i + PANEL] for i in starts] or [[]]
    for panel in panels:
        last = others if panel is panels[-1] else []
        out.append(_tabular(table, {pair: heads[pair] for pair in panel}, last))
    return "\\par\\medskip\n".join(out[1:]).join((out[0], "\\end{table}\n"))


def _tabular(table: Table, heads: dict[str, tuple[str, str]], others: list[str]) -> str:
    """Write the columns of some pairs, followed by other columns."""
    teachers = [escape(teacher) for teacher, _ in heads.values()]
    # A repeated pair has a number after its name.
    repeats = [re.search(r" \(\d+\)$", pair) for pair in heads]
    students = [
        escape(student + (mark.group() if mark else ""))
        for (_, student), mark in zip(heads.values(), repeats, strict=True)
    ]
    blank = [""] * len(others)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(heads) + len(others))}}}",
        r"\toprule",
        _line(["Teacher", *teachers, *blank]),
        _line(["Student", *students, *map(escape, others)]),
        r"\midrule",
    ]
    for i, row in enumerate(table.rows.to_dict("records")):
        cells = [escape(str(row["Method"]))]
        for column in (*heads, *others):
            text = str(row[column])
            # The page gives the reason.
            text = "skipped" if text.startswith("skipped: ") else text
            cells.append(_cell(text, (i, column) in table.bold))
        lines.append(_line(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(text: str, bold: bool) -> str:
    return rf"\textbf{{{escape(text)}}}" if bold else escape(text)


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """Escape text for LaTeX; a character that it cannot typeset is replaced by its code point."""
    # A hyphen before a number is a minus.
    text = re.sub(r"(?<![^\s\[(,+])-(?=\d)", "−", " ".join(text.split()))
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if (character.isascii() and character.isprintable()) or character in LETTERS:
        return character
    return f"{{[}}U+{ord(character):04X}{{]}}"
