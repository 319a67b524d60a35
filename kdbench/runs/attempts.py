"""What became of a run's earlier attempts, a line each, in ``runs/<id>/attempts.log``.

Whoever sees an attempt end writes a line: the runner that lost a job, the job that was told to
stop. They end in the run's record. No torch here.
"""

from datetime import UTC, datetime
from pathlib import Path

from kdbench.runs.records import folder

NAME = "attempts.log"


def note(runs: Path, run_id: str, text: str) -> None:
    """Add a line. Short appends of several writers do not mix."""
    path = folder(runs, run_id) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{when} {' '.join(text.split())}\n")


def read(runs: Path, run_id: str) -> tuple[str, ...]:
    """The lines there are, oldest first."""
    try:
        return tuple((folder(runs, run_id) / NAME).read_text(encoding="utf-8").splitlines())
    except OSError:
        return ()
