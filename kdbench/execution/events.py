"""Progress reports of a runner."""

from dataclasses import dataclass

from kdbench.grid.run import Run
from kdbench.runs.heartbeat import Beat
from kdbench.runs.records import Record


@dataclass(frozen=True)
class Event:
    """A progress report.

    Attributes:
        ended: runs that have a record since the last report.
        beats: heartbeats of the runs in training.
        left: number of runs without a record.
        line: text to show; may have several lines.
    """

    ended: tuple[tuple[Run, Record], ...] = ()
    beats: tuple[Beat, ...] = ()
    left: int = 0
    line: str = ""
