"""Checks of a method on unusual inputs: small batches, zeros, other networks.

Each check raises ``Failed`` if it fails. ``checks.CHECKS`` lists them.
"""

import re
from dataclasses import replace

import torch

from kdbench.method import Incompatible
from kdbench.registry.toy_networks import Failed, MethodUnderTest, Toy, finite_gradients, one_line


def batch_sizes(subject: MethodUnderTest) -> None:
    """Check that batches of 1, 2, 3 and 7 work, or that the method refuses small batches."""
    for size in (1, 2, 3, 7):
        try:
            finite_gradients(subject.toy_setup(size))
        except Failed as error:
            raise Failed(f"in a batch of {size}: {error}") from None
        except ValueError as error:
            refused = isinstance(error, Incompatible) and "batch" in str(error) and size <= 3
            # For batch norm of a single value, torch's own message is clear.
            if not refused and (size > 1 or "more than 1 value per channel" not in str(error)):
                raise


def zeros(subject: MethodUnderTest) -> None:
    """Check that features of zeros give finite losses and gradients."""
    finite_gradients(subject.toy_setup(change=torch.zeros_like))


def duplicates(subject: MethodUnderTest) -> None:
    """Check that equal samples, and a student equal to its teacher, give finite gradients."""
    finite_gradients(subject.toy_setup(change=lambda x: x[:1].expand_as(x).clone()))
    torch.manual_seed(1)
    network = Toy()
    finite_gradients(subject.toy_setup(student=network, teacher=network))


def architectures(subject: MethodUnderTest) -> None:
    """Check that other depths, widths and resolutions work, or are refused with the shapes."""
    for what, teacher in {
        "a deeper teacher": Toy((4, 6, 8, 10)),
        "a shallower teacher": Toy((6, 8)),
        "a teacher of twice the resolution": Toy((4, 6, 8), (1, 1, 2)),
        "a teacher of half the resolution": Toy((4, 6, 8), (2, 2, 2)),
        "a teacher of other channels": Toy((3, 5, 12)),
        "a teacher of one-pixel maps": Toy((4, 6, 8), (2, 2, 4)),
    }.items():
        try:
            finite_gradients(subject.toy_setup(student=Toy(), teacher=teacher))
        except Incompatible as error:
            if not re.search(r"\d", str(error)):
                raise Failed(f"{what} is refused without giving the shapes: {error}") from None
        except Failed as error:
            raise Failed(f"with {what}: {error}") from None
        except Exception as error:
            raise Failed(
                f"with {what}: {one_line(error, subject)}. If the pair cannot work, raise "
                "Incompatible, with the shapes, in __init__"
            ) from error


def half(subject: MethodUnderTest) -> None:
    """Check that bfloat16 features under autocast give a finite loss."""
    toy = subject.toy_setup()
    s, t = (f.map(lambda x: x.detach().bfloat16()) for f in (toy.s, toy.t))
    leaves = s.map(lambda x: x.requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        finite_gradients(replace(toy, s=leaves, t=t))
