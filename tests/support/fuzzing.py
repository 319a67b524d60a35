"""Fuzzing: any input ends well or in lines for the user, within 5 seconds and 500 MB."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hypothesis import HealthCheck, settings

from kdbench.errors import UserError

INPUTS = int(os.environ.get("KDBENCH_FUZZ", "60"))
"""Generated inputs per test; ``make fuzz`` takes 2,000."""
SECONDS = 5.0
"""Processor time that one input may take."""
MEGABYTES = 500
"""By how much one input may raise the peak memory of the process."""
LINE = 2000
"""Characters that a line for the user may have."""

fuzzed = settings(
    max_examples=INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""Decorator of a fuzz test: ``@fuzzed @given(...)``."""


class TooSlow(BaseException):
    """An input took too long; no ``except Exception`` of the code under test can catch it."""


def answer(action: Callable[[], object]) -> str:
    """Run ``action`` on an input, and return the message of its ``UserError``; "" if it has none.

    Raises:
        AssertionError: the message is empty, has a control character or a very long line, or the
            action took too much memory.
        TooSlow: it took too long.
        Exception: whatever else the action raised: a traceback for a user.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = ""
    try:
        with _limited():
            action()
    except UserError as error:
        message = str(error)
        check_message(message)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB more than before"
    return message


def check_message(message: str) -> None:
    """Check that a message is fit to be printed: some short lines without control characters."""
    assert message.strip(), "an empty message"
    for line in message.split("\n"):
        assert line.isprintable(), f"a control character: {line!r}"
        assert len(line) <= LINE, f"a line of {len(line)} characters: {line[:200]!r}"


@contextmanager
def _limited() -> Iterator[None]:
    """Raise ``TooSlow`` after ``SECONDS`` of processor time."""

    def too_slow(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
