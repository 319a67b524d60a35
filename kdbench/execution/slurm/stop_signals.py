"""USR2 and TERM as flags."""

import signal


class StopSignals:
    """Which signals have come.

    Attributes:
        stop: leave checkpoints and end. requeue: and ask Slurm to start the job again.
    """

    def __init__(self) -> None:
        self.stop = self.requeue = False

    def catch(self) -> None:
        """From now on."""
        signal.signal(signal.SIGUSR2, self._again)
        signal.signal(signal.SIGTERM, self._end)

    def _again(self, *_: object) -> None:
        self.stop = self.requeue = True

    def _end(self, *_: object) -> None:
        self.stop = True
