"""The sections of a check in their order, their share of the time, and how they are run."""

import importlib
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.gpu_check.check import Check, Outcome
from kdbench.training import device as devices


class Section(NamedTuple):
    """A section: its name, its budget in seconds of a check of 330, and where its code is."""

    name: str
    budget: float
    module: str
    function: str = "run"


SECTIONS = (
    Section("environment", 5, "environment"),
    Section("ceilings", 12, "ceilings"),
    Section("goldens", 40, "goldens"),
    Section("precision", 10, "precision"),
    Section("batches", 4, "batches"),
    Section("syncs", 6, "syncs"),
    Section("invariants small", 45, "invariants", "small"),
    Section("invariants real", 25, "invariants", "real"),
    Section("without determinism", 8, "invariants", "without_determinism"),
    Section("steps", 75, "steps"),
    Section("plain", 70, "plain"),
    Section("where it goes", 15, "profiling"),
    Section("memory", 5, "memory"),
    Section("engine", 10, "engine"),
)
NAMES = [section.name for section in SECTIONS]
PLANTED = "an error that was planted"


class OutOfTime(BaseException):
    """A section did not notice that its time was over.

    Not an ``Exception``, because the engine would take it for the failure of a run.
    """


def run_all(check: Check, names: list[str], seconds: float, planted: str) -> list[Outcome]:
    """Run sections one after another; an error ends only its own section.

    A section may use the time that earlier ones have left over.

    Args:
        check: the check.
        names: sections to run.
        seconds: time of all of them together, counted from the check's beginning.
        planted: name of a section that raises an error, for tests.
    """
    chosen = [section for section in SECTIONS if section.name in names]
    scale = seconds / total(chosen)
    outcomes, due, end = [], check.began, check.began + seconds
    for section in chosen:
        due += scale * section.budget
        # If an earlier section took too long, this one still gets a part of its budget.
        least = time.monotonic() + scale * section.budget / 4
        outcomes.append(run_one(check, section, min(max(due, least), end), planted))
        if lost(check):
            break
    return outcomes


def total(sections: list[Section]) -> float:
    """Return the sum of budgets in seconds."""
    return sum(section.budget for section in sections)


def run_one(check: Check, section: Section, deadline: float, planted: str) -> Outcome:
    """Run a section, and write a line with the error that ended it, if one did."""
    with check.section(section.name, deadline) as outcome:
        try:
            with interrupted_at(max(deadline, time.monotonic()) + 10 + section.budget / 4):
                devices.prepare(check.device)  # whatever an earlier section has set
                if section.name == planted:
                    raise RuntimeError(PLANTED)
                module: Any = importlib.import_module(f"benchmarks.gpu_check.{section.module}")
                getattr(module, section.function)(check)
        except (Exception, OutOfTime) as error:
            outcome.error = " ".join(f"{type(error).__name__}: {error}".split())
            check.line(error=outcome.error, trace=traceback.format_exc())
    free(check)
    words = outcome.error or "; ".join(outcome.failed) or outcome.headline
    check.line(
        state=outcome.state,
        seconds=round(outcome.seconds, 1),
        result=words[:300],
        failed=outcome.failed,
        cut=outcome.cut,
    )
    print(f"{section.name:20} {outcome.state:7}{outcome.seconds:6.1f} s  {words[:300]}", flush=True)
    return outcome


def free(check: Check) -> None:
    """Free what a section left behind; an error of the device shows in ``lost``."""
    try:
        check.free()
    except Exception:
        return


def lost(check: Check) -> bool:
    """Return whether the device can no longer be used by this process."""
    try:
        check.synchronize()
    except Exception:
        return True
    return False


@contextmanager
def interrupted_at(deadline: float) -> Iterator[None]:
    """Raise ``OutOfTime`` in the block if it still runs at ``deadline``."""

    def ring(number: int, frame: object) -> None:
        raise OutOfTime("the section went on long after its time was over")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, deadline - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
