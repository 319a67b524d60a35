"""Earlier attempts to train a run: ``runs/<id>/attempts.log``, a line per attempt.

The process that sees an attempt end writes the line: the runner that lost a job, or a job that was
stopped. The lines become part of the run's record. This module does not import torch.
"""

from datetime import UTC, datetime
from pathlib import Path

from kdbench.files import append_line
from kdbench.runs.records import folder

NAME = "attempts.log"


def note(runs: Path, run_id: str, text: str) -> None:
    """Append a line. Short appends of several writers do not interleave."""
    path = folder(runs, run_id) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    text = " ".join(text.split()).encode("utf-8", "replace").decode()
    append_line(path, f"{when} {text}")


def read(runs: Path, run_id: str) -> tuple[str, ...]:
    """Read the lines, oldest first.

    They are notes for people, so damage to the file must not stop a run: undecodable bytes are
    replaced, and a file that cannot be read counts as empty.
    """
    path = folder(runs, run_id) / NAME
    try:
        return tuple(path.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return ()
