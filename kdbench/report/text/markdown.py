"""A table as Markdown that shows its texts as they stand."""

import re
from collections.abc import Iterable

from kdbench.report.tables.table import Table

MARKS = re.compile(r"[\\&<|`*~$_]|\][(\[:]|[^\S ]|  |^ | $|^(?:>|\d+[.)](?= |$)|[#+=-]+(?= |$))")
"""What ``escape`` looks at more closely."""


def render(table: Table) -> str:
    """A table with its heading and notes, everything in it escaped."""
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
    """Text that Markdown shows as it stands: no cell ends early, no tag opens, no link forms.

    What needs no escape where it stands has none, so that the page can be read as a text, too.
    """
    if not MARKS.search(text):
        return text
    text = " ".join(text.split()).replace("\\", "\\\\")
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    text = re.sub(r"([|`*~$])", r"\\\1", text)
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)
    # Inside a word an underscore is itself: wrn_40_2 stays readable.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # What would be a heading, a quotation or a list at the start of a line.
    text = re.sub(r"^(\d+)([.)](?=\s|$))", r"\1\\\2", text)
    return re.sub(r"^(>|[#+=-]+(?=\s|$))", r"\\\1", text)


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
