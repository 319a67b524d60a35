"""The processes that a runner waits for, when they hold every run that it could train."""

import time
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from kdbench.grid.run import Run
from kdbench.runs import lease, records
from kdbench.runs.lease import Holder
from kdbench.runs.signs_of_life import STALE_SECONDS
from kdbench.wording import counted, duration

LOOK_SECONDS = 3.0
"""Time between two looks at the leases, and before the first."""


class Waiting:
    """Reports the processes that a runner waits for, each once.

    Args:
        runs: folder of runs.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.said: set[str] = set()
        self.next_look = time.monotonic() + LOOK_SECONDS

    def line(self, pending: Iterable[Run], mine: Collection[str] = ()) -> str:
        """Return a line for each process that is new; "" if none is.

        Args:
            pending: the runs without a record.
            mine: identities of the runner's own processes (``Owner.process``).
        """
        if time.monotonic() < self.next_look:
            return ""
        holders: dict[str, Holder] = {}
        held: Counter[str] = Counter()
        for run in pending:
            if run.teacher and not records.has_record(self.runs, run.teacher.run):
                continue  # the process that trains their teacher is waited for instead
            found = lease.holder(records.folder(self.runs, run.id))
            if found is None or found.owner.is_dead() or found.owner.process in mine:
                held.clear()
                break  # a run is in training here, or free
            holders[found.owner.process] = found
            held[found.owner.process] += 1
        self.next_look = time.monotonic() + LOOK_SECONDS
        new = [process for process in held if process not in self.said]
        self.said = set(held)
        return "\n".join(describe(holders[process], held[process]) for process in new)


def describe(holder: Holder, runs: int) -> str:
    """Describe in one line a process that is waited for, and how many runs it holds."""
    return (
        f"waiting for {holder.owner}, which holds {counted(runs, 'run')}; last sign {holder.sign}; "
        f"taken over after {duration(STALE_SECONDS)} of silence"
    )
