"""The Distillation-Oriented Trainer (Zhao et al., ICCV 2023, arXiv:2307.08436)."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from kdbench.training.compiled import graph_kept
from kdbench.training.objective import Loss
from kdbench.training.ranks import World

TASK, REST = "momentum_of_task", "momentum_of_rest"
"""Names of the momenta in the state of a parameter."""
Gradients = Mapping[Tensor, Tensor]


class Dot(torch.optim.Optimizer):
    """SGD with separate momenta for the task and for distillation.

    Per step, with the gradients ``g`` of the cross-entropy and ``h`` of the rest of the objective:
    ``v = (mu - delta) v + g + decay * p``; ``w = (mu + delta) w + h``; ``p = p - lr (v + w)``. A
    parameter with only one of the gradients has momentum mu. In the first step the momenta are
    the summands that follow them. As in the authors' code, a parameter with only ``h`` (of a
    method's own layer) decays from its second step on: ``w = mu w + h + decay * p``.

    Args:
        params: what to train.
        lr: learning rate.
        momentum: mu.
        delta: difference of each momentum from mu.
        weight_decay: factor of the L2 term.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        delta: float,
        weight_decay: float,
    ) -> None:
        values = {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay}
        super().__init__(params, values)

    def update(self, loss: Loss, world: World, learnable: Sequence[Tensor]) -> None:
        """Take a step, with a backward pass for each of the two parts of the loss.

        Args:
            loss: of a global batch.
            world: the ranks that compute the loss together.
            learnable: parameters whose gradients are summed over the ranks.
        """
        parts = {"task": loss.task, "rest": loss.rest}
        used = {name: x for name, x in parts.items() if x is not None and x.requires_grad}
        found: dict[str, Gradients] = {"task": {}, "rest": {}}
        for number, (name, part) in enumerate(used.items(), start=1):
            # Both parts share the student's graph, which the last backward pass frees.
            again = number < len(used)
            with graph_kept():
                part.backward(torch.full_like(part, 1 / world.size), retain_graph=again)
            world.sum_gradients(learnable)
            params = (p for group in self.param_groups for p in group["params"])
            found[name] = {p: p.grad for p in params if p.grad is not None}
            self.zero_grad(set_to_none=True)
        self.apply(**found)

    @torch.no_grad()
    def apply(self, task: Gradients, rest: Gradients) -> None:
        """Take a step with the gradients of the two losses, for parameters that have them."""
        for group in self.param_groups:
            mu, delta, decay = group["momentum"], group["delta"], group["weight_decay"]
            both = [p for p in group["params"] if p in task and p in rest]
            self._move(both, TASK, task, mu - delta, decay, group["lr"])
            self._move(both, REST, rest, mu + delta, 0.0, group["lr"])
            one = [p for p in group["params"] if p in task and p not in rest]
            self._move(one, TASK, task, mu, decay, group["lr"])
            one = [p for p in group["params"] if p in rest and p not in task]
            begun = [p for p in one if REST in self.state.get(p, {})]
            self._move(begun, REST, rest, mu, decay, group["lr"])
            new = [p for p in one if REST not in self.state.get(p, {})]
            self._move(new, REST, rest, mu, 0.0, group["lr"])

    def _move(
        self,
        params: list[Tensor],
        name: str,
        gradients: Gradients,
        momentum: float,
        decay: float,
        lr: float | Tensor,
    ) -> None:
        """Advance one of the momenta of some parameters, and the parameters by it."""
        if not params:
            return
        summands = [gradients[p] for p in params]
        if decay:
            summands = list(torch._foreach_add(summands, params, alpha=decay))
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        momenta = [self.state[p][name] for p in params]
        torch._foreach_mul_(momenta, momentum)
        torch._foreach_add_(momenta, summands)
        torch._foreach_sub_(params, torch._foreach_mul(momenta, lr))
