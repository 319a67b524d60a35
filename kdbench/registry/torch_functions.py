"""The functions of torch that losses call, and whether code of a method has replaced some."""

from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
import torch.nn.functional as F

FUNCTIONS = (FunctionType, BuiltinFunctionType)
PLACES: tuple[tuple[Any, tuple[type, ...]], ...] = (
    (F, FUNCTIONS),
    # Those written in Python are left out: torch replaces some when parts of it are first used.
    (torch, (BuiltinFunctionType,)),
    (torch.Tensor, (object,)),
)
"""Modules and classes, and the types of their attributes that are watched."""


class TorchFunctions:
    """The functions in ``PLACES`` at one time; equal if none was replaced, added or removed."""

    def __init__(self) -> None:
        self.found = [
            {name: value for name, value in vars(place).items() if isinstance(value, kinds)}
            for place, kinds in PLACES
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TorchFunctions) and all(
            one.keys() == two.keys() and all(value is two[name] for name, value in one.items())
            for one, two in zip(self.found, other.found, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def put_back(self) -> None:
        """Undo what was replaced, added or removed since."""
        for (place, _), then, now in zip(PLACES, self.found, TorchFunctions().found, strict=True):
            for name in now.keys() - then.keys():
                delattr(place, name)
            for name, value in then.items():
                if now.get(name) is not value:
                    setattr(place, name, value)
