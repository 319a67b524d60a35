"""FitNets: hints for thin deep nets (Romero et al., ICLR 2015, arXiv:1412.6550), Eq. 3.

The regressor is that of RepDistiller and SemCKD, a convolution with batch norm and ReLU that
matches the sizes. The paper has no batch norm and two phases: ``stages="two", norm=False``.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import hint_regressor, mean_square, same_size, upcast


class FitNets(Method):
    """Regress one map of the teacher, the hint, from the student's map at the same depth.

    Args:
        hint_layer: index of the map in ``[stem, *stages]``; 1 as in SemCKD, RepDistiller takes 2.
        relu: end the regressor in a ReLU; without it, the output can match negative teacher values.
        norm: use batch norm in the regressor.
        stages: "one": the hint is a term of the objective; "two": it is the only loss of a phase
            before training. That phase trains the student's whole ``trunk()``. Layers behind the
            hint get no gradient but are in train mode, so their batch norms gather statistics.
    """

    family = "feature map"
    beta = 100.0
    pretrains_when: ClassVar = {"stages": "two"}

    def __init__(
        self,
        setup: Setup,
        *,
        hint_layer: int = 1,
        relu: bool = True,
        norm: bool = True,
        stages: str = "one",
    ) -> None:
        super().__init__(setup)
        if stages not in ("one", "two"):
            raise ValueError(f"stages is {stages!r}, expected 'one' or 'two'")
        self.hint_layer = hint_layer
        self.two = stages == "two"
        self.regressor = hint_regressor(
            self.hint(setup.student), self.hint(setup.teacher), relu=relu
        )
        if not norm:
            self.regressor.bn = nn.Identity()

    def hint(self, f: Features) -> Tensor:
        """Return the map at ``hint_layer``, [B, C, H, W]."""
        maps = (f.stem, *f.stages)
        if not -len(maps) <= self.hint_layer < len(maps):
            shapes = [list(x.shape[1:]) for x in maps]
            raise Incompatible(f"hint_layer {self.hint_layer} is not among the maps {shapes}")
        return maps[self.hint_layer]

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return s.logits.sum() * 0.0 if self.two else self.distance(s, t)

    def pretrain(self, student: nn.Module) -> Sequence[nn.Module]:
        if not self.two:
            return ()
        trunk: Sequence[nn.Module] = student.trunk()  # type: ignore[operator]
        return [*trunk, self.regressor]

    def pretrain_loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return self.distance(s, t)

    def distance(self, s: Features, t: Features) -> Tensor:
        """Return the mean squared error of the regressed hint, a scalar."""
        a, b = same_size(self.regressor(self.hint(s)), self.hint(t))
        return mean_square(upcast(a) - upcast(b))
