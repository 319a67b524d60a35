"""How much memory a cohort needs at most: what its learners share, and what each adds.

All learners keep their weights and momentum; what a step keeps for its backward pass is gone before
the next learner's step, so only the largest of these counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from kdbench.cost.estimate import RunCost

LAZY = 105.0 * 2**20
"""Bytes that torch takes beside its import once something is trained: `benchmarks/memory.py`."""
UNKNOWN = 600.0 * 2**20
"""A process that has imported torch, where the system does not say."""


@dataclass(frozen=True)
class Footprint:
    """A cohort's memory in bytes.

    Attributes:
        process: Python and torch; on a GPU 0. data: images and labels.
        teacher: its weights and what it shows of a batch. held: of all learners, between steps.
        working: of the learner, or the teacher, that needs most beside that.
    """

    process: float = 0.0
    data: float = 0.0
    teacher: float = 0.0
    held: float = 0.0
    working: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.process + self.data + self.teacher + self.held + self.working


def footprint(costs: Iterable[RunCost], process: float | None = None) -> Footprint:
    """What runs need that train together.

    Args:
        costs: of each run; they share data and teacher.
        process: bytes of a process that has imported torch, or None: on a GPU, where there is no
            such thing, and no second copy of the teacher as it was before its batch norms went.
    """
    found = [cost for cost in costs if not cost.problem]
    if not found:
        return Footprint(process=process or 0.0)
    one = found[0]
    copies = 1 if process is None else 2
    return Footprint(
        process=process + LAZY if process else 0.0,
        data=one.data,
        teacher=copies * one.teacher + one.teacher_features,
        held=sum(cost.held for cost in found),
        working=max(one.teacher_forward - one.teacher_features, *(cost.working for cost in found)),
    )


@cache
def process_bytes() -> float:
    """What this process holds now, which has imported torch; asked once, before it trains."""
    assert torch.__version__
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return UNKNOWN
    import resource

    return float(int(fields[1]) * resource.getpagesize())
