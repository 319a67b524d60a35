"""The learning rate of every step."""

import math

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
