"""Peak memory of a cohort: what its learners share, and what each adds.

All learners keep their weights and momentum. What a step keeps for its backward pass is freed
before the next learner's step, so only the largest step counts. CUDA graphs keep it instead: a
graph's memory is not freed between replays, and each stream runs another learner's graph at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from kdbench.cost.estimate import RunCost
from kdbench.grid.grid import Executor

LAZY = 105.0 * 2**20
"""Bytes that torch takes in addition to its import once it trains: `benchmarks/memory.py`."""
CUDA = 1.5 * 2**30
"""Bytes that a process takes on a GPU besides tensors: CUDA's context, about 0.5 GB; workspaces of
cuBLAS, 32 MiB a stream; workspaces of cuDNN's convolutions. An estimate, not yet measured."""
UNKNOWN = 600.0 * 2**20
"""Bytes of a process that has imported torch, if the system does not report them."""


@dataclass(frozen=True)
class Footprint:
    """A cohort's memory in bytes.

    Attributes:
        process: Python and torch; on a GPU CUDA's context and workspaces.
        data: images and labels, and buffers of batches.
        teacher: the teacher's weights, and its features of a batch; with graphs of two batches.
        held: what all learners keep between steps.
        working: what a step needs in addition, for the learner or teacher that needs most; with
            graphs for the teacher and as many learners as there are streams.
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


def footprint(
    costs: Iterable[RunCost], process: float | None = None, *, streams: int = 0
) -> Footprint:
    """Return the memory of runs that train together.

    Args:
        costs: cost of each run; the runs share data and teacher.
        process: bytes of a process that has imported torch. None on a GPU: only what is on the GPU
            counts, without the second, unfolded copy of the teacher.
        streams: learners whose CUDA graphs run at once; 0: without graphs.
    """
    estimated = [cost for cost in costs if not cost.problem]
    own = CUDA if process is None else process
    if not estimated:
        return Footprint(process=own)
    shared = estimated[0]
    copies = 1 if process is None else 2
    buffers = 2 if streams else 1  # the next batch and its teacher's features, while learners train
    teacher_step = shared.teacher_forward - shared.teacher_features
    largest = max(cost.working for cost in estimated)
    if streams:
        working = teacher_step + min(streams, len(estimated)) * largest
    else:
        working = max(teacher_step, largest)
    return Footprint(
        process=own + (LAZY if process else 0.0),
        data=shared.data + (buffers * shared.batch if process is None else 0.0),
        teacher=copies * shared.teacher + buffers * shared.teacher_features,
        held=sum(cost.held for cost in estimated),
        working=working,
    )


def streams(executor: Executor) -> int:
    """Return how many learners' graphs a GPU runs at once; 0 if the grid uses no graphs."""
    return 0 if executor.graphs == "never" else executor.streams


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
