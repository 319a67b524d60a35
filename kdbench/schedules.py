"""Weights that change from epoch to epoch; epochs are counted from 1, as in ``Batch.epoch``.

A length of at most 1 is a share of the training, a longer one a number of epochs. So one default
fits the paper's 300 epochs and a grid of ten.
"""

import math


def in_epochs(length: float, epochs: int) -> float:
    """Return a length in epochs; ``length`` is a share of ``epochs`` if it is at most 1."""
    return length * epochs if length <= 1 else length


def warmup(epoch: int, length: float, epochs: int) -> float:
    """Return a weight that grows linearly and is 1 from epoch ``length`` on; 0: always 1."""
    total = in_epochs(length, epochs)
    return min(epoch / total, 1.0) if total else 1.0


def rampup(epoch: int, length: float, epochs: int) -> float:
    """Return ``exp(-5 (1 - e/L)^2)``, e counted from 0: from 0.0067 to 1 after L epochs; 0: 1.

    Source: Laine & Aila, Temporal Ensembling, ICLR 2017 (arXiv:1610.02242), appendix A.
    """
    total = in_epochs(length, epochs)
    if not total:
        return 1.0
    return math.exp(-5 * (1 - min(epoch - 1, total) / total) ** 2)


def cosine_decay(epoch: int, start: float, epochs: int) -> float:
    """Return a weight that is 1 up to epoch ``start`` and falls to 0 in the last, as a cosine."""
    first = in_epochs(start, epochs)
    if epoch <= first:
        return 1.0
    return (1 + math.cos(math.pi * (epoch - first) / (epochs - first))) / 2
