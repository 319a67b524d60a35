"""Base class of the plain losses."""

from torch import Tensor, nn

from kdbench.method import Features


class Loss(nn.Module):
    """A distillation term.

    Args:
        s: the student's features of a few images.
        t: the teacher's features of the same images.
        n: number of training images.
    """

    beta = 1.0

    def __init__(self, s: Features, t: Features, n: int) -> None:
        super().__init__()

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        """Return the scalar term; ``index`` [B] and negatives ``drawn`` [B, k + 1] are for CRD."""
        raise NotImplementedError
