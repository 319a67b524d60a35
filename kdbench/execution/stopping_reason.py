"""Why a process that trains cannot continue, in lines for the user."""

from kdbench.errors import UserError
from kdbench.training.memory import is_out_of_memory
from kdbench.training.ranks import PeerFailed

INTACT = "checkpoints and records so far are intact, the same command resumes from them"


def stopping_reason(error: BaseException) -> str | None:
    """Return why a process cannot continue; None for a defect, which needs its traceback."""
    if isinstance(error, UserError | PeerFailed):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; {INTACT}"
    if is_out_of_memory(error):
        return (
            "out of memory outside a run's training, for instance while reading the data; fewer "
            f"executor.workers or a smaller executor.cohort needs less; {INTACT}"
        )
    return None
