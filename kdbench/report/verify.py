"""Verification of committed results: written again from their records and compared."""

import io
from collections.abc import Iterable
from pathlib import Path

from kdbench.files import is_temporary
from kdbench.report import leaderboard
from kdbench.report.page import html
from kdbench.runs import archive
from kdbench.stats.aggregate import aggregate

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def folders(results: Path) -> list[Path]:
    """List the folders that contain an archive of records."""
    return sorted(path.parent for path in results.glob(f"*/{archive.NAME}"))


def differing(folder: Path) -> list[str]:
    """List the files in a folder of results that differ from those its records produce.

    Text and SVG are compared byte by byte. Parquet files are compared by content, since their bytes
    contain the library's version. PNG files only have to exist, since their bytes depend on the
    libraries. Unexpected extra files are reported as well, except temporary files, which a killed
    `kdbench report` leaves and the next one deletes.

    Raises:
        ArchiveError: the records cannot be read.
    """
    expected = leaderboard.files(aggregate(archive.load(folder / archive.NAME)))
    lines = (_difference(folder, name, content) for name, content in sorted(expected.items()))
    return [*(line for line in lines if line), *_extra(folder, expected)]


def overview(results: Path) -> list[str]:
    """Report whether the page over all grids differs from the one the folders produce."""
    text = _difference(results, "index.html", html.index(results).encode())
    return [text] if text else []


def _difference(folder: Path, name: str, expected: bytes) -> str:
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return f"{path}: missing"
    if content == expected or (path.suffix == ".parquet" and _same_table(content, expected)):
        return ""
    if path.suffix == ".png":
        return "" if content.startswith(SIGNATURE) else f"{path}: not a PNG image"
    if path.suffix in (".md", ".csv", ".tex"):
        return f"{path}: differs in line {_line(content, expected)}"
    return f"{path}: differs"


def _extra(folder: Path, expected: Iterable[str]) -> list[str]:
    known = {folder / name for name in expected}
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    extra = (path for path in paths if path not in known and not is_temporary(path))
    return [f"{path}: not produced by the records" for path in extra]


def _same_table(one: bytes, other: bytes) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        tables = [
            archive.without_checksum(pq.read_table(io.BytesIO(content))) for content in (one, other)
        ]
    except pa.ArrowException:
        return False
    return bool(tables[0].equals(tables[1], check_metadata=True))


def _line(one: bytes, other: bytes) -> int:
    lines = one.splitlines(), other.splitlines()
    both: Iterable[tuple[bytes, bytes]] = zip(*lines, strict=False)
    return next((i for i, (a, b) in enumerate(both, 1) if a != b), min(map(len, lines)) + 1)
