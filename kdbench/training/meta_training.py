"""The methods of a learner that look ahead after each step, and the optimisers of what they train.

``kdbench.look_ahead`` has the look ahead itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.grid.settings import Training
from kdbench.look_ahead import LookAhead, Whole, make_optimizer
from kdbench.method import Batch, ContractBroken, Features, Incompatible, Method
from kdbench.training.epoch_sums import EpochSums
from kdbench.training.phases import Phases
from kdbench.training.ranks import World


class MetaTraining:
    """The look-aheads of a learner, one for each method that overrides ``adapt``.

    Args:
        student: the network or networks in training, not compiled.
        phases: of the student and its methods, which are on the device.
        training: protocol of the run.
        world: the ranks that train the run.

    Raises:
        ContractBroken: ``meta`` returns modules that ``adapt`` does not train.
        Incompatible: the optimiser or the number of ranks does not allow a look ahead.
    """

    def __init__(
        self, student: nn.Module, phases: Phases, training: Training, world: World
    ) -> None:
        self.whole, self.meta = Whole(student, phases.methods), phases.meta
        self.adapting: list[Method] = []
        self.optimizers: list[torch.optim.Optimizer | None] = []
        for method in phases.methods:
            assert isinstance(method, Method)
            who = type(method).__name__
            if method.one_rank and world.size > 1:
                raise Incompatible(f"{who} trains on one rank, this run has {world.size}")
            params = phases.meta.get(method, [])
            if type(method).adapt is Method.adapt:
                if params:
                    raise ContractBroken(f"{who}.meta returns modules, but {who} has no adapt")
                continue
            if params and world.size > 1:
                raise Incompatible(f"{who} looks ahead, which works on one rank: set one_rank")
            if params and training.optimizer:
                raise Incompatible(f"{who} looks ahead with SGD, not with {training.optimizer}")
            self.adapting.append(method)
            own = make_optimizer(params, method.meta_optimizer) if params else None
            self.optimizers.append(own)

    def adapt(
        self, optimizer: torch.optim.Optimizer, t: Features, batch: Batch, sums: EpochSums
    ) -> None:
        """Let every such method look ahead; call this after a step of the run's optimiser.

        Args:
            optimizer: the run's.
            t: the teacher's features of the step, or the student's as constants.
            batch: its batch.
            sums: of the learner, which ends if a loss is not finite.
        """
        for method, meta_optimizer in zip(self.adapting, self.optimizers, strict=True):
            meta = self.meta.get(method, [])
            inner = LookAhead(
                type(method).__name__,
                self.whole,
                optimizer,
                meta,
                meta_optimizer,
                t=t,
                batch=batch,
                watch=sums.watch,
            )
            with _requiring_gradients(meta):
                method.adapt(inner)

    def state(self) -> list[dict[int, dict[str, Tensor]]]:
        """Return the state of every optimiser for a checkpoint, without settings."""
        return [x.state_dict()["state"] if x else {} for x in self.optimizers]

    def load(self, state: Sequence[dict[int, dict[str, Tensor]]]) -> None:
        """Restore the optimisers from a checkpoint; an empty one leaves them as they are.

        Raises:
            ValueError: the state is that of other methods.
        """
        if not state:
            return
        for own, saved in zip(self.optimizers, state, strict=True):
            if own:
                groups: Any = own.state_dict()["param_groups"]
                own.load_state_dict({"state": saved, "param_groups": groups})


@contextmanager
def _requiring_gradients(params: Sequence[nn.Parameter]) -> Iterator[None]:
    """Return a context in which these require gradients; ordinary steps do not pay for them."""
    try:
        for p in params:
            p.requires_grad_(True)
        yield
    finally:
        for p in params:
            p.requires_grad_(False)
