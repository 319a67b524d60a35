"""The learning rate of every step."""

import math
from typing import Any

import torch

from kdbench.grid.settings import Training


def learning_rate(training: Training, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    Args:
        training: learning rate, schedule and epochs of the run.
        epoch: from 1.
        step: in the epoch, from 0.
        steps: per epoch.
    """
    schedule = training.schedule
    if schedule.kind == "step":
        drops = sum(epoch > milestone for milestone in schedule.milestones)
        return training.lr * schedule.factor**drops
    if schedule.kind == "constant":
        return training.lr
    total = training.epochs * steps
    done = (epoch - 1) * steps + step
    warm = int(schedule.warmup * total)
    if done < warm:
        return training.lr * (done + 1) / warm
    return training.lr * 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, total - warm)))


class Rate:
    """The current learning rate of an optimiser: a number on a CPU, a tensor on a GPU.

    A captured step reads the rate from the tensor. Optimisers on a GPU use the tensor in every
    step, because it is a float32 and rounds differently from a number.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = math.nan
        self.tensor = torch.zeros((), device=device) if device.type == "cuda" else None

    def set(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Set the rate of the next step."""
        if self.tensor is not None and rate != self.value:
            self.tensor.fill_(rate)
        self.value = rate
        for group in optimizer.param_groups:
            group["lr"] = rate if self.tensor is None else self.tensor

    def as_number(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return an optimiser's state for a checkpoint, with the rate as a number."""
        for group in state["param_groups"]:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"] = self.value
        return state
