"""Likely causes of the signals that end training processes, and remedies. Imports no torch."""

import signal

from kdbench.grid.run import Run

OUT_OF_MEMORY = " (out of memory? a smaller executor.cohort or batch_size needs less)"
"""Added for SIGKILL, which Linux sends when memory runs out."""
NATIVE = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
"""Signals of a crash in native code; a damaged heap can end in any of them."""


def cause(number: int) -> str:
    """Name a signal and its likely cause."""
    if number == signal.SIGKILL:
        return f"signal {number}{OUT_OF_MEMORY}"
    if number in NATIVE:
        return f"signal {number}: crash in native code (torch), not in the method"
    return f"signal {number}"


def remedy(number: int, run: Run) -> str:
    """Suggest a remedy if native code crashed in a run's process; "" for other signals."""
    if number not in NATIVE:
        return ""
    networks = f"{run.student} taught by {run.teacher.arch}" if run.teacher else run.student
    return (
        f"; network: {networks}; try another version of torch or, if it ran on a CPU, a GPU "
        "(--set executor.device=cuda) or other kernels (on x86-64: ONEDNN_MAX_CPU_ISA=SSE41 "
        "before the command)"
    )
