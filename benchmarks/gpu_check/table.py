"""The table of a check, made from its lines, so that it also covers a process that was lost."""

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a check; an incomplete last line is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def rows_of_table(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return section, state, seconds and result of every section that ended."""
    cells = []
    for row in rows:
        if "state" in row:
            cells.append((row["section"], row["state"], f"{row['seconds']:.1f}", row["result"]))
    return cells


def write_table(lines: Path, target: Path) -> bool:
    """Print the table and write it; return whether a section failed.

    Args:
        lines: the check's lines.
        target: file of the table.
    """
    rows = read(lines)
    cells = [("section", "state", "s", "result"), *rows_of_table(rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    card = rows[0]["card"] if rows else ""
    text = [f"kdbench on {card}"]
    for name, state, seconds, result in cells:
        text.append(
            f"{name:{widths[0]}}  {state:{widths[1]}}  {seconds:>{widths[2]}}  {result}".rstrip()
        )
    target.write_text("\n".join(text) + "\n")
    print("\n".join(text), flush=True)
    return any(state in ("ERROR", "FAILED") for _, state, *_ in cells)
