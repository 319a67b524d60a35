"""How long a runner waits for a Slurm that does not answer."""

from kdbench.execution.slurm.board import Board
from kdbench.execution.slurm.submit import NotNow
from kdbench.execution.work import JobError
from kdbench.wording import duration

GIVE_UP_SECONDS = 600.0
"""How long to wait if no job is known, so that nothing would be lost by giving up."""


class Silence:
    """The time since Slurm last answered, while runs are to be submitted.

    Args:
        board: tells whether jobs are known; a runner watches those forever.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self._since: float | None = None

    def over(self) -> None:
        """Note that Slurm has answered."""
        self._since = None

    def note(self, error: NotNow, now: float) -> str:
        """Note why nothing was submitted; return the time limit, if there is one, for a message."""
        if not error.silent:
            self.over()
            return ""
        if self._since is None:
            self._since = now
        if self._any_job():
            return ""
        return f"; giving up after {duration(GIVE_UP_SECONDS)} without an answer"

    def check(self, now: float) -> None:
        """Give up if it is time.

        Raises:
            JobError: Slurm has not answered for ``GIVE_UP_SECONDS``, and no job is known.
        """
        if self._since is None or now - self._since < GIVE_UP_SECONDS or self._any_job():
            return
        raise JobError(
            f"Slurm has not answered for {duration(GIVE_UP_SECONDS)}, and no job of this grid is "
            f"known; repeat the command later ({self.board.trouble})"
        )

    def _any_job(self) -> bool:
        return any(track.job is not None for track in self.board.tracks.values())
