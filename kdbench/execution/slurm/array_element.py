"""What submitit runs in a job: as little as possible before the signals are caught.

A job is told to stop by a signal: USR2 before the time limit or a preemption, TERM when Slurm
requeues or cancels it. Both only raise a flag that the trainer looks at after every step; so no
``except Exception`` in a training loop can swallow them.
"""

import os
import sys
from pathlib import Path

from submitit.core.utils import DelayedSubmission

from kdbench.execution.slurm.stop_signals import StopSignals


class Element:
    """One element of an array, called on its node.

    Attributes:
        folder: of the submission. index: of the element.
    """

    def __init__(self, folder: str, index: int) -> None:
        self.folder, self.index = folder, index

    def __call__(self) -> None:
        """Train; ends the process with 0 when every run has a record and none failed."""
        flags = StopSignals()
        flags.catch()
        from kdbench.execution.slurm import job  # imports torch

        code = job.train(Path(self.folder), self.index, flags)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # The threads of gloo or nccl may outlive the interpreter, which would abort it.
            sys.stdout.flush()
            os._exit(code)
        if code:
            sys.exit(code)

    def checkpoint(self) -> DelayedSubmission:
        """For a signal that comes before ``catch``: submitit then requeues this."""
        return DelayedSubmission(self)
