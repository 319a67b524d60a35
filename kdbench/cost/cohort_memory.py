"""Peak memory of a cohort: what its learners share, and what each adds.

All learners keep their weights and momentum. What a step keeps for its backward pass is freed
before the next learner's step, so only the largest step counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from kdbench.cost.estimate import RunCost

LAZY = 105.0 * 2**20
"""Bytes that torch takes in addition to its import once it trains: `benchmarks/memory.py`."""
UNKNOWN = 600.0 * 2**20
"""Bytes of a process that has imported torch, if the system does not report them."""


@dataclass(frozen=True)
class Footprint:
    """A cohort's memory in bytes.

    Attributes:
        process: Python and torch; 0 on a GPU.
        data: images and labels.
        teacher: the teacher's weights, and its features of a batch.
        held: what all learners keep between steps.
        working: what a step needs in addition, for the learner or teacher that needs most.
    """

    process: float = 0.0
    data: float = 0.0
    teacher: float = 0.0
    held: float = 0.0
    working: float = 0.0

    @property
    def total(self) -> float:
        """Total bytes."""
        return self.process + self.data + self.teacher + self.held + self.working


def footprint(costs: Iterable[RunCost], process: float | None = None) -> Footprint:
    """Return the memory of runs that train together.

    Args:
        costs: cost of each run; the runs share data and teacher.
        process: bytes of a process that has imported torch. None on a GPU: no process memory, and
            no second, unfolded copy of the teacher.
    """
    estimated = [cost for cost in costs if not cost.problem]
    if not estimated:
        return Footprint(process=process or 0.0)
    shared = estimated[0]
    copies = 1 if process is None else 2
    return Footprint(
        process=process + LAZY if process else 0.0,
        data=shared.data,
        teacher=copies * shared.teacher + shared.teacher_features,
        held=sum(cost.held for cost in estimated),
        working=max(
            shared.teacher_forward - shared.teacher_features, *(cost.working for cost in estimated)
        ),
    )


@cache
def process_bytes() -> float:
    """Return the memory of this process, which has imported torch; to be called before training."""
    assert torch.__version__
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return UNKNOWN
    import resource

    return float(int(fields[1]) * resource.getpagesize())
