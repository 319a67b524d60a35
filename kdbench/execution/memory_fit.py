"""Which runs fit into memory together."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kdbench.execution.work import split_round_robin
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run

if TYPE_CHECKING:
    from kdbench.cost.estimate import Estimator, RunCost

log = logging.getLogger(__name__)

USABLE = 0.8
"""Share of a limit that a cohort may take: predictions hold within 20 %."""
SECONDS = 4.0
"""Time to spend on counting what methods need; further pairs are told roughly."""


class MemoryFit:
    """Judges cohorts by a limit of memory.

    Attributes:
        limit: bytes for all of a process, or of a GPU; None: unknown, so that everything fits.
        gpu: it is a GPU's.
        tell: given one line for every run that does not even fit alone.
    """

    def __init__(
        self,
        limit: float | None,
        *,
        gpu: bool = False,
        tell: Callable[[str], object] = log.warning,
    ) -> None:
        self.limit, self.gpu, self.tell = limit, gpu, tell
        self._costs: dict[tuple[str, str], RunCost] = {}
        self._estimator: Estimator | None = None
        self._warned: set[str] = set()

    def pieces(self, runs: Sequence[Run]) -> list[tuple[Run, ...]]:
        """As few cohorts as fit; a run that does not fit alone is one, and is told of."""
        return split_round_robin(runs, len(runs), self.fits)

    def fits(self, runs: Sequence[Run]) -> bool:
        """Whether runs can train together; one alone has to."""
        if self.limit is None:
            return True
        if self._surely(runs):
            return True  # in most grids no method has to be counted
        needed = self._total([self._cost(run) for run in runs])
        if needed <= USABLE * self.limit:
            return True
        if len(runs) == 1:
            self._warn(runs[0], needed)
            return True
        return False

    def _surely(self, runs: Sequence[Run]) -> bool:
        """Whether runs fit even with the dearest of methods: then none needs to be counted."""
        from kdbench.cost.estimate import generous  # imports torch

        if any(term.source for run in runs for term in run.terms):
            return False  # a plugin may need anything
        return self._total([generous(run) for run in runs]) <= USABLE * (self.limit or 0.0)

    def _total(self, costs: "Sequence[RunCost]") -> float:
        from kdbench.cost.cohort_memory import footprint, process_bytes  # import torch

        return footprint(costs, None if self.gpu else process_bytes()).total

    def _cost(self, run: Run) -> "RunCost":
        if run.seedless not in self._costs:
            from kdbench.cost.estimate import Estimator  # imports torch

            self._estimator = self._estimator or Estimator(SECONDS)
            self._costs[run.seedless] = self._estimator(run)
        return self._costs[run.seedless]

    def _warn(self, run: Run, needed: float) -> None:
        line = (
            f"{run.title.rpartition(', seed')[0]}, {run.method}: needs about "
            f"{needed / 2**30:.1f} GB of memory, and there are "
            f"{(self.limit or 0.0) / 2**30:.1f} GB for it; tried all the same, but a smaller "
            "batch_size needs less"
        )
        if line not in self._warned:
            self._warned.add(line)
            self.tell(line)


class JobSizing:
    """Judges cohorts by the memory that their jobs on Slurm ask for.

    Only where a grid says ``executor.slurm.memory`` and trains on CPUs: of a GPU that a job will
    get nothing is known here; the job itself looks.
    """

    def __init__(self, executor: Executor, tell: Callable[[str], object] = log.warning) -> None:
        self.executor, self.tell = executor, tell
        self._by_limit: dict[float | None, MemoryFit] = {}

    def fits(self, runs: Sequence[Run]) -> bool:
        """Whether runs can train together."""
        needs = self.executor.slurm.of(runs[0])
        if needs.megabytes is None or self.executor.device.startswith("cuda"):
            return True
        limit = needs.megabytes * 2**20 / (needs.jobs_per_gpu or 1)
        if limit not in self._by_limit:
            self._by_limit[limit] = MemoryFit(limit, tell=self.tell)
        return self._by_limit[limit].fits(runs)
