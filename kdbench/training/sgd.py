"""SGD with momentum, the optimiser of every phase unless the protocol names another."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdbench.training.objective import Loss
from kdbench.training.ranks import World


class Sgd(torch.optim.SGD):
    """SGD that makes the gradients of a step itself, in one backward pass."""

    def update(self, loss: Loss, world: World, learnable: Sequence[Tensor]) -> None:
        """Take a step.

        Args:
            loss: of a global batch.
            world: the ranks that compute the loss together.
            learnable: parameters whose gradients are summed over the ranks.
        """
        loss.total.backward(torch.full_like(loss.total, 1 / world.size))
        world.sum_gradients(learnable)
        self.begin_late_momenta()
        self.step()
        self.zero_grad(set_to_none=True)

    def begin_late_momenta(self) -> None:
        """Begin with a momentum of 0 where the first gradient comes later than elsewhere.

        A method may draw the modules that it trains in a step. Then the first step makes the
        momenta of some parameters only, which torch's fused form does not accept. Its own first
        momentum is the gradient, and so is the step after a momentum of 0.
        """
        for group in self.param_groups:
            if not group["momentum"]:
                continue
            moving = [p for p in group["params"] if p.grad is not None]
            late = [p for p in moving if "momentum_buffer" not in self.state.get(p, {})]
            if len(late) < len(moving):
                for p in late:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
