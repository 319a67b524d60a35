"""Checks of what a method returns besides losses: predictions, answers and traces.

Each check raises ``Failed`` if it fails. ``checks.CHECKS`` lists them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from kdbench.registry.toy_networks import Failed, MethodUnderTest, ToySetup

MAX_TRACE_SIZE = 1024
"""Largest number of elements of a tensor from ``trace``, which is written every epoch."""


def prediction(subject: MethodUnderTest) -> None:
    """Check that ``predict`` returns finite logits, from the deployed network alone."""
    toy = subject.toy_setup()
    toy.method.eval()
    with torch.no_grad():
        logits = toy.method.predict(replace(toy.s, peers=()))
    expected = list(toy.s.logits.shape)
    if list(logits.shape) != expected or not logits.isfinite().all():
        raise Failed(f"predict returned {list(logits.shape)}, expected finite {expected}")


def answers(subject: MethodUnderTest) -> None:
    """Check that ``answers`` returns finite logits by name, and has no side effects."""
    toy = subject.toy_setup()
    with _without_effects("answers", toy):
        found = toy.method.answers(toy.s)
    expected = toy.s.logits.shape
    for name, x in found.items():
        if x.dim() not in (2, 3) or x.shape[-2:] != expected or not x.isfinite().all():
            raise Failed(
                f"answers: {name} is {list(x.shape)}, expected finite {list(expected)}, or several "
                "of them, stacked"
            )


def trace(subject: MethodUnderTest) -> None:
    """Check that ``trace`` returns small finite tensors and has no side effects."""
    toy = subject.toy_setup()
    with _without_effects("trace", toy):
        tensors = toy.method.trace(toy.s, toy.t)
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or x.numel() > MAX_TRACE_SIZE or not x.isfinite().all():
            raise Failed(
                f"trace: {name} is not a finite tensor of at most {MAX_TRACE_SIZE} numbers"
            )


@contextmanager
def _without_effects(what: str, toy: ToySetup) -> Iterator[None]:
    """Call a function of the method in eval mode; it must neither draw nor change the method."""
    toy.method.eval()
    before = {name: x.clone() for name, x in toy.method.state_dict().items()}
    rng_state = torch.get_rng_state()
    with torch.no_grad():
        yield
    if not torch.equal(rng_state, torch.get_rng_state()) or any(
        not torch.equal(before[name], x) for name, x in toy.method.state_dict().items()
    ):
        raise Failed(f"{what} draws random numbers or changes the method: it must do neither")
