"""Training speed of a GPU: short trainings on noise, as ``kdbench run`` trains.

Operations do not predict the time of a step on a GPU: small kernels take as long as their launch.
So each method is measured on each pair, for as long as there is time.
"""

import math
import time

import torch

from kdbench.cost.estimate import RunCost, data_shape
from kdbench.cost.rehearsal import run_seconds
from kdbench.errors import UserError
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run

SECONDS = 20.0
"""Time limit for all measurements of a plan."""
ROUND = 0.1
"""Least duration of a round of steps, in seconds."""


class GpuSpeed:
    """Estimator of the duration of runs on a GPU of this machine.

    Attributes:
        device: name of the measured device.
        seconds: time left for measurements. After that, a run is assumed to take as long per
            operation as a measured run of its method or, without one, of similar size.
        failures: why a method could not be measured, by its name.
    """

    def __init__(self, device: torch.device, executor: Executor, seconds: float = SECONDS) -> None:
        """Prepare measurements on ``device``; ``executor`` says whether with CUDA graphs."""
        self.device = torch.cuda.get_device_name(device)
        self.seconds, self.failures = seconds, dict[str, str]()
        # "always" would refuse methods that are trained without graphs in other grids.
        self._where, self._graphs = device, "never" if executor.graphs == "never" else "auto"
        self._measured: dict[tuple[str, str], tuple[str, float, float]] = {}

    def seconds_of(self, run: Run, cost: RunCost) -> float:
        """Return the duration in seconds of a run that trains alone.

        Raises:
            UserError: the device cannot train at all.
        """
        if not cost.flops:
            return 0.0
        if run.seedless not in self._measured and (self.seconds > 0 or not self._measured):
            self._measure(run, cost)
        if run.seedless in self._measured:
            return self._measured[run.seedless][2] * cost.flops
        return self._similar(run, cost) * cost.flops

    def _measure(self, run: Run, cost: RunCost) -> None:
        """Measure a run, and keep its method, operations, and seconds per operation."""
        began, shape = time.perf_counter(), data_shape(run.dataset)
        try:
            seconds = run_seconds(run, shape, self._where, graphs=self._graphs, seconds=ROUND)
            self._measured[run.seedless] = (run.method, cost.flops, seconds / cost.flops)
        except Exception as error:  # a method or a network may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            if not self._measured:
                raise UserError(
                    f"measuring on {self.device}: {reason[:200]}; --tflops N estimates without it"
                ) from error
            self.failures.setdefault(run.method, reason)
        self.seconds -= time.perf_counter() - began

    def _similar(self, run: Run, cost: RunCost) -> float:
        """Return the seconds per operation of the most similar run that was measured."""

        def distance(measured: tuple[str, float, float]) -> tuple[bool, float]:
            method, flops, _ = measured
            return method != run.method, abs(math.log(flops / cost.flops))

        return min(self._measured.values(), key=distance)[2]


def gpu_of(executor: Executor) -> torch.device | None:
    """Return the GPU of this machine that workers of a grid use; None: they use CPUs, or no GPU.

    Returns:
        The first GPU if the grid names one that this machine does not have.
    """
    if executor.device == "cpu" or not torch.cuda.is_available():
        return None
    named = torch.device(executor.device) if ":" in executor.device else torch.device("cuda:0")
    return named if (named.index or 0) < torch.cuda.device_count() else torch.device("cuda:0")
