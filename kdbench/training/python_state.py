"""What modules hold in Python besides the contents of their tensors, and whether it changed.

A recorded step repeats operations on the same tensors. A module that counts in Python, or puts
another tensor in an attribute, would not go on doing so.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdbench.registry.conduct import INTERNAL

State = list[tuple[nn.Module, str, Any, int | None]]
"""Module, attribute, value and, for containers, number of entries."""


def python_state(modules: Sequence[nn.Module]) -> State:
    """Return the attributes of modules, without functions and the train mode."""
    state: State = []
    for module in modules:
        own = {name: value for name, value in vars(module).items() if name not in INTERNAL}
        for name, value in (*own.items(), *module._buffers.items(), *module._parameters.items()):
            if not callable(value):
                sized = isinstance(value, list | dict | set)
                state.append((module, name, value, len(value) if sized else None))
    return state


def changed(before: State, after: State) -> str:
    """Return a line on the first attribute that changed between two states; "" if none did."""
    old = {(id(module), name): (value, size) for module, name, value, size in before}
    for module, name, value, size in after:
        was = old.get((id(module), name))
        if was is None or was[1] != size or not (was[0] is value or _equal(was[0], value)):
            return f"{type(module).__name__}.{name} changes from step to step"
    return ""


def restore(state: State) -> None:
    """Set every attribute back to its value in ``state``."""
    for module, name, value, _ in state:
        if getattr(module, name, None) is not value:
            setattr(module, name, value)


def _equal(a: Any, b: Any) -> bool:
    """Compare numbers, strings and tuples of them; other objects are never equal."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    plain = isinstance(a, int | float | str | bool | None)
    return plain and type(a) is type(b) and bool(a == b)
