"""Teacher-free distillation (Yuan et al., CVPR 2020, arXiv:1909.11723), Eqs. 9-12.

The term is the difference to cross-entropy, ``mix (T^2 D(q^(T) || p^(T)) - CE)``, so that
``CE + term = (1 - mix) CE + mix T^2 D`` exactly; ``^(T)`` is softening at temperature T. In the
form ``reg`` (Tf-KD_reg), q is a virtual teacher: ``correct`` for the label, the rest spread evenly
over the other classes. In the form ``self`` (Tf-KD_self), q is the prediction of a previously
trained copy of the student; the pair names the student's own architecture as the teacher. (A ``kd``
cell with gamma = 1 - mix and alpha = mix on that pair is equivalent.)

In ``reg``, the authors' code differs from the paper: it softens q's probabilities as if they were
logits, and does not soften p. This file follows the paper, with the usual factor T^2. The authors'
settings for ResNet-18 on CIFAR-100 are mix 0.1 and T 20 in ``reg``, the defaults, and mix 0.95 and
T 6 in ``self``.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.tensors import kl, one_of, upcast


class TfKD(Method):
    """Learn from a virtual teacher, or from a previously trained copy of the student.

    Args:
        form: "reg" or "self".
        mix: weight of the teacher's part, the paper's alpha.
        tau: temperature, T above.
        correct: ``reg``: the virtual teacher's probability of the label, the paper's a.
    """

    family = "logit"
    needs_teacher = False
    needs_teacher_when: ClassVar = {"form": "self"}
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        form: str = "reg",
        mix: float = 0.1,
        tau: float = 20.0,
        correct: float = 0.99,
    ) -> None:
        super().__init__(setup)
        self.has_teacher = one_of("form", form, "reg", "self") == "self"
        if self.has_teacher and setup.teacher_head is None:
            raise Incompatible("TfKD in the form 'self' needs a teacher, the student's own copy")
        if setup.num_classes < 2:
            raise Incompatible(f"TfKD needs two classes or more, not {setup.num_classes}")
        if not 0 < correct < 1:
            raise ValueError(f"correct is {correct}, expected a probability between 0 and 1")
        self.mix, self.tau, self.correct = mix, tau, correct

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        logits = upcast(s.logits)
        target = t.logits if self.has_teacher else self.virtual(logits, batch.labels)
        return self.mix * (kl(logits, target, self.tau) - F.cross_entropy(logits, batch.labels))

    def virtual(self, like: Tensor, labels: Tensor) -> Tensor:
        """Return the virtual teacher's logits, [B] -> [B, K], in the type and shape of ``like``."""
        others = math.log((1 - self.correct) / (like.shape[1] - 1))
        return torch.full_like(like, others).scatter(1, labels[:, None], math.log(self.correct))
