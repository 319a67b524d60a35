"""Times on a device: by CUDA events on a GPU, by the wall clock on a CPU."""

import statistics
import time
from collections.abc import Callable

import torch

from kdbench.training.cuda_recorder import CudaRecorder
from kdbench.training.graphs import WARM


class Marks:
    """Marks in a stream of work, and the milliseconds between them."""

    def __init__(self, device: torch.device) -> None:
        self.cuda, self.device = device.type == "cuda", device
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Mark the present end of the current stream."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
        else:
            self._times.append(time.perf_counter())

    def between(self) -> list[float]:
        """Return the milliseconds from each mark to the next; waits for the last one."""
        if not self.cuda:
            pairs = zip(self._times, self._times[1:], strict=False)
            return [1e3 * (b - a) for a, b in pairs]
        self._events[-1].synchronize()
        return [a.elapsed_time(b) for a, b in zip(self._events, self._events[1:], strict=False)]


def repeated(device: torch.device, work: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that does ``work`` some times: on a GPU as one graph, without gaps."""

    def loop() -> None:
        for _ in range(times):
            work()

    if device.type != "cuda":
        return loop
    # Not torch.cuda.graph, which returns all cached memory to the card first.
    recorder = CudaRecorder(device, 0)
    recorder.join()
    with recorder.on(0):
        for _ in range(WARM):
            work()
    return recorder.record(0, loop, ())[0]


def median_ms(
    device: torch.device, work: Callable[[], object], times: int, rounds: int = 5
) -> float:
    """Return the median milliseconds of ``work`` over ``rounds`` of ``times`` calls."""
    action = repeated(device, work, times)
    action()
    marks = Marks(device)
    marks.mark()
    for _ in range(rounds):
        action()
        marks.mark()
    return statistics.median(marks.between()) / times
