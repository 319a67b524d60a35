"""Likely causes of the deaths of training processes, and remedies. Imports no torch."""

import signal

from kdbench.grid.run import Run

OUT_OF_MEMORY = " (out of memory? a smaller executor.cohort or batch_size needs less)"
"""Added for SIGKILL, which Linux sends when memory runs out."""
NATIVE = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
"""Signals of a crash in native code; a damaged heap can end in any of them."""


DEVICE_LOST = 70
"""Exit code of a process whose GPU refused all further work; signals have smaller numbers."""
CRASHES = (*NATIVE, DEVICE_LOST)
"""Deaths that a run may have caused, so that it has to be separated from others."""


def gpu_refuses(error: BaseException) -> str:
    """Return the line of a process that ends with ``DEVICE_LOST``."""
    reason = str(error).partition("\n")[0]
    return f"the GPU refuses all further work of this process: {reason}; checkpoints are intact"


def number(exit_code: int) -> int:
    """Return the signal or ``DEVICE_LOST`` that a ``Process.exitcode`` means; 0: neither."""
    return -exit_code if exit_code < 0 else exit_code if exit_code == DEVICE_LOST else 0


def cause(number: int) -> str:
    """Name a signal, or ``DEVICE_LOST``, and its likely cause."""
    if number == DEVICE_LOST:
        return f"exit code {number}: an error on the GPU, after which it refused all work"
    if number == signal.SIGKILL:
        return f"signal {number}{OUT_OF_MEMORY}"
    if number in NATIVE:
        return f"signal {number}: crash in native code (torch), not in the method"
    return f"signal {number}"


def remedy(number: int, run: Run) -> str:
    """Suggest a remedy if a run's process crashed in native code or on a GPU; else ""."""
    if number == DEVICE_LOST:
        return (
            "; often a method uses an index that is out of range; with CUDA_LAUNCH_BLOCKING=1 "
            "before the command and --set executor.graphs=never, the error names the operation"
        )
    if number not in NATIVE:
        return ""
    networks = f"{run.student} taught by {run.teacher.arch}" if run.teacher else run.student
    return (
        f"; network: {networks}; try another version of torch or, if it ran on a CPU, a GPU "
        "(--set executor.device=cuda) or other kernels (on x86-64: ONEDNN_MAX_CPU_ISA=SSE41 "
        "before the command)"
    )
