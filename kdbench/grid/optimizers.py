"""Optimisers that a protocol can choose instead of SGD: ``optimizer: {dot: {delta: 0.075}}``."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from kdbench.grid.value_types import Real, Strict


class Dot(Strict):
    """DOT: SGD with separate momenta for the task and for distillation.

    With the protocol's momentum mu, the momentum of the cross-entropy is ``mu - delta`` and that
    of the rest of the objective ``mu + delta``.

    Attributes:
        delta: at most mu, and less than 1 - mu; 0.075 on CIFAR-100 and Tiny ImageNet, 0.09 on
            ImageNet.

    Source: Zhao et al., DOT, ICCV 2023 (arXiv:2307.08436).
    """

    delta: Annotated[Real, Field(ge=0, lt=1)] = 0.075


class Optimizer(Strict):
    """The optimiser of a training, with its parameters.

    Attributes:
        dot: for ``dot``.
    """

    dot: Dot

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if not isinstance(values, cls) and (not isinstance(values, dict) or [*values] != ["dot"]):
            raise ValueError("expected {dot: {delta: 0.075}}, or null for SGD")
        return values

    def __str__(self) -> str:
        """Return the optimiser as tables show it."""
        return f"DOT with delta {self.dot.delta:g}"

    def misfit(self, momentum: float, nesterov: bool) -> str:
        """Return why the optimiser does not work with these settings of SGD; "" if it does."""
        delta = self.dot.delta
        if nesterov:
            return "dot has no Nesterov form; expected nesterov: false"
        if delta > momentum or momentum + delta >= 1:
            return (
                f"dot: delta is {delta:g}, expected at most the momentum {momentum:g}, and "
                f"less than {1 - momentum:g}, so that both momenta are in [0, 1)"
            )
        return ""
