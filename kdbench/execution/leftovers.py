"""Files that killed processes have left in the folders of runs that have ended."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kdbench import files
from kdbench.grid.run import Run
from kdbench.runs import lease, records
from kdbench.runs.owner import Owner


def sweep(expanded: Iterable[Run], runs: Path) -> None:
    """Delete what processes killed after the record have left: leases and temporary files.

    A process that ends normally deletes its lease last, so only folders with one are looked at.
    Those of runs without a record are swept by the process that resumes the run.
    """
    files.sweep(runs)
    owner = Owner.me()
    for run in expanded:
        folder = records.folder(runs, run.id)
        if (folder / lease.NAME).exists() and records.has_record(runs, run.id):
            with suppress(OSError):
                taken = lease.acquire(folder, owner)  # not while its owner lives
                if taken:
                    files.sweep(folder)
                    taken.release()
