"""Factor transfer: paraphrasing complex network (Kim et al., NeurIPS 2018, arXiv:1802.04977).

``repdistiller`` compares the factors' attention maps; it is the default because published benchmark
numbers use it. ``paper`` (Eq. 3) compares the factors themselves.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import attention, mean_square, one_of, same_size, unit_rows, upcast


class FT(Method):
    """Match the factors that a pre-trained auto-encoder extracts from the teacher's last map.

    Args:
        variant: "repdistiller" or "paper".
        k: number of factor channels, as a share of the teacher's channels.
        p1: ``repdistiller``: power of the activations in the attention maps.
        p2: ``repdistiller``: power of the differences.
    """

    family = "feature map"
    beta = 200.0

    def __init__(
        self,
        setup: Setup,
        *,
        variant: str = "repdistiller",
        k: float = 0.5,
        p1: int = 2,
        p2: int = 1,
    ) -> None:
        super().__init__(setup)
        self.paper = one_of("variant", variant, "repdistiller", "paper") == "paper"
        self.p1, self.p2 = p1, p2
        c_s, c_t = setup.student.stages[-1].shape[1], setup.teacher.stages[-1].shape[1]
        m = int(c_t * k)
        if m < 1:
            raise Incompatible(f"FT finds no factor channel: k = {k} of {c_t} teacher channels")
        self.encoder = chain(nn.Conv2d, c_t, c_t, m, m)
        self.decoder = chain(nn.ConvTranspose2d, m, m, c_t, c_t)
        self.translator = chain(nn.Conv2d, c_s, c_s, m, m, norm=True)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        with torch.no_grad():
            factor_t = upcast(self.encoder(upcast(t.stages[-1])))
        a, b = same_size(upcast(self.translator(upcast(s.stages[-1]))), factor_t)
        if self.paper:
            return F.l1_loss(unit_rows(a.flatten(1)), unit_rows(b.flatten(1)))
        gap = (attention(a, self.p1) - attention(b, self.p1)).abs()
        return gap.mean() if self.p2 == 1 else gap.pow(self.p2).mean()

    def pretrain(self, student: nn.Module) -> Sequence[nn.Module]:
        return [self.encoder, self.decoder]

    def pretrain_loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        last = upcast(t.stages[-1])
        return mean_square(upcast(self.decoder(self.encoder(last))) - last)


def chain(conv: type[nn.Module], *channels: int, norm: bool = False) -> nn.Sequential:
    """Build 3x3 convolutions from each number of channels to the next: conv[, BN], LeakyReLU."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(conv(before, after, 3, padding=1))
        layers += [nn.BatchNorm2d(after)] if norm else []
        layers.append(nn.LeakyReLU(0.1, inplace=True))
    return nn.Sequential(*layers)
