"""Checks of a method on what is out of the ordinary: small batches, zeros, other networks.

As in ``checks``, which lists them, each raises ``Failed``.
"""

import re
from dataclasses import replace

import torch

from kdbench.method import Incompatible
from kdbench.registry.toy_networks import Failed, MethodUnderTest, Toy, finite_gradients, told


def batch_sizes(subject: MethodUnderTest) -> None:
    """Batches of 1, 2, 3 and 7 work, or the method refuses small ones."""
    for size in (1, 2, 3, 7):
        try:
            finite_gradients(subject.scene(size))
        except Failed as error:
            raise Failed(f"in a batch of {size}: {error}") from None
        except ValueError as error:
            refused = isinstance(error, Incompatible) and "batch" in str(error) and size <= 3
            # Batch norm of one value: torch's own words will do.
            if not refused and (size > 1 or "more than 1 value per channel" not in str(error)):
                raise


def zeros(subject: MethodUnderTest) -> None:
    """Features that are all zero do no harm."""
    finite_gradients(subject.scene(change=torch.zeros_like))


def duplicates(subject: MethodUnderTest) -> None:
    """Equal samples, and a student equal to its teacher, do no harm."""
    finite_gradients(subject.scene(change=lambda x: x[:1].expand_as(x).clone()))
    torch.manual_seed(1)
    network = Toy()
    finite_gradients(subject.scene(student=network, teacher=network))


def architectures(subject: MethodUnderTest) -> None:
    """Other depths, widths and resolutions work, or are refused with the shapes."""
    for what, teacher in {
        "a deeper teacher": Toy((4, 6, 8, 10)),
        "a shallower teacher": Toy((6, 8)),
        "a teacher of twice the resolution": Toy((4, 6, 8), (1, 1, 2)),
        "a teacher of half the resolution": Toy((4, 6, 8), (2, 2, 2)),
        "a teacher of other channels": Toy((3, 5, 12)),
        "a teacher of one-pixel maps": Toy((4, 6, 8), (2, 2, 4)),
    }.items():
        try:
            finite_gradients(subject.scene(student=Toy(), teacher=teacher))
        except Incompatible as error:
            if not re.search(r"\d", str(error)):
                raise Failed(f"{what} is refused without the shapes: {error}") from None
        except Failed as error:
            raise Failed(f"with {what}: {error}") from None
        except Exception as error:
            raise Failed(
                f"with {what}: {told(error, subject)}. What cannot work is to raise Incompatible, "
                "with the shapes, in __init__"
            ) from error


def half(subject: MethodUnderTest) -> None:
    """bfloat16 features under autocast give a finite loss."""
    scene = subject.scene()
    s, t = (f.map(lambda x: x.detach().bfloat16()) for f in (scene.s, scene.t))
    leaves = s.map(lambda x: x.requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        finite_gradients(replace(scene, s=leaves, t=t))
