"""A check of ``benchmarks.gpu_check`` on the device that the tests run on."""

import os
from collections.abc import Iterator

import pytest
import torch

from benchmarks.gpu_check import sizes
from benchmarks.gpu_check.check import Check
from kdbench.training import device as devices


@pytest.fixture(scope="session")
def check(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Check]:
    """Return a check without time limit; its device is ready for training."""
    device = torch.device(os.environ.get("KDBENCH_GPU_TESTS_ON") or "cuda:0")
    devices.prepare(device)
    on_cpu = device.type == "cpu"
    folder = tmp_path_factory.mktemp("gpu")
    chosen = sizes.small() if on_cpu else sizes.real()
    yield Check(device, str(device), chosen, folder, folder, small=on_cpu)
