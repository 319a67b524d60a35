"""Ids of runs as users give them: their first characters suffice."""

from pathlib import Path

from kdbench.errors import UserError


def complete(runs: Path, start: str) -> str:
    """Complete the start of a run's id.

    Raises:
        UserError: no run, or several runs, start so.
    """
    try:
        names = [path.name for path in runs.iterdir() if (path / "run.json").exists()]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{runs}: no such folder of runs") from None
    starts = sorted(name for name in names if name.startswith(start))
    if start in starts:
        return start
    if len(starts) == 1:
        return starts[0]
    more = ", ..." if len(starts) > 5 else ""
    several = f"the ids of {len(starts)} runs begin so: {', '.join(starts[:5])}{more}"
    problem = several if starts else "no such run"
    raise UserError(f"{runs}/{start}: {problem}")
