"""Sixteen distillation losses in their simplest form, as typical research scripts write them.

The mathematics is that of ``methods/``, in the variants that published tables use; only the cost
differs. AB and FSP have no term after their pretraining phase, so they are ``Nothing``.
"""

from torch import Tensor

from kdbench.method import Features

from .loss import Loss
from .maps import AT, FT, NST, VID, FitNets, SemCKD
from .relations import CC, CRD, HKD, IRG, PKT, RKD, SP


class Nothing(Loss):
    """No term: KD, and AB and FSP after their pretraining phase."""

    beta = 0.0

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        return s.logits.new_zeros(())


LOSSES: dict[str, type[Loss]] = {
    "kd": Nothing, "fitnets": FitNets, "at": AT, "sp": SP, "cc": CC, "vid": VID, "rkd": RKD,
    "pkt": PKT, "ab": Nothing, "ft": FT, "fsp": Nothing, "nst": NST, "crd": CRD, "irg": IRG,
    "hkd": HKD, "semckd": SemCKD,
}  # fmt: skip
"""Method -> loss."""
