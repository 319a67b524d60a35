"""How many learners fit into a job's memory."""

from collections.abc import Sequence

from kdbench.grid import Executor
from kdbench.run import Run

PROCESS_MB = 1500.0
"""What a process holds beside its learners: torch, and the images of a data set like CIFAR-100."""


class Sizing:
    """Judges cohorts by the memory that their jobs ask for.

    Only where a grid says ``executor.slurm.memory`` and trains on CPUs: of a GPU that a job will
    get nothing is known here.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._known: dict[tuple[object, ...], float] = {}
        self._estimator: object = None

    def fits(self, runs: Sequence[Run]) -> bool:
        """Whether runs can train together."""
        limit = self.executor.slurm.of(runs[0]).megabytes
        if limit is None or self.executor.device == "cuda":
            return True
        return PROCESS_MB + sum(map(self._megabytes, runs)) <= limit

    def _megabytes(self, run: Run) -> float:
        key = (run.student, run.teacher and run.teacher.arch, run.dataset, run.method)
        if key not in self._known:
            from kdbench.estimate import Estimator  # imports torch

            if self._estimator is None:
                self._estimator = Estimator(4.0)
            assert isinstance(self._estimator, Estimator)
            self._known[key] = self._estimator(run).memory / 2**20
        return self._known[key]
