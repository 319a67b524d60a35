"""Cohorts that fit into memory, as predicted from the costs of their runs."""

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
"""Share of a limit that a cohort may use: predictions are within 20 %."""
SECONDS = 4.0
"""Time for counting what methods need; later pairs get a rough estimate."""


class MemoryFit:
    """A memory limit, and the check whether cohorts stay below it.

    Attributes:
        limit: bytes for the whole process, or on a GPU; None: unknown, so everything fits.
        gpu: whether the limit is that of a GPU.
        streams: learners whose CUDA graphs run at once; 0: without graphs.
        warn: called with one line for each run that is too large even alone.
    """

    def __init__(
        self,
        limit: float | None,
        *,
        gpu: bool = False,
        streams: int = 0,
        warn: Callable[[str], object] = log.warning,
    ) -> None:
        self.limit, self.gpu, self.streams, self.warn = limit, gpu, streams, warn
        self._costs: dict[tuple[str, str], RunCost] = {}
        self._estimator: Estimator | None = None
        self._warned: set[str] = set()

    @classmethod
    def on_gpu(
        cls,
        limit: float,
        executor: Executor,
        warn: Callable[[str], object] = log.warning,
    ) -> "MemoryFit":
        """Return the check for ``limit`` free bytes of a GPU."""
        from kdbench.cost.cohort_memory import streams  # imports torch

        return cls(limit, gpu=True, streams=streams(executor), warn=warn)

    def pieces(self, runs: Sequence[Run]) -> list[tuple[Run, ...]]:
        """Split runs into few cohorts; a run too large even alone gets its own, and a warning."""
        return split_round_robin(runs, len(runs), self.fits)

    def fits(self, runs: Sequence[Run]) -> bool:
        """Check whether runs can train together; always True for a single run."""
        if self.limit is None:
            return True
        if self._certainly_fits(runs):
            return True  # so in most grids no method has to be counted
        needed = self._total([self._cost(run) for run in runs])
        if needed <= USABLE * self.limit:
            return True
        if len(runs) == 1:
            self._warn(runs[0], needed)
            return True
        return False

    def _certainly_fits(self, runs: Sequence[Run]) -> bool:
        """Check whether runs would fit even with the most expensive methods."""
        from kdbench.cost.estimate import looks_ahead, upper_bound  # imports torch

        if any(term.source for run in runs for term in run.terms):
            return False  # a plugin may need any amount
        if any(looks_ahead(run) for run in runs):
            return False  # it may keep any number of steps
        return self._total([upper_bound(run) for run in runs]) <= USABLE * (self.limit or 0.0)

    def _total(self, costs: "Sequence[RunCost]") -> float:
        from kdbench.cost.cohort_memory import footprint, process_bytes  # import torch

        process = None if self.gpu else process_bytes()
        return footprint(costs, process, streams=self.streams).total

    def _cost(self, run: Run) -> "RunCost":
        if run.seedless not in self._costs:
            from kdbench.cost.estimate import Estimator, upper_bound  # imports torch

            self._estimator = self._estimator or Estimator(SECONDS)
            try:
                cost = self._estimator(run)
            except (Exception, SystemExit) as error:  # of a plugin; its run will fail alone
                log.info("%s: memory not counted: %r", run.method, error)
                cost = upper_bound(run)
            self._costs[run.seedless] = cost
        return self._costs[run.seedless]

    def _warn(self, run: Run, needed: float) -> None:
        line = (
            f"{run.title.rpartition(', seed')[0]}, {run.method}: needs about "
            f"{needed / 2**30:.1f} GB of {'GPU ' if self.gpu else ''}memory, but "
            f"{(self.limit or 0.0) / 2**30:.1f} GB are available; it is trained anyway, but a "
            "smaller batch_size needs less"
        )
        if line not in self._warned:
            self._warned.add(line)
            self.warn(line)


class JobSizing:
    """The memory that Slurm jobs request, and the check whether cohorts fit into it.

    Checks only grids that set ``executor.slurm.memory`` and train on CPUs. The memory of a GPU is
    unknown until the job runs, so the job checks it.
    """

    def __init__(self, executor: Executor, warn: Callable[[str], object] = log.warning) -> None:
        self.executor, self.warn = executor, warn
        self._by_limit: dict[float | None, MemoryFit] = {}

    def fits(self, runs: Sequence[Run]) -> bool:
        """Check whether runs can train together in one job."""
        needs = self.executor.slurm.of(runs[0])
        if needs.megabytes is None or self.executor.device.startswith("cuda"):
            return True
        limit = needs.megabytes * 2**20 / (needs.jobs_per_gpu or 1)
        if limit not in self._by_limit:
            self._by_limit[limit] = MemoryFit(limit, warn=self.warn)
        return self._by_limit[limit].fits(runs)
