"""Tensors that several methods read, watched for writes without copies.

torch counts the writes into a tensor and its views (``Tensor._version``), except those through
``.data`` and through numpy. These are found by checksums, which cost about a millisecond per
megabyte and are for the first steps only.
"""

import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdbench.method import Batch, ContractBroken, Features, Setup


class SharedTensors:
    """Tensors, and how they were when this object was made.

    Args:
        tensors: what to watch.
        names: returns a name for each of them; called only if one has changed.
        contents: also compare the contents, bit by bit; on a GPU this waits for the device.
    """

    __slots__ = ("_before", "_contents", "_names", "_tensors")

    def __init__(
        self, tensors: Sequence[Tensor], names: Callable[[], Sequence[str]], *, contents: bool
    ) -> None:
        self._tensors, self._names = tensors, names
        self._before = [(x._version, x.data_ptr(), x.requires_grad) for x in tensors]
        self._contents = [checksum(x) for x in tensors] if contents else None

    def changed(self, *, contents: bool = True) -> str:
        """Return the name of the first tensor that has changed; "" if none has.

        Args:
            contents: False: do not read tensors, even if their contents were noted.
        """
        after = [(x._version, x.data_ptr(), x.requires_grad) for x in self._tensors]
        pairs = zip(self._before, after, strict=True)
        differs = [] if after == self._before else [a != b for a, b in pairs]
        if contents and self._contents is not None and not any(differs):
            differs = [
                checksum(x) != before
                for x, before in zip(self._tensors, self._contents, strict=True)
            ]
        if not any(differs):
            return ""
        return next(n for n, d in zip(self._names(), differs, strict=True) if d)

    def check(self, who: str, *, contents: bool = True) -> None:
        """Raise if a tensor has changed.

        Args:
            who: who may have changed it.
            contents: as for ``changed``.

        Raises:
            ContractBroken: it names the tensor and ``who``.
        """
        name = self.changed(contents=contents)
        if name:
            raise ContractBroken(
                f"{who} changes {name}, which other methods read: work on a copy, "
                "such as x = x.clone(), or not in place, such as x = x - 1 instead of x -= 1"
            )


def of_batch(batch: Batch | None, t: Features | None, *, contents: bool = False) -> SharedTensors:
    """Watch a batch, and the teacher's features of it, as far as they are given."""
    views = batch.views if batch is not None else ()
    tensors = [batch.images, batch.labels, batch.index, *views] if batch is not None else []
    if t is not None:
        tensors += [x for _, x in t.named()]

    def names() -> list[str]:
        named = t.named() if t is not None else ()
        own = BATCH_NAMES if batch is not None else ()
        of_views = (f"batch.views[{i}]" for i in range(len(views)))
        return [*own, *of_views, *(f"the teacher's {name}" for name, _ in named)]

    return SharedTensors(tensors, names, contents=contents)


BATCH_NAMES = "batch.images", "batch.labels", "batch.index"


def of_setup(setup: Setup) -> SharedTensors:
    """Watch the contents of everything that a method is built from."""
    named = {"setup.train_labels": setup.train_labels}
    named |= {f"setup.student.{name}": x for name, x in setup.student.named()}
    named |= {f"setup.teacher.{name}": x for name, x in setup.teacher.named()}
    if isinstance(setup.teacher_head, nn.Module):
        named |= {
            f"the teacher head's {name}": x for name, x in setup.teacher_head.named_parameters()
        }
    named |= {
        f"setup.teacher_norms[{i}].{name}": x
        for i, bn in enumerate(setup.teacher_norms)
        if bn is not None
        for name, x in bn.state_dict().items()
    }
    # Detached, because a method may train its own copy of the head.
    tensors = [x.detach() for x in named.values()]
    return SharedTensors(tensors, lambda: list(named), contents=True)


def checksum(x: Tensor) -> tuple[object, ...]:
    """Return type, shape and the CRC-32 of the bits of a tensor; copies it only if it has gaps."""
    host = x.detach().cpu()
    if host.dim() == 4 and not host.is_contiguous():
        host = host.permute(0, 2, 3, 1)  # channels last
    flat = host.contiguous().reshape(-1).view(torch.uint8)
    return x.dtype, tuple(x.shape), zlib.crc32(flat.numpy().data)
