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
        self.step()
        self.zero_grad(set_to_none=True)
