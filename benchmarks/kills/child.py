"""A process that trains with faults, and notes what it has done."""

import io
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.kills.file_faults import FileFaults
from kdbench.execution.slurm.stop_signals import StopSignals
from kdbench.execution.work import JobError
from kdbench.grid.run import Run
from kdbench.training import checkpoint
from kdbench.training.learner import Learner
from kdbench.training.ranks import RankLost

FAILED, LOST, BROKEN, STOPPED = 2, 9, 70, 143
"""Exit codes: training cannot continue, for a reason in the message; another rank is gone; a
traceback; stopped after the steps that were asked for."""


class SignalsAfterSteps(StopSignals):
    """Signals to a job that come after some steps."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        super().__init__()
        self.asked = asked

    def __getattribute__(self, name: str) -> Any:
        return self.asked() if name == "stop" else super().__getattribute__(name)


def reached(tally: Any, steps: float) -> bool:
    """Check whether the first run has been trained for some steps."""
    return bool(tally[0] >= steps)


def train_with_faults(
    train: Callable[[], int],
    runs: Sequence[Run],
    faults: FileFaults,
    tally: Any,
    notes: Path | None,
    variables: Mapping[str, str],
) -> None:
    """Train with the fault, note what was done, and end the process.

    Args:
        train: trains, and returns the exit code.
        runs: that it trains.
        faults: of this process.
        tally: receives the steps trained, then those in completed checkpoints, of each run.
        notes: receives the operations and the message; None: this is not the first rank.
        variables: of the environment.
    """
    os.environ |= variables
    torch.set_num_threads(1)
    if notes:
        _count_steps(runs, tally)
    faults.install()
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    message = ""
    try:
        code = train()
    except JobError as error:
        code, message = FAILED, str(error)
    except RankLost:
        code = LOST
    except BaseException:
        code, message = BROKEN, traceback.format_exc()
    faults.at = None
    if not message:  # a job prints why it cannot continue
        message = sys.stderr.getvalue().strip().removeprefix("kdbench: ")
    if notes:
        notes.write_text("\n".join(faults.done) + "\0" + message)
    os._exit(code)


def _count_steps(runs: Sequence[Run], tally: Any) -> None:
    """Count the steps that this process trains, and those in completed checkpoints."""
    place = {run.id: i for i, run in enumerate(runs)}
    after_step, save = Learner.after_step, checkpoint.save

    def counted(self: Learner, *args: Any) -> None:
        after_step(self, *args)
        tally[place[self.run.id]] += 1

    def noted(folder: Path, state: Mapping[str, Any], **options: Any) -> None:
        save(folder, dict(state), **options)
        i = place[folder.name]
        tally[len(runs) + i] = state.get("steps_done", 1 << 20)  # the final one has them all

    Learner.after_step = counted  # type: ignore[method-assign, assignment]
    checkpoint.save = noted


def rank_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """Return the environment variables by which a rank finds the others."""
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {key: str(value) for key, value in values.items()}


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
