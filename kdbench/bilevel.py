"""Bilevel training: a look ahead on copies, whose outcome trains a method's own networks.

``Method.adapt`` gets an ``Inner``. It takes steps of the run's optimiser on copies, differentiably,
and trains ``Method.meta`` by a loss after them. Nothing else of the run changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor, nn

from kdbench.features import Batch, Features


@dataclass(frozen=True)
class MetaOptimizer:
    """The optimiser of the modules that ``Method.meta`` returns.

    Attributes:
        kind: "adam" or "sgd", the latter without momentum.
        lr: learning rate, constant.
        weight_decay: factor of the L2 term that is added to the gradient.
    """

    kind: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-4
    weight_decay: float = 1e-4


class State(NamedTuple):
    """Copies of what the run's optimiser trains, and of its momenta, by parameter name."""

    params: dict[str, Tensor]
    momenta: dict[str, Tensor]


class Inner(Protocol):
    """What ``Method.adapt`` can do.

    Attributes:
        t: the teacher's features of the step just taken.
        batch: its batch.
    """

    t: Features
    batch: Batch

    @property
    def peers(self) -> Sequence[nn.Module]:
        """The networks of the student, the deployed one first; one without a group."""

    def start(self) -> State:
        """Return copies of the present parameters and momenta."""

    def loss(self, state: State, of: Callable[[Features], Tensor]) -> Tensor:
        """Return ``of`` the student's features at ``state``; batch norms update scratch copies."""

    def step(
        self, state: State, of: Callable[[Features], Tensor], *, second_order: bool = True
    ) -> State:
        """Return the state after one step of the run's optimiser on a loss, differentiably.

        Parameters that the loss does not depend on have gradient zero: they still move by momentum
        and weight decay. With ``second_order=False`` the gradients are constants as functions of
        the state; they still depend on ``Method.meta``.
        """

    def learn(self, loss: Tensor) -> None:
        """Train ``Method.meta`` by one step of its optimiser on ``loss``."""
