"""Why a training process died, as its signal tells it, and what the user can try. No torch here."""

import signal

from kdbench.run import Run

OUT_OF_MEMORY = " (out of memory? a smaller executor.cohort or batch_size needs less)"
"""Added for a process that was killed, as Linux does when memory runs out."""
NATIVE = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
"""Signals of a process whose native code failed; Python code alone cannot cause them."""


def cause(number: int) -> str:
    """The signal, and what it tells: ``signal 11: crash in native code (torch), ...``."""
    if number == signal.SIGKILL:
        return f"signal {number}{OUT_OF_MEMORY}"
    if number in NATIVE:
        return f"signal {number}: crash in native code (torch), not in the method"
    return f"signal {number}"


def remedy(number: int, run: Run) -> str:
    """What to try if a run's process died of a signal in native code; empty for other signals."""
    if number not in NATIVE:
        return ""
    networks = f"{run.student} taught by {run.teacher.arch}" if run.teacher else run.student
    return (
        f"; network: {networks}; try another version of torch, a GPU (--set executor.device=cuda) "
        "or other CPU kernels (ONEDNN_MAX_CPU_ISA=SSE41 before the command)"
    )
