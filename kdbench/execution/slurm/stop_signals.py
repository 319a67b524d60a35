"""Flags that the signals USR2 and TERM set."""

import signal


class StopSignals:
    """The signals that a job has received.

    Attributes:
        stop: write checkpoints and exit.
        requeue: also ask Slurm to start the job again.
    """

    def __init__(self) -> None:
        self.stop = self.requeue = False

    def catch(self) -> None:
        """Install the signal handlers."""
        signal.signal(signal.SIGUSR2, self._again)
        signal.signal(signal.SIGTERM, self._end)

    def _again(self, *_: object) -> None:
        self.stop = self.requeue = True

    def _end(self, *_: object) -> None:
        self.stop = True
