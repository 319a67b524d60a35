"""The device that ``kdbench plan`` plans for, and what the hours of a plan are based on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import shorten

import torch

from kdbench.cost.gpu_speed import SECONDS, GpuSpeed, gpu_of
from kdbench.cost.speed import Speed
from kdbench.errors import UserError
from kdbench.execution.devices import TF32_SINCE
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.training.memory import free_memory
from kdbench.wording import counted


@dataclass(frozen=True)
class PlannedDevice:
    """The device that a grid will train on, as far as it can be told on this machine.

    Attributes:
        gpu: the GPU of this machine; None: a CPU, or the GPU of another machine.
        elsewhere: whether the grid trains on GPUs that this machine does not have.
        name: name of ``gpu``.
        memory: bytes of ``gpu``; 0: unknown.
        capability: compute capability of ``gpu``, e.g. (9, 0).
    """

    gpu: torch.device | None = None
    elsewhere: bool = False
    name: str = ""
    memory: float = 0.0
    capability: tuple[int, int] = (0, 0)

    @property
    def is_gpu(self) -> bool:
        """Whether the grid trains on a GPU, here or elsewhere."""
        return self.gpu is not None or self.elsewhere


def device_of(executor: Executor) -> PlannedDevice:
    """Return the device that a grid trains on.

    Raises:
        UserError: torch cannot use the GPU.
    """
    gpu = gpu_of(executor)
    if gpu is None:
        jobs = executor.kind == "slurm" and executor.device == "auto" and executor.slurm.gpus
        return PlannedDevice(elsewhere=executor.device.startswith("cuda") or bool(jobs))
    try:
        found = torch.cuda.get_device_properties(gpu)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"executor.device: {executor.device}: {gpu} cannot be used: {reason}"
        ) from error
    return PlannedDevice(
        gpu, False, found.name, float(found.total_memory), (found.major, found.minor)
    )


def available(executor: Executor, device: PlannedDevice) -> float | None:
    """Return the bytes that a run can use on this machine's device; None: trained elsewhere."""
    if device.gpu is not None:
        return device.memory
    return None if device.elsewhere or executor.kind == "slurm" else free_memory()


def speed_on(executor: Executor, device: PlannedDevice, exact: bool) -> Speed | GpuSpeed:
    """Return the speed of the device that the grid trains on, or else of this CPU."""
    if device.gpu is None:
        return Speed(executor.threads)
    return GpuSpeed(device.gpu, executor, math.inf if exact else SECONDS)


def source(
    tflops: float | None, executor: Executor, device: PlannedDevice, speed: Speed | GpuSpeed
) -> Iterator[str]:
    """Say what the hours are based on: the device that was measured, or --tflops."""
    threads = f"{counted(executor.threads, 'thread')} per worker"
    if tflops:
        yield f"at {tflops:.3g} TFLOP/s (--tflops)"
    elif device.elsewhere:
        yield f"measured on {speed.device}, but the grid trains on GPUs: --tflops N estimates those"
    elif device.gpu is None:
        yield f"measured on {speed.device}, {threads}"
    else:
        graphs = "without" if executor.graphs == "never" else "where possible with"
        yield f"measured on {speed.device}, {graphs} CUDA graphs"
    for method, reason in (speed.failures if isinstance(speed, GpuSpeed) else {}).items():
        yield shorten(f"{method}: estimated from other runs, not measured: {reason}", 200)


def warnings(executor: Executor, todo: Sequence[Run], device: PlannedDevice) -> Iterator[str]:
    """Warn of settings with which this machine cannot train; the plan may be for another one."""
    if any(run.training.precision == "tf32" for run in todo):
        if not device.is_gpu:
            yield "protocol.precision: tf32 needs a GPU; accepted on a CPU: fp32, bf16"
        elif device.gpu and device.capability < TF32_SINCE:
            capability = ".".join(map(str, device.capability))
            yield (
                f"protocol.precision: tf32 needs a GPU of capability 8.0 or newer; {device.name} "
                f"has {capability}; accepted there: fp32, bf16"
            )
    if executor.graphs == "always" and not device.is_gpu:
        yield "executor.graphs: always needs a GPU; accepted on a CPU: auto, never"
