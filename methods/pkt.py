"""Probabilistic knowledge transfer (Passalis & Tefas, ECCV 2018, arXiv:1803.10837), Eqs. 3-7.

As the authors' code: a sample counts among its own neighbours, and the divergence is averaged over
all pairs.
"""

from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import affinity, exact, upcast


class PKT(Method):
    """Match the probabilities with which samples pick each other as neighbours.

    Args:
        eps: added to lengths and probabilities.
    """

    family = "relation"
    beta = 30000.0

    def __init__(self, setup: Setup, *, eps: float = 1e-7) -> None:
        super().__init__(setup)
        self.eps = eps

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        # In float64, which costs nothing at this size: embeddings after a ReLU all point one way,
        # and of probabilities that hardly differ float32 leaves three digits.
        with exact(s.embedding):
            p_s = neighbours(s.embedding.double(), self.eps)
            p_t = neighbours(t.embedding.double(), self.eps)
            loss = (p_t * ((p_t + self.eps).log() - (p_s + self.eps).log())).mean()
        return loss.to(upcast(s.embedding).dtype)


def neighbours(embedding: Tensor, eps: float) -> Tensor:
    """[B, D] -> [B, B]: the probability that row i picks j; rows sum to 1."""
    close = affinity(embedding, eps)
    return close / close.sum(1, keepdim=True)
