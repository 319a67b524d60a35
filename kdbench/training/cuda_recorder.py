"""Recordings of work on a GPU as CUDA graphs, in lanes: streams whose graphs share memory."""

import gc
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar
from weakref import WeakSet

import torch

Result = TypeVar("Result")

ABANDONED: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture CUDA has refused; they are never freed."""
SHARED_WORKSPACE = torch.__version__ >= "2.12"
"""Whether a graph that is freed takes along the workspace of cuBLAS that all graphs of its stream
use (pytorch/pytorch issue 193402)."""


class Recording:
    """A graph; a call runs it."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def __call__(self) -> None:
        """Run the graph in the present lane."""
        self._graph.replay()


class Lane:
    """A stream and the memory of its graphs, which never run at once, so they share it.

    Attributes:
        stream: the stream.
        pool: memory of the recordings.
        in_use: the recordings that can still be called.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self.in_use: WeakSet[Recording] = WeakSet()
        self._kept: list[torch.cuda.CUDAGraph] = []

    def keep(self, graph: torch.cuda.CUDAGraph) -> None:
        """Keep a graph while another one of the lane needs what would be freed with it."""
        if SHARED_WORKSPACE:
            self._kept.append(graph)

    def free_unused(self) -> None:
        """Free graphs and memory of the lane if no recording is in use; none may be running."""
        if not self.in_use:
            self._kept.clear()
            # torch refuses a pool again that has no graph but, say, a tensor.
            self.pool = torch.cuda.graph_pool_handle()


def register(graph: torch.cuda.CUDAGraph, generators: Sequence[torch.Generator]) -> None:
    """Let a graph draw from generators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch need no such call, and say so
        for generator in generators:
            graph.register_generator_state(generator)


class CudaRecorder:
    """A ``kdbench.training.graphs.Recorder`` of a GPU."""

    def __init__(self, device: torch.device, lanes: int) -> None:
        self.device, self.lanes = device, lanes
        self._lanes = [Lane(device) for _ in range(lanes + 1)]

    def on(self, lane: int) -> AbstractContextManager[Any]:
        """Return a context in which operations are sent to a lane."""
        return torch.cuda.stream(self._lanes[lane].stream)

    def record(
        self, lane: int, work: Callable[[], Result], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Result]:
        """Record ``work`` as a CUDA graph; the warm-up must have run in the same lane."""
        own = self._lanes[lane]
        self.join()
        own.free_unused()
        # A recording has a pool of its own, and cannot free what ordinary steps left cached.
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        own.keep(graph)
        # torch registers the global generator with every graph. Graphs of several lanes must not
        # share its seed in memory, and a failed capture leaves it unable to draw.
        draws = torch.cuda.default_generators[self.device.index or 0]
        state = draws.graphsafe_get_state()
        draws.graphsafe_set_state(torch.Generator(self.device).graphsafe_get_state())
        collecting = gc.isenabled()
        gc.disable()  # a collected graph or tensor would break the capture
        try:
            with self.on(lane):
                register(graph, generators)
                graph.capture_begin(pool=own.pool, capture_error_mode="thread_local")
                try:
                    result = work()
                    graph.capture_end()
                except BaseException:
                    self._abandon(graph, own)
                    raise
        except BaseException:
            for generator in generators:  # likewise unable to draw
                fresh = torch.Generator(self.device)
                generator.graphsafe_set_state(fresh.graphsafe_get_state())
            raise
        finally:
            draws.graphsafe_set_state(state)
            if collecting:
                gc.enable()
        recording = Recording(graph)
        own.in_use.add(recording)
        return recording, result

    def _abandon(self, graph: torch.cuda.CUDAGraph, lane: Lane) -> None:
        """End a failed capture.

        If CUDA has refused an operation, ``capture_end`` raises before it tells torch's allocators
        that the capture is over. One of them can be told here. The other keeps asking the graph
        which streams it captures, so the graph must not be freed, and its pool not be used again.
        """
        try:
            graph.capture_end()
        except RuntimeError:  # what made the capture fail says more
            ABANDONED.append(graph)
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(self.device.index or 0, lane.pool)
                torch._C._cuda_releasePool(self.device.index or 0, lane.pool)
            lane.pool = torch.cuda.graph_pool_handle()

    def wait(self, lane: int, other: int) -> None:
        """Make later work in ``lane`` wait for the present work in ``other``."""
        self._lanes[lane].stream.wait_stream(self._lanes[other].stream)

    def join(self) -> None:
        """Wait for all lanes."""
        torch.cuda.synchronize(self.device)
