"""Tables as Markdown."""

import re
from collections.abc import Iterable

from kdbench.report.tables.table import Table

MARKS = re.compile(r"[\\&<|`*~$_]|\][(\[:]|[^\S ]|  |^ | $|^(?:>|\d+[.)](?= |$)|[#+=-]+(?= |$))")
"""Patterns that ``escape`` may have to change."""


def render(table: Table) -> str:
    """Write a table with its heading and notes, all escaped."""
    lines = [f"## {escape(table.title)}", ""] if table.title else []
    columns = [str(name) for name in table.rows.columns]
    lines.append(_line(escape(name) for name in columns))
    lines.append(_line("---" if i == 0 else "---:" for i in range(len(columns))))
    for i, row in enumerate(table.lines):
        texts = [escape(str(text)) for text in row]
        lines.append(
            _line(
                f"**{text}**" if (i, name) in table.bold and text else text
                for name, text in zip(columns, texts, strict=True)
            )
        )
    for note in table.notes:
        lines += ["", escape(note)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape text so that Markdown shows it unchanged: no table cell, tag or link is formed.

    Characters are escaped only where necessary, so that the page is readable as plain text.
    """
    if not MARKS.search(text):
        return text
    text = " ".join(text.split()).replace("\\", "\\\\")
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    text = re.sub(r"([|`*~$])", r"\\\1", text)
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)
    # Markdown leaves underscores inside words alone: wrn_40_2 stays readable.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # A heading, quotation or list at the start of a line.
    text = re.sub(r"^(\d+)([.)](?=\s|$))", r"\1\\\2", text)
    return re.sub(r"^(>|[#+=-]+(?=\s|$))", r"\\\1", text)


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
