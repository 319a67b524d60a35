"""Memory, graphs and generators of recordings; a stand-in for torch's CUDA graphs.

It fails where torch does: if a pool that is to be recorded to has lost its graphs, or if a capture
into it has not ended.
"""

import gc
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import torch

from kdbench.training import cuda_recorder
from kdbench.training.cuda_recorder import CudaRecorder

GPU = torch.device("cuda:0")


class State:
    """What a generator draws from; graphs refer to it."""

    capturing = False


class Generator:
    """A generator of random numbers of a GPU."""

    def __init__(self, device: torch.device = GPU, state: State | None = None) -> None:
        self.state = state or State()

    def graphsafe_get_state(self) -> "Generator":
        return Generator(GPU, self.state)

    def graphsafe_set_state(self, other: "Generator") -> None:
        self.state = other.state


class Stream:
    """A stream."""

    def __init__(self, device: torch.device) -> None:
        self.waited: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited.append(other)


class Card:
    """torch's state.

    Attributes:
        recording: pools that a capture writes to.
        graphs: number of graphs of each pool.
        default: the global generator.
        refuses: whether the present capture is invalid.
        current: the present stream.
    """

    def __init__(self) -> None:
        self.recording: list[tuple[int, int]] = []
        self.graphs: dict[tuple[int, int], int] = {}
        self.default = Generator()
        self.refuses = False
        self.current: Stream | None = None
        self.joins = 0

    def end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.recording:
            raise RuntimeError("not currently recording to mempool_id")
        self.recording.remove(pool)

    def release(self, device: int, pool: tuple[int, int]) -> None:
        self.graphs[pool] -= 1
        assert self.graphs[pool] >= 0

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def join(self, device: torch.device) -> None:
        self.joins += 1


def fake_graph(card: Card) -> type:
    """Return the class of a card's graphs."""

    class Graph:
        def __init__(self) -> None:
            self.pool = (0, 0)
            self.states = [card.default.state]
            self.replays = 0

        def register_generator_state(self, generator: Generator) -> None:
            warnings.warn("is deprecated; it is now a no-op", FutureWarning, stacklevel=2)
            self.states.append(generator.state)

        def capture_begin(self, pool: tuple[int, int], capture_error_mode: str) -> None:
            assert card.current is not None and capture_error_mode == "thread_local"
            assert card.graphs.get(pool) != 0, "use_count > 0"
            assert pool not in card.recording, "already recording to mempool_id"
            self.pool, self.states[0] = pool, card.default.state
            card.recording.append(pool)
            card.graphs[pool] = card.graphs.get(pool, 0) + 1
            for state in self.states:
                state.capturing = True

        def capture_end(self) -> None:
            if card.refuses or self.pool not in card.recording:
                raise RuntimeError("operation failed due to a previous error during capture")
            card.end(0, self.pool)
            for state in self.states:
                state.capturing = False
            weakref.finalize(self, card.release, 0, self.pool)

        def replay(self) -> None:
            self.replays += 1

    return Graph


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Put a stand-in for a GPU in torch's place."""
    card, handles = Card(), count(1)
    monkeypatch.setattr(torch, "Generator", Generator)
    for name, value in {
        "Stream": Stream,
        "stream": card.on,
        "graph_pool_handle": lambda: (0, next(handles)),
        "CUDAGraph": fake_graph(card),
        "synchronize": card.join,
        "empty_cache": lambda: None,
        "default_generators": (card.default,),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", card.end)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", card.release)
    monkeypatch.setattr(cuda_recorder, "ABANDONED", [])
    return card


def test_recordings_of_a_lane_share_a_pool_while_one_is_in_use(card: Card) -> None:
    recorder = CudaRecorder(GPU, 2)
    first, result = recorder.record(0, lambda: 7, ())
    second, _ = recorder.record(0, lambda: None, ())
    other, _ = recorder.record(1, lambda: None, ())
    assert result == 7 and sorted(card.graphs.values()) == [1, 2]
    first()
    del first
    third, _ = recorder.record(0, lambda: None, ())
    assert len(card.graphs) == 2
    del second, third
    recorder.record(0, lambda: None, ())  # the pool may still have tensors, and torch refuses it
    assert len(card.graphs) == 3 and card.joins == 5
    del other


@pytest.mark.parametrize("shared", [True, False])
def test_graph_is_kept_while_another_may_need_the_workspace_that_it_would_free(
    card: Card, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr(cuda_recorder, "SHARED_WORKSPACE", shared)
    recorder = CudaRecorder(GPU, 1)
    first, _ = recorder.record(0, lambda: None, ())
    second, _ = recorder.record(0, lambda: None, ())
    (pool,) = card.graphs
    del first
    assert card.graphs[pool] == (2 if shared else 1)
    del second
    recorder.record(0, lambda: None, ())
    assert card.graphs[pool] == 0
    del recorder
    assert not any(card.graphs.values())


def test_refused_capture_ends_and_disturbs_no_other(card: Card) -> None:
    recorder, own = CudaRecorder(GPU, 1), Generator()
    outside, before = card.default.state, own.state
    kept, _ = recorder.record(0, lambda: None, ())

    def work() -> None:
        assert card.default.state is not outside
        card.refuses = True
        raise RuntimeError("operation not permitted when stream is capturing")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="not permitted"):
            recorder.record(0, work, (own,))  # type: ignore[arg-type]
        card.refuses = False
    assert not card.recording
    assert card.default.state is outside and not outside.capturing
    assert own.state is not before and not own.state.capturing
    # Torch's host allocator goes on asking the graphs that it was not told of.
    assert len(cuda_recorder.ABANDONED) == 2
    assert gc.isenabled()
    later, _ = recorder.record(0, lambda: None, (own,))  # type: ignore[arg-type]
    assert sorted(card.graphs.values()) == [0, 1, 1]
    kept()
    later()


def test_capture_that_cannot_end_is_abandoned(card: Card) -> None:
    recorder = CudaRecorder(GPU, 1)

    def work() -> None:
        card.refuses = True

    with pytest.raises(RuntimeError, match="previous error"):
        recorder.record(0, work, ())
    card.refuses = False
    assert not card.recording and len(cuda_recorder.ABANDONED) == 1
    recorder.record(0, lambda: None, ())


def test_work_that_fails_without_cuda_is_simply_ended(card: Card) -> None:
    recorder = CudaRecorder(GPU, 1)

    def work() -> Any:
        raise ValueError("in Python")

    with pytest.raises(ValueError, match="in Python"):
        recorder.record(0, work, ())
    assert not card.recording and not cuda_recorder.ABANDONED
    recorder.record(0, lambda: None, ())


def test_lanes_wait_for_each_other(card: Card) -> None:
    recorder = CudaRecorder(GPU, 2)
    recorder.wait(0, 2)
    with recorder.on(0):
        assert card.current is not None and len(card.current.waited) == 1
