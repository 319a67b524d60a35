"""Folder, device and callbacks of a training; none moves a number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdbench.runs.heartbeat import Beat
from kdbench.training.ranks import ALONE, World


@dataclass(frozen=True)
class TrainingContext:
    """Where and how to train; nothing of it moves a number.

    Attributes:
        runs: folder of runs. device: to train on.
        checkpoint_seconds: between checkpoints; 0: after every step.
        stop: asked after every step whether to stop.
        tell: given the learners' heartbeats now and then, and one line for each that has ended.
        held: whether a run, by its id, is still this process's to write; asked before each write
            that counts.
        world: the ranks that train together; the first alone writes and tells.
    """

    runs: Path
    device: torch.device
    checkpoint_seconds: float = 60.0
    beat_seconds: float = 1.0
    tensorboard: bool = False
    stop: Callable[[], bool] = lambda: False
    report: Callable[[Sequence[Beat], str], None] = lambda beats, line: None
    held: Callable[[str], bool] = lambda run_id: True
    world: World = ALONE
