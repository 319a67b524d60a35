"""Time spent in parts of a loop, measured without waiting for the device."""

import statistics
import time
from collections import deque
from types import TracebackType

import torch


class Clock:
    """Total time of ``with clock:`` blocks.

    On a GPU, events mark the blocks and are read only when ``settle`` is called at the end of an
    epoch; on a CPU the wall clock is exact.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.seconds = 0.0
        self.recent: deque[float] = deque(maxlen=1000)
        self._open: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._start = 0.0

    def __enter__(self) -> None:
        if self.cuda:
            events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            events[0].record()
            self._open.append(events)
        else:
            self._start = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.cuda:
            self._open[-1][1].record()
        else:
            self._add(time.perf_counter() - self._start)

    def settle(self) -> float:
        """Return all seconds so far; waits for the device."""
        if self._open:
            self._open[-1][1].synchronize()
            for start, end in self._open:
                self._add(start.elapsed_time(end) / 1000)
            self._open.clear()
        return self.seconds

    def median_ms(self) -> float:
        """Return the median of the last thousand blocks in milliseconds; 0 before the first."""
        return 1000 * statistics.median(self.recent) if self.recent else 0.0

    def _add(self, seconds: float) -> None:
        self.seconds += seconds
        self.recent.append(seconds)
