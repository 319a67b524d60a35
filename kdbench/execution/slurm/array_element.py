"""The function that submitit runs in a job; it imports little before it catches signals.

A signal tells a job to stop: USR2 before the time limit or a preemption, TERM when Slurm requeues
or cancels it. The handlers only set a flag, which the trainer reads after every step, so that no
``except Exception`` in a training loop can swallow a signal.
"""

import os
import sys
from pathlib import Path

from submitit.core.utils import DelayedSubmission

from kdbench.execution.slurm.stop_signals import StopSignals


class Element:
    """An element of a job array, pickled by submitit and called on the node.

    Attributes:
        folder: of the submission.
        index: of the element in the array.
    """

    def __init__(self, folder: str, index: int) -> None:
        self.folder, self.index = folder, index

    def __call__(self) -> None:
        """Train the element's runs; exit with 0 if every run has a record and none failed."""
        signals = StopSignals()
        signals.catch()
        from kdbench.execution.slurm import job  # imports torch

        code = job.train(Path(self.folder), self.index, signals)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # Threads of gloo or nccl may outlive the interpreter and abort the process.
            sys.stdout.flush()
            os._exit(code)
        if code:
            sys.exit(code)

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit requeues after a signal that arrives before ``catch``."""
        return DelayedSubmission(self)
