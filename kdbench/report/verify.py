"""Whether committed results are what their records give: made again, and compared byte by byte."""

import io
from collections.abc import Iterable
from pathlib import Path

from kdbench.report import leaderboard
from kdbench.report.page import html
from kdbench.runs import archive
from kdbench.stats.aggregate import aggregate

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def folders(results: Path) -> list[Path]:
    """The folders that hold an archive of records."""
    return sorted(path.parent for path in results.glob(f"*/{archive.NAME}"))


def differing(folder: Path) -> list[str]:
    """What of a folder of results is not what its records give: a line a file.

    Text and SVG are compared byte by byte. A Parquet file of the same content is the same: its
    bytes name the library's version. PNG bytes depend on the libraries: it has to be there. A file
    that the records do not give is a difference, too.

    Raises:
        ArchiveError: the records cannot be read.
    """
    made = leaderboard.files(aggregate(archive.load(folder / archive.NAME)))
    told = (_told(folder, name, content) for name, content in sorted(made.items()))
    return [*(line for line in told if line), *_extra(folder, made)]


def overview(results: Path) -> list[str]:
    """What of the page over all grids is not what the folders give."""
    text = _told(results, "index.html", html.index(results).encode())
    return [text] if text else []


def _told(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        return f"{path}: missing"
    if there == content or (path.suffix == ".parquet" and _same_table(there, content)):
        return ""
    if path.suffix == ".png":
        return "" if there.startswith(SIGNATURE) else f"{path}: no PNG image"
    if path.suffix in (".md", ".csv", ".tex"):
        return f"{path}: differs in line {_line(there, content)}"
    return f"{path}: differs"


def _extra(folder: Path, made: Iterable[str]) -> list[str]:
    known = {folder / name for name in made}
    there = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return [f"{path}: not made from the records" for path in there if path not in known]


def _same_table(one: bytes, other: bytes) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        tables = [pq.read_table(io.BytesIO(content)) for content in (one, other)]
    except pa.ArrowException:
        return False
    return bool(tables[0].equals(tables[1], check_metadata=True))


def _line(one: bytes, other: bytes) -> int:
    lines = one.splitlines(), other.splitlines()
    both: Iterable[tuple[bytes, bytes]] = zip(*lines, strict=False)
    return next((i for i, (a, b) in enumerate(both, 1) if a != b), min(map(len, lines)) + 1)
