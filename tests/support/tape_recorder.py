"""A stand-in for CUDA graphs on a CPU: it records the operations of a step, and repeats them.

Like a graph, a replay knows nothing of Python: it runs the recorded operations with the recorded
arguments, on the recorded tensors. Numbers that a step takes from Python, tensors that it puts in
an attribute, and generators that it seeds are those of the recording. Recording changes no tensor.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdbench.training.watched_batch import NotCapturable

Result = TypeVar("Result")
Entry = tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]


class TapeRecorder:
    """A ``kdbench.training.graphs.Recorder`` of a CPU.

    Attributes:
        records: lane of each recording so far.
        replays: number of replays so far.
        joins: number of times that all lanes were waited for.
    """

    def __init__(self, lanes: int = 2) -> None:
        self.lanes = lanes
        self.records: list[int] = []
        self.replays = self.joins = 0

    def on(self, lane: int) -> AbstractContextManager[None]:
        assert 0 <= lane <= self.lanes
        return nullcontext()

    def record(
        self, lane: int, work: Callable[[], Result], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Result]:
        tape = Tape()
        states = [(g, g.get_state()) for g in (torch.default_generator, *generators)]
        try:
            with tape:
                result = work()
        finally:
            tape.undo()
            for generator, state in states:
                generator.set_state(state)
        self.records.append(lane)

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay, result

    def wait(self, lane: int, other: int) -> None:
        assert lane != other

    def join(self) -> None:
        self.joins += 1


class Tape(TorchDispatchMode):
    """The operations of a block of code, on tensors that stay the same."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if "_local_scalar_dense" in str(func) or "nonzero" in str(func):
            raise NotCapturable(f"{func} waits for the device")
        for tensor in written(func, args, kwargs):
            self._before.setdefault(id(tensor), (tensor, tensor.clone()))
        out = func(*args, **kwargs)
        inputs = {address(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        fresh = [
            x if isinstance(x, Tensor) and address(x) not in inputs else None
            for x in tree_leaves(out)
        ]
        self.entries.append((func, args, kwargs, fresh))  # type: ignore[arg-type]
        return out

    def replay(self) -> None:
        """Run the operations again, and put their results where the recorded results are."""
        with torch.no_grad():
            for func, args, kwargs, fresh in self.entries:
                results = tree_leaves(func(*args, **kwargs))
                for old, new in zip(fresh, results, strict=True):
                    if old is not None:
                        old.copy_(new)

    def undo(self) -> None:
        """Give every tensor that the operations changed its earlier contents."""
        with torch.no_grad():
            for tensor, contents in reversed(self._before.values()):
                tensor.copy_(contents)


class Kept(TorchDispatchMode):
    """Keeps every result until the end of a block, as a tape does.

    Autograd adds gradients in place if nothing else holds them. On a CPU, this decides the memory
    order of the sum and with it the last bits of what follows. A GPU's graph holds nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.results.append(func(*args, **(kwargs or {})))
        return self.results[-1]


def address(tensor: Tensor) -> int:
    """Return the address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the arguments that an operation changes."""
    hidden = "batch_norm" in str(func) and "backward" not in str(func)
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        declared = argument.alias_info is not None and argument.alias_info.is_write
        if declared or (hidden and argument.name.startswith("running")):
            yield from (x for x in tree_leaves(value) if isinstance(x, Tensor))
