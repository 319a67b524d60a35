"""What a plain loss is."""

from torch import Tensor, nn

from kdbench.method import Features


class Loss(nn.Module):
    """A distillation term.

    Args:
        s, t: features of a few images, student's and teacher's.
        n: number of training images.
    """

    beta = 1.0

    def __init__(self, s: Features, t: Features, n: int) -> None:
        super().__init__()

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        """The term, a scalar; ``index`` [B] and negatives ``drawn`` [B, k + 1] are CRD's."""
        raise NotImplementedError
