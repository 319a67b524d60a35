"""``results/index.html``: every grid that has a leaderboard, read from the CSVs alone."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from kdbench.grid.run import BASELINES


@dataclass(frozen=True)
class IndexEntry:
    """A grid in a folder of results.

    Attributes:
        name: of its folder. title: of its page, or the name. link: to its page, quoted.
        data, protocol: as its rows have them.
        methods, pairs, seeds: how many; of seeds, the most of any cell.
        done, runs: results and what the grid asks for, teachers aside.
        trouble: why nothing is known of it; empty where all is well.
    """

    name: str
    title: str
    link: str
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
        """E.g. ``157 of 168 (93 %)``; never 100 % where something is missing."""
        share = math.floor(100 * self.done / self.runs) if self.runs else 0
        return f"{self.done:,} of {self.runs:,} ({share} %)"


def entries(results: Path) -> list[IndexEntry]:
    """The grids in a folder, by name; none where there is no such folder."""
    return [_entry(path) for path in sorted(results.glob("*/leaderboard.csv"))]


def _entry(path: Path) -> IndexEntry:
    folder = path.parent
    page = next((p for p in ("index.html", "leaderboard.md") if (folder / p).is_file()), path.name)
    link = f"{quote(folder.name, errors='replace')}/{page}"
    title = _title(folder / "index.html") or folder.name
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] != "teacher"]
        seeds = [int(row["expected"]) for row in rows]
        return IndexEntry(
            folder.name, title, link,
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


class _Title(HTMLParser):
    """The text of the first ``title``."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.text = False, ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag == "title" and not self.text

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        self.text += data if self.inside else ""


def _title(page: Path) -> str:
    """What a page calls itself; empty where there is none."""
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            start = file.read(20_000)
    except OSError:
        return ""
    parser = _Title()
    parser.feed(start)
    return " ".join(parser.text.split())
