"""Probabilistic knowledge transfer (Passalis & Tefas, ECCV 2018, arXiv:1803.10837), Eqs. 3-7.

As in the authors' code: each sample is among its own neighbours, and the divergence is averaged
over all pairs.
"""

from functools import partial

from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import affinities, exact, gram, together, upcast


class PKT(Method):
    """Match the probabilities that samples choose each other as neighbours.

    Args:
        eps: added to lengths and probabilities.
    """

    family = "relation"
    beta = 30000.0

    def __init__(self, setup: Setup, *, eps: float = 1e-7) -> None:
        super().__init__(setup)
        self.eps = eps

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        # Embeddings after a ReLU have similar directions, so the probabilities hardly differ and
        # float32 keeps only three digits of the differences. float64 is cheap at this size.
        with exact(s.embedding):
            (p_s,), (p_t,) = together(
                partial(neighbours, eps=self.eps),
                [gram(s.embedding.double())],
                [gram(t.embedding.double())],
            )
            loss = (p_t * ((p_t + self.eps).log() - (p_s + self.eps).log())).mean()
        return loss.to(upcast(s.embedding).dtype)


def neighbours(gram: Tensor, eps: float) -> Tensor:
    """Return the probabilities that sample i chooses j from inner products, [..., B, B].

    Rows sum to 1.
    """
    close = affinities(gram, eps)
    return close / close.sum(-1, keepdim=True)
