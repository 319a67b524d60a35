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

from kdbench import machine
from kdbench.evidence import Evidence

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import pandas as pd

    from kdbench.plots import Picture, Ranks

Pictures = Callable[[], "Sequence[Picture]"]
"""Waits for the pictures; the same ones, however often it is called."""
Draw = Callable[["pd.DataFrame", "Ranks"], Pictures]
"""Begins to draw, given the frame of ``tidy`` and average ranks."""
THREADS = Path("/proc/self/task")


def here(evidence: Evidence) -> Draw:
    """Draw in this process."""

    def draw(frame: "pd.DataFrame", ranks: "Ranks") -> Pictures:
        from kdbench import plots

        return cache(lambda: plots.pictures(evidence, lambda: (frame, ranks)))

    return draw


@contextmanager
def beside(evidence: Evidence) -> Iterator[Draw]:
    """Draw in a process beside this one, which ends with the context at the latest.

    It starts at once, with what needs no statistics. Without a second core, and where a fork is
    not safe, this process draws.
    """
    if not _forks():
        yield here(evidence)
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

    def draw(frame: "pd.DataFrame", ranks: "Ranks") -> Pictures:
        # Which waits for as long as the other process is busy.
        sent = sender.submit(ours.send, (frame, ranks))

        def wait() -> "Sequence[Picture]":
            found: Sequence[Picture] | None = None
            with suppress(EOFError, OSError):
                sent.result()
                found = ours.recv()
            return here(evidence)(frame, ranks)() if found is None else found

        return cache(wait)

    try:
        yield draw
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
    return THREADS.is_dir() and len(list(THREADS.iterdir())) == 1 and machine.cores() > 1


def _work(evidence: Evidence, ours: "Connection", theirs: "Connection") -> None:
    """The other process. Its errors are its own: where it sends nothing, they are met again."""
    # Ctrl-C reaches both.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ours.close()
    with suppress(Exception):
        from kdbench import plots

        def statistics() -> "tuple[pd.DataFrame, Ranks]":
            # While the first process still calculates, import what the frame comes with.
            import pandas  # noqa: F401

            found: tuple[pd.DataFrame, Ranks] = theirs.recv()
            return found

        theirs.send(plots.pictures(evidence, statistics))
