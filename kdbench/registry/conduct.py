"""What the contract requires of a method in its first steps: losses, layers and state.

``kdbench check`` and the training use these functions alike.
"""

import pickle
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.method import ContractBroken
from kdbench.registry.shared_tensors import checksum

INTERNAL = frozenset({*vars(nn.Module()), "training"})
"""Attributes of every module, which torch manages."""
DEEPEST = 8
"""Levels of containers and objects within an attribute that are looked at."""
Contents = dict[str, Any]
"""Attribute -> what can be compared of its value."""


# --- losses ---------------------------------------------------------------------------------------


def loss_fault(what: str, value: Any, *, gradient: bool) -> str:
    """Return what is wrong with the form of a loss; "" if nothing is. Reads no value.

    Args:
        what: name of the function that returned it.
        gradient: whether it must pass gradients.
    """
    if not isinstance(value, Tensor):
        return f"{what} returned {type(value).__name__}, expected a tensor"
    if value.ndim != 0:
        return f"{what} has shape {list(value.shape)}, expected a scalar: average it"
    if not value.is_floating_point():
        return f"{what} is of type {value.dtype}, expected a floating-point number"
    if gradient and not value.requires_grad:
        return (
            f"{what} has no gradient: is something detached, under no_grad, or read by item()? "
            "(for a phase without the term, return s.logits.sum() * 0.0)"
        )
    return ""


@contextmanager
def without_other_generators(who: str) -> Iterator[None]:
    """Refuse code that draws from, or seeds, the global generators of Python and numpy.

    Raises:
        ContractBroken: it did.
    """
    before = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    yield
    numpy_same = pickle.dumps(np.random.get_state()) == before[1]  # noqa: NPY002
    if random.getstate() != before[0] or not numpy_same:
        generator = "Python's random" if numpy_same else "numpy.random"
        raise ContractBroken(
            f"{who} uses the global generator of {generator}, which the run's seed does not set, "
            "so the same seed would give other numbers: draw from batch.generator(setup.seed)"
        )


# --- layers ---------------------------------------------------------------------------------------


def layout(method: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of everything that a checkpoint holds of a method; None: not yet known."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name, value in method.state_dict().items():
        lazy = nn.parameter.is_lazy(value)
        shapes[name] = None if lazy or not isinstance(value, Tensor) else tuple(value.shape)
    return shapes


def late_layers(who: str, method: nn.Module, before: Mapping[str, tuple[int, ...] | None]) -> str:
    """Return a line on what a method has registered since ``before``; "" if nothing.

    Args:
        who: name of the method.
        before: ``layout`` after it was built.
    """
    after = layout(method)
    names = [n for n in after if n not in before or (before[n] and before[n] != after[n])]
    names += [n for n in before if n not in after]
    if not names:
        return ""
    return (
        f"{who} makes or changes {_some(names)} in a step: the optimiser does not train it and a "
        "resumed run cannot load it; make every layer and buffer in __init__"
    )


def untrained_layers(who: str, method: nn.Module, trained: Iterable[Tensor]) -> str:
    """Return a line on tensors that should learn but are not trained; "" if there are none.

    Found are parameters that were put in the place of others, and layers and leaf tensors in lists,
    dictionaries and other objects that torch does not search.

    Args:
        who: name of the method.
        trained: every parameter that the optimiser may train, and the student's.
    """
    known = {id(p) for p in trained}
    names = [n for n, p in method.named_parameters() if p.requires_grad and id(p) not in known]
    known |= {id(p) for p in method.parameters()}
    for path, value in _attributes(method):
        tensors = _leaves(value, set(), 0)
        names += [path for x in tensors if id(x) not in known][:1]
    if not names:
        return ""
    return (
        f"{who} keeps {_some(names)} where the optimiser does not train it: make it in __init__, "
        "as a submodule or nn.Parameter, a list of layers as an nn.ModuleList"
    )


def _leaves(value: Any, seen: set[int], depth: int) -> Iterator[Tensor]:
    """Yield the leaf tensors in a value that require gradients."""
    if id(value) in seen or depth > DEEPEST:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf:
            yield value
    elif isinstance(value, nn.Module):
        yield from (p for p in value.parameters() if p.requires_grad)
    else:
        for part in _parts(value):
            yield from _leaves(part, seen, depth + 1)


# --- state in Python ------------------------------------------------------------------------------


def contents(method: nn.Module) -> Contents:
    """Return what can be compared of a method's state outside of its ``state_dict``.

    These are the attributes of its modules, containers and objects in them included, and buffers
    that are not saved. On a GPU this waits for the device.
    """
    own = {id(module) for module in method.modules()}
    found = {path: _comparable(value, set(own), 0) for path, value in _attributes(method)}
    for path, module in method.named_modules():
        for name in module._non_persistent_buffers_set:
            found[_join(path, name)] = _comparable(module._buffers.get(name), set(), 0)
    return found


def differing(a: Contents, b: Contents) -> list[str]:
    """Return the attributes that differ between two states of a method."""
    missing = object()
    return [name for name in a | b if a.get(name, missing) != b.get(name, missing)]


def unsaved(who: str, names: list[str], when: str = "a step") -> str:
    """Return the line on attributes that a checkpoint does not hold, changed in ``when``."""
    return (
        f"{who} changes {_some(names)} in {when}, which a checkpoint does not hold, so a resumed "
        "run would give other numbers: keep it in a buffer (register_buffer) that is changed in "
        "place, or return it from get_extra_state"
    )


def _attributes(method: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield path and value of every plain attribute of a method's modules."""
    for path, module in method.named_modules():
        for name, value in vars(module).items():
            if name not in INTERNAL:
                yield _join(path, name), value


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    return vars(value).values() if hasattr(value, "__dict__") and not _fixed(value) else ()


def _fixed(value: Any) -> bool:
    """Check whether a value is code, which is not looked into."""
    return isinstance(value, type) or (callable(value) and not isinstance(value, nn.Module))


def _comparable(value: Any, seen: set[int], depth: int) -> Any:
    """Return something that is equal for equal values, and independent of later changes."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return type(value).__name__, value
    if isinstance(value, float | complex):
        return type(value).__name__, repr(value)  # NaN equals NaN
    if _fixed(value) or id(value) in seen or depth > DEEPEST:
        return type(value).__name__
    seen.add(id(value))
    if isinstance(value, Tensor):
        return checksum(value)
    if isinstance(value, torch.Generator):
        return checksum(value.get_state())
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes())
    parts: Any
    if isinstance(value, nn.Module):
        parts = {**dict(value.named_parameters()), **dict(value.named_buffers())}
    elif isinstance(value, dict | list | tuple | set | frozenset) or hasattr(value, "__dict__"):
        parts = value if isinstance(value, dict) else _parts(value)
    else:
        try:
            return type(value).__name__, pickle.dumps(value)
        except Exception:  # anything may refuse to be pickled
            return type(value).__name__
    if isinstance(parts, dict):
        inner: Any = [(repr(k), _comparable(v, seen, depth + 1)) for k, v in parts.items()]
    else:
        inner = [_comparable(part, seen, depth + 1) for part in parts]
        inner = sorted(inner, key=repr) if isinstance(value, set | frozenset) else inner
    return type(value).__name__, inner


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
