"""A report's plots, drawn beside all else that it makes: by a second process, on a second core.

Same evidence, same bytes, whoever draws. Whatever happens to the other process, this one draws
then by itself: an error is met again here, with its traceback.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.runs import environment
from kdbench.runs.evidence import Evidence

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from multiprocessing.connection import Connection

    import pandas as pd

    from kdbench.report.plots.average_ranks import Ranks
    from kdbench.report.plots.pictures import Picture

Pictures = Callable[[], "Sequence[Picture]"]
"""Waits for the pictures; the same ones, however often it is called."""


class DrawHere:
    """Draws in this process, when the pictures are asked for."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def tell(self, frame: "pd.DataFrame") -> None:
        """The frame of ``tidy``, as soon as it is there: some plots need no more."""

    def __call__(self, frame: "pd.DataFrame", ranks: "Ranks") -> Pictures:
        """Begin to draw, given average ranks, too."""

        @cache
        def draw() -> "Sequence[Picture]":
            from kdbench.report.plots import pictures

            return pictures.pictures(self.evidence, lambda: frame, lambda: ranks)

        return draw


class DrawInBackground(DrawHere):
    """Has another process draw, at the other end of a pipe; this one only if that one fails."""

    def __init__(self, evidence: Evidence, pipe: "Connection", sender: "Executor") -> None:
        super().__init__(evidence)
        self.pipe, self.sender = pipe, sender
        self.told = False

    def tell(self, frame: "pd.DataFrame") -> None:
        self.told = True
        # Sending waits for as long as the other process is busy.
        self.sender.submit(self.pipe.send, frame)

    def __call__(self, frame: "pd.DataFrame", ranks: "Ranks") -> Pictures:
        if not self.told:
            self.tell(frame)
        sent = self.sender.submit(self.pipe.send, ranks)
        myself = super().__call__(frame, ranks)

        @cache
        def wait() -> "Sequence[Picture]":
            found: Sequence[Picture] | None = None
            with suppress(EOFError, OSError):
                sent.result()
                found = self.pipe.recv()
            return myself() if found is None else found

        return wait


THREADS = Path("/proc/self/task")


@contextmanager
def beside(evidence: Evidence) -> Iterator[DrawHere]:
    """Draw in a process beside this one, which ends with the context at the latest.

    It starts at once, with what needs no statistics. Without a second core, and where a fork is
    not safe, this process draws.
    """
    if not _forks():
        yield DrawHere(evidence)
        return
    import multiprocessing
    from concurrent.futures import ThreadPoolExecutor

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(evidence, ours, theirs), daemon=True)
    process.start()
    # Only the other process holds this end: when that process ends, ours is told.
    theirs.close()
    sender = ThreadPoolExecutor(1)

    try:
        yield DrawInBackground(evidence, ours, sender)
    finally:
        process.kill()
        process.join()
        process.close()
        sender.shutdown()
        ours.close()


def _forks() -> bool:
    """Whether a second process has a core, and this one no thread besides, which no fork copies.

    Linux alone says how many threads there are; numpy starts some when it is imported.
    """
    return THREADS.is_dir() and len(list(THREADS.iterdir())) == 1 and environment.cores() > 1


def _work(evidence: Evidence, ours: "Connection", theirs: "Connection") -> None:
    """The other process. Its errors are its own: where it sends nothing, they are met again."""
    # Ctrl-C reaches both.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ours.close()
    with suppress(Exception):
        from kdbench.report.plots import pictures

        def frame() -> "pd.DataFrame":
            # While the first process still calculates, import what the frame comes with.
            import pandas  # noqa: F401

            found: pd.DataFrame = theirs.recv()
            return found

        theirs.send(pictures.pictures(evidence, frame, theirs.recv))
