"""Which of the authors' tensors is which of kdbench's: by name, else by order and shape."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

State = dict[str, Tensor]
"""Tensors by name, in the order of the modules that have them."""


class MatchingError(ValueError):
    """The tensors of the two sides do not correspond; one line."""


def matched(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, str]:
    """Return kdbench's name of each of the authors' tensors.

    Tensors match by name if both sides have the same names, else by order. Matching tensors have
    equal shapes.

    Raises:
        MatchingError: the numbers of tensors or two matching shapes differ.
    """
    if theirs.keys() == ours.keys():
        names = {name: name for name in theirs}
    elif len(theirs) != len(ours):
        only = [*(theirs.keys() ^ ours.keys())][:1]
        raise MatchingError(
            f"the authors have {len(theirs)} tensors, kdbench {len(ours)}: only one has {only[0]}"
        )
    else:
        names = dict(zip(theirs, ours, strict=True))
    for their_name, our_name in names.items():
        a, b = theirs[their_name].shape, ours[our_name].shape
        if a != b:
            raise MatchingError(
                f"the authors' {their_name} is {list(a)}, kdbench's {our_name} {list(b)}"
            )
    return names


def without(state: Mapping[str, Tensor], pattern: str) -> State:
    """Return a state without the names that match a regular expression in full; "": all."""
    return {name: x for name, x in state.items() if not (pattern and re.fullmatch(pattern, name))}


def selected(state: Mapping[str, Tensor], patterns: Sequence[str]) -> State:
    """Return the tensors whose names match a pattern at their start, ordered by the patterns."""
    return {name: x for pattern in patterns for name, x in state.items() if re.match(pattern, name)}
