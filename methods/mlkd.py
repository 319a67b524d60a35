"""Multi-level logit distillation (Jin, Wang, Lin, CVPR 2023).

Each image has a weak view, with logits s and t, and a strong one, s' and t'. With the predictions
``P = softmax(logits / T)``, [B, K], the term has three levels, at temperatures tau, 3, 5, 2 and 6:
instances, ``KL_T``; classes, ``|P_t^T P_t - P_s^T P_s|^2 / K``; and the batch,
``|P_t P_t^T - P_s P_s^T|^2 / B``. Masks select the samples and classes that the teacher is unsure
of: whose largest probability, or whose sum of probabilities, is at most the median.
"""

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.tensors import exact, one_of, row_products, upcast

STRONG = 3
"""Number of temperatures at which the authors' code compares the strong views."""


class MLKD(Method):
    """Match predictions, their products of samples and of classes, on two views of each image.

    ``gamma`` weighs the cross-entropy of the weak view; that of the strong view is part of the
    term, ``strong_ce CE(s') + weight (instances + classes + batch)``, so give both the same weight.

    Args:
        tau: the first temperature.
        weight: weight of the three levels.
        strong_ce: weight of the cross-entropy of the strong view.
        variant: "authors": as their code computes it. A mask multiplies a loss that is already
            averaged, so the shares of selected samples and classes are plain factors of about 1/2;
            the strong view is matched by instances only, at tau, 3 and 5, and at 2 and 6 the weak
            view once more, without a factor. "paper": masks select single samples and classes of
            the weak view, and all of the strong view is matched on the three levels.

    Source: section 3 of the paper; the authors' code, Jin-Ying/Multi-Level-Logit-Distillation.
    """

    family = "logit"
    objective = Objective(gamma=0.1, alpha=0.0)
    views = 2

    def __init__(
        self,
        setup: Setup,
        *,
        tau: float = 4.0,
        weight: float = 0.9,
        strong_ce: float = 0.1,
        variant: str = "authors",
    ) -> None:
        super().__init__(setup)
        self.temperatures = (tau, 3.0, 5.0, 2.0, 6.0)
        self.weight, self.strong_ce = weight, strong_ce
        self.levels = (
            paper if one_of("variant", variant, "authors", "paper") == "paper" else authors
        )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        weak = upcast(s.logits), upcast(t.logits)
        strong = upcast(s.views[0].logits), upcast(t.views[0].logits)
        with exact(s.logits):
            levels = self.levels(*weak, *strong, self.temperatures)
            return self.strong_ce * F.cross_entropy(strong[0], batch.labels) + self.weight * levels


def authors(
    s: Tensor, t: Tensor, strong_s: Tensor, strong_t: Tensor, temperatures: tuple[float, ...]
) -> Tensor:
    """Return the sum of the three levels as in the authors' code; logits are [B, K]."""
    samples, classes = (mask.mean(dtype=s.dtype) for mask in unsure(t))
    total = s.new_zeros(())
    for i, temperature in enumerate(temperatures):
        again = (strong_s, strong_t) if i < STRONG else (s, t)
        total = total + samples * instances(s, t, temperature).mean()
        total = total + instances(*again, temperature).mean()
        a, b = predictions(s, t, temperature)
        total = total + classes * products(a.mT, b.mT).mean() + samples * products(a, b).mean()
    return total


def paper(
    s: Tensor, t: Tensor, strong_s: Tensor, strong_t: Tensor, temperatures: tuple[float, ...]
) -> Tensor:
    """Return the sum of the three levels of both views, with masks on the weak one."""
    samples, classes = (mask.to(s.dtype) for mask in unsure(t))
    total = s.new_zeros(())
    for temperature in temperatures:
        a, b = predictions(s, t, temperature)
        total = total + (samples * instances(s, t, temperature)).mean()
        total = total + (classes * products(a.mT, b.mT)).mean()
        total = total + (samples * products(a, b)).mean()
        a, b = predictions(strong_s, strong_t, temperature)
        total = total + instances(strong_s, strong_t, temperature).mean()
        total = total + products(a.mT, b.mT).mean() + products(a, b).mean()
    return total


def unsure(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the samples, [B], and the classes, [K], that a teacher with logits t is unsure of."""
    p = F.softmax(t, dim=1)
    confidence, popularity = p.amax(1), p.sum(0)
    return confidence <= median(confidence), popularity <= median(popularity)


def median(x: Tensor) -> Tensor:
    """Return the median of a vector; of an even number, the mean of the two in the middle."""
    ordered = x.sort().values
    n = len(x)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def predictions(s: Tensor, t: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the softened predictions of student and teacher, each [B, K]."""
    return F.softmax(s / temperature, dim=1), F.softmax(t / temperature, dim=1)


def instances(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Return each sample's ``T^2 KL(t, s)``, [B]."""
    log_s, log_t = (F.log_softmax(x / temperature, dim=1) for x in (s, t))
    return (log_t.exp() * (log_t - log_s)).sum(1) * temperature**2


def products(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared differences of the products of rows, [N, D] x 2, summed by row, [N]."""
    return (row_products(b) - row_products(a)).square().sum(1)
