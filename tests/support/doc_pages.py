"""Pages of the documentation, with their fenced blocks and tables."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


class Snippet(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


def snippets() -> list[Snippet]:
    """Return every fenced block of every page."""
    blocks = []
    for page in PAGES:
        text = page.read_text()
        fences = re.findall(r"^ *```", text, re.M)
        pattern = r"^( *)```(\w*)\n(.*?)^\1```$"
        matches = list(re.finditer(pattern, text, re.M | re.S))
        assert len(fences) == 2 * len(matches), f"{page.name}: a fence that is not closed"
        for match in matches:
            line = text.count("\n", 0, match.start()) + 1
            blocks.append(Snippet(page, line, match[2], textwrap.dedent(match[3])))
    return blocks


SNIPPETS = snippets()


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^( *)```\w*\n.*?^\1```$", "", page.read_text(), flags=re.M | re.S)


def table(text: str, *head: str) -> list[list[str]]:
    """Return the cells of every table with this head."""
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if tuple(cells[: len(head)]) == head:
            inside = True
        elif not line.strip().startswith("|"):
            inside = False
        elif inside and not set(cells[0]) <= {"-", ":"}:
            rows.append(cells)
    assert rows, f"no table {head}"
    return rows
