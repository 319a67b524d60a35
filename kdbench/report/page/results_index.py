"""Entries of ``results/index.html``: every grid with a leaderboard, read from its files alone."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from kdbench.grid.run import BASELINES
from kdbench.report.page import thumbnail
from kdbench.report.page.thumbnail import Thumbnail

HEAD = 20_000
"""Characters of a page that hold its title and what it says about itself."""


@dataclass(frozen=True)
class IndexEntry:
    """A grid in a folder of results.

    Attributes:
        name: of its folder.
        title: of its page, or the name.
        link: to its page, quoted.
        answer: which method its page names first.
        supports: the claim that its page supports.
        picture: of its methods; None if their differences are not known.
        data: distinct data sets of its rows.
        protocol: distinct protocols of its rows.
        methods: number of methods.
        pairs: number of pairs.
        seeds: the largest number of seeds of any cell.
        done: runs with a result, without teachers.
        runs: runs in the grid, without teachers.
        trouble: why its CSV cannot be read; empty if it can.
    """

    name: str
    title: str
    link: str
    answer: str = ""
    supports: str = ""
    picture: Thumbnail | None = None
    data: str = ""
    protocol: str = ""
    methods: int = 0
    pairs: int = 0
    seeds: int = 0
    done: int = 0
    runs: int = 0
    trouble: str = ""

    @property
    def coverage(self) -> str:
        """The share of runs done, e.g. ``157 of 168 (93 %)``; 100 % only if all are."""
        share = math.floor(100 * self.done / self.runs) if self.runs else 0
        return f"{self.done:,} of {self.runs:,} ({share} %)"


def entries(results: Path) -> list[IndexEntry]:
    """List the grids in a folder, by name; none if the folder does not exist."""
    return [_entry(path) for path in sorted(results.glob("*/leaderboard.csv"))]


def _entry(path: Path) -> IndexEntry:
    folder = path.parent
    page = next((p for p in ("index.html", "leaderboard.md") if (folder / p).is_file()), path.name)
    link = f"{quote(folder.name, errors='replace')}/{page}"
    head = _head(folder / "index.html")
    title = head.title or folder.name
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] != "teacher"]
        seeds = [int(row["expected"]) for row in rows]
        return IndexEntry(
            folder.name, title, link,
            answer=head.meta.get("description", ""),
            supports=head.meta.get("supports", ""),
            picture=thumbnail.read(folder / "across.csv"),
            data=_words(row["dataset"] for row in rows),
            protocol=_words(row["protocol"] for row in rows),
            methods=len({row["method"] for row in rows} - set(BASELINES)),
            pairs=len({row["pair"] for row in rows}),
            seeds=max(seeds, default=0),
            done=sum(int(row["n"]) for row in rows),
            runs=sum(seeds),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"leaderboard.csv cannot be read: {type(error).__name__}: {error}"
        return IndexEntry(folder.name, title, link, trouble=reason)


def _words(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


class _Head(HTMLParser):
    """The text of the first ``title``, and the contents of ``meta`` by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.text = False, ""
        self.meta: dict[str, str] = {}

    @property
    def title(self) -> str:
        return " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "title" and not self.text
        values = dict(attrs)
        if tag == "meta" and values.get("name"):
            self.meta.setdefault(
                str(values["name"]), " ".join((values.get("content") or "").split())
            )

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        self.text += data if self.inside else ""


def _head(page: Path) -> _Head:
    """Read what a page says about itself; nothing if there is no page."""
    parser = _Head()
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            parser.feed(file.read(HEAD))
    except OSError:
        pass
    return parser
