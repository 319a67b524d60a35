"""Drawing of a report's plots in a second process, on a second core.

The bytes of a plot do not depend on the process that draws it. If the second process fails, the
report's process draws, and so meets the same error with its traceback.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.runs import environment
from kdbench.runs.evidence import Evidence

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from multiprocessing.connection import Connection

    from kdbench.report.plots.pictures import Picture
    from kdbench.stats.aggregate import Aggregate

GetPictures = Callable[[], "Sequence[Picture]"]
"""Wait for the pictures; later calls return the same ones."""
Draw = Callable[["Aggregate"], GetPictures]
"""Begin to draw."""

THREADS = Path("/proc/self/task")


def draw_here(aggregate: "Aggregate") -> GetPictures:
    """Draw in this process, when the pictures are needed."""

    @cache
    def draw() -> "Sequence[Picture]":
        from kdbench.report.plots import pictures

        return pictures.pictures(aggregate)

    return draw


@dataclass(frozen=True)
class DrawInBackground:
    """Draws in the process at the other end of a pipe, or in this one if that process fails.

    Attributes:
        pipe: to the drawing process.
        sender: thread for sending, which blocks while the drawing process is busy.
    """

    pipe: "Connection"
    sender: "Executor"

    def __call__(self, aggregate: "Aggregate") -> GetPictures:
        """Send the statistics; the drawing process has the evidence since the fork."""
        sent = self.sender.submit(self.pipe.send, (aggregate.frame, aggregate.decision))
        get_own = draw_here(aggregate)

        @cache
        def wait() -> "Sequence[Picture]":
            received: Sequence[Picture] | None = None
            with suppress(EOFError, OSError):
                sent.result()
                received = self.pipe.recv()
            return get_own() if received is None else received

        return wait


@contextmanager
def drawing_process(evidence: Evidence) -> Iterator[Draw]:
    """Start a process that draws, and end it with the context at the latest.

    The process begins at once with the plot that needs no statistics. If there is no second core,
    or a fork is not safe, this process draws instead.
    """
    if not _can_fork():
        yield draw_here
        return
    import multiprocessing
    from concurrent.futures import ThreadPoolExecutor

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(evidence, ours, theirs), daemon=True)
    process.start()
    # Only the drawing process keeps this end open, so that reading fails as soon as it ends.
    theirs.close()
    sender = ThreadPoolExecutor(1)

    try:
        yield DrawInBackground(ours, sender)
    finally:
        process.kill()
        process.join()
        process.close()
        sender.shutdown()
        ours.close()


def _can_fork() -> bool:
    """Check for a second core, and that this process has one thread: a fork copies no others.

    Only Linux reports the number of threads. numpy starts some when it is imported.
    """
    return THREADS.is_dir() and len(list(THREADS.iterdir())) == 1 and environment.cores() > 1


def _work(evidence: Evidence, ours: "Connection", theirs: "Connection") -> None:
    """Draw and send the pictures. After an error send nothing: the caller draws and sees it."""
    # Ctrl-C reaches both processes.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ours.close()
    with suppress(Exception):
        from kdbench.report.plots import pictures

        first = pictures.picture(pictures.every_seed(evidence))
        # The frame's classes, imported while the first process still computes the statistics.
        import pandas  # noqa: F401

        frame, decision = theirs.recv()
        theirs.send([first, *map(pictures.picture, pictures.others(evidence, frame, decision))])
