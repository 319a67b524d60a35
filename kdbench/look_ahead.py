"""A look ahead: steps of a run's optimiser on copies, differentiable, which leave nothing behind.

Everything is functional, so nothing has to be rolled back: networks and methods run with the copies
in the place of their parameters, and with scratch copies of their buffers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdbench.bilevel import MetaOptimizer, State
from kdbench.method import Batch, ContractBroken, Features
from kdbench.models.peers import networks


class Whole(nn.Module):
    """A student and its methods as one module: everything that the run's optimiser trains."""

    def __init__(self, student: nn.Module, methods: nn.ModuleList) -> None:
        super().__init__()
        self.student, self.methods = student, methods

    def forward(self, images: Tensor, of: Callable[[Features], Tensor]) -> Tensor:
        """Return ``of`` the student's features; it may use the methods' modules."""
        return of(self.student(images))


class LookAhead:
    """The ``kdbench.bilevel.Inner`` of one method in one step.

    A step follows torch's SGD: with weight decay, then momentum without dampening, then Nesterov's
    form if the run has it. It equals the optimiser's own step to rounding.

    Args:
        who: name of the method.
        whole: student and methods, not compiled, in train mode.
        optimizer: the run's, after its step.
        meta: parameters that ``learn`` trains, which now require gradients.
        meta_optimizer: their optimiser; None if there are none.
        t: the teacher's features of the step just taken.
        batch: its batch.
        watch: called with each loss that ``learn`` gets.
    """

    def __init__(
        self,
        who: str,
        whole: Whole,
        optimizer: torch.optim.Optimizer,
        meta: Sequence[nn.Parameter],
        meta_optimizer: torch.optim.Optimizer | None,
        *,
        t: Features,
        batch: Batch,
        watch: Callable[[Tensor], object],
    ) -> None:
        self.who, self.whole, self.optimizer = who, whole, optimizer
        self.meta, self.meta_optimizer, self.watch = meta, meta_optimizer, watch
        self.t, self.batch = t, batch

    @property
    def peers(self) -> Sequence[nn.Module]:
        """The networks of the student, the deployed one first; one without a group."""
        return networks(self.whole.student)

    def start(self) -> State:
        """Return copies of the present parameters and momenta."""
        trained = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        params: dict[str, Tensor] = {}
        momenta: dict[str, Tensor] = {}
        for name, p in self.whole.named_parameters():
            if id(p) in trained:
                momentum = self.optimizer.state.get(p, {}).get("momentum_buffer")
                params[name] = p.detach().clone().requires_grad_()
                momenta[name] = torch.zeros_like(p) if momentum is None else momentum.clone()
        return State(params, momenta)

    def loss(self, state: State, of: Callable[[Features], Tensor]) -> Tensor:
        """Return ``of`` the student's features at ``state``; batch norms update scratch copies."""
        scratch = {name: buffer.clone() for name, buffer in self.whole.named_buffers()}
        value = functional_call(self.whole, (state.params, scratch), (self.batch.images, of))
        assert isinstance(value, Tensor)
        return value

    def step(
        self, state: State, of: Callable[[Features], Tensor], *, second_order: bool = True
    ) -> State:
        """Return the state after one step of the run's optimiser on a loss, differentiably.

        Raises:
            ContractBroken: the loss depends on nothing that the run's optimiser trains.
        """
        at = state
        if not second_order:
            # Their dependence on the meta-parameters remains, that on the earlier steps does not.
            at = State({n: p.detach().requires_grad_() for n, p in state.params.items()}, {})
        loss = self.loss(at, of)
        if not loss.requires_grad:
            raise ContractBroken(f"{self.who}.adapt takes a step on a loss without a gradient")
        # Zeros for what the loss does not depend on: momentum and decay still move it.
        grads = torch.autograd.grad(
            loss, [*at.params.values()], create_graph=True, materialize_grads=True
        )
        [group] = self.optimizer.param_groups
        params, before = [*state.params.values()], [*state.momenta.values()]
        rate, factor, decay = group["lr"], group["momentum"], group["weight_decay"]
        decayed = torch._foreach_add(grads, params, alpha=decay)
        momenta = torch._foreach_add(decayed, before, alpha=factor)
        move = torch._foreach_add(decayed, momenta, alpha=factor) if group["nesterov"] else momenta
        after = torch._foreach_sub(params, torch._foreach_mul(move, rate))
        return State(
            dict(zip(state.params, after, strict=True)),
            dict(zip(state.params, momenta, strict=True)),
        )

    def learn(self, loss: Tensor) -> None:
        """Train ``Method.meta`` by one step of its optimiser on ``loss``.

        Raises:
            ContractBroken: there is nothing to train, or the loss does not depend on it.
        """
        if self.meta_optimizer is None:
            raise ContractBroken(f"{self.who}.adapt calls learn, but meta returns no modules")
        if not loss.requires_grad:
            raise ContractBroken(f"{self.who}.adapt learns from a loss without a gradient")
        grads = torch.autograd.grad(loss, self.meta, materialize_grads=True)
        for p, grad in zip(self.meta, grads, strict=True):
            p.grad = grad
        self.meta_optimizer.step()
        self.meta_optimizer.zero_grad(set_to_none=True)
        self.watch(loss.detach())


def make_optimizer(params: Sequence[nn.Parameter], given: MetaOptimizer) -> torch.optim.Optimizer:
    """Build the optimiser of meta-parameters; its steps can be recorded in a CUDA graph."""
    common: dict[str, Any] = {"lr": given.lr, "weight_decay": given.weight_decay, "fused": True}
    if given.kind == "sgd":
        return torch.optim.SGD(params, **common)
    return torch.optim.Adam(params, **common, capturable=True)
