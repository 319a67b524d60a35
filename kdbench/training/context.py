"""Folder, device and callbacks of a training; none changes a result."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from kdbench.runs.heartbeat import Beat
from kdbench.training.ranks import ALONE, World


@dataclass(frozen=True)
class TrainingContext:
    """Folder, device and callbacks of a training; none changes a result.

    Attributes:
        runs: folder of all runs.
        device: device to train on.
        checkpoint_seconds: seconds between checkpoints, more if writing them takes over 1 % of the
            time; 0: one after every step.
        beat_seconds: seconds between heartbeats.
        graphs: as ``executor.graphs``: auto, always or never.
        streams: as ``executor.streams``.
        tensorboard: also write curves for TensorBoard.
        stop: called after every step; training stops if it returns True.
        report: called with the learners' heartbeats, and with a line for every run that ends.
        held: returns whether this process still holds a run's lease, by the run's id; called
            before a file is written.
        writing: returns the context in which a file of a run is put in place, by the run's id;
            entering it raises ``LeaseLost`` if another process has taken the lease.
        world: the ranks that train together; only the first writes and reports.
    """

    runs: Path
    device: torch.device
    checkpoint_seconds: float = 60.0
    beat_seconds: float = 1.0
    graphs: str = "auto"
    streams: int = 4
    tensorboard: bool = False
    stop: Callable[[], bool] = lambda: False
    report: Callable[[Sequence[Beat], str], None] = lambda beats, line: None
    held: Callable[[str], bool] = lambda run_id: True
    writing: Callable[[str], AbstractContextManager[object]] = lambda run_id: nullcontext()
    world: World = ALONE
