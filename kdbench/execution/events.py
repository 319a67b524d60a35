"""What a runner reports while it runs."""

from dataclasses import dataclass

from kdbench.grid.run import Run
from kdbench.runs.heartbeat import Beat
from kdbench.runs.records import Record


@dataclass(frozen=True)
class Event:
    """Something to show: new records, or where the running ones are."""

    ended: tuple[tuple[Run, Record], ...] = ()
    beats: tuple[Beat, ...] = ()
    left: int = 0
    line: str = ""
