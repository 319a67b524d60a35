"""Causes and remedies of signals that end training processes."""

import pytest
from tiny_runs import alone

from kdbench.execution import crashes


@pytest.mark.parametrize("number", crashes.NATIVE)
def test_crash_in_native_code_is_distinguished_from_other_deaths(number: int) -> None:
    assert {4, 6, 11} <= set(crashes.NATIVE)
    assert "crash in native code (torch), not in the method" in crashes.cause(number)
    assert "network: r8w3; try" in crashes.remedy(number, alone())
    for other in (1, 9, 15):
        assert "native" not in crashes.cause(other) + crashes.remedy(other, alone())
    assert "out of memory?" in crashes.cause(9)


def test_lost_gpu_is_a_cause_of_its_own_with_a_remedy() -> None:
    assert crashes.number(-11) == 11
    assert crashes.number(crashes.DEVICE_LOST) == crashes.DEVICE_LOST
    assert crashes.number(9) == crashes.number(0) == 0
    assert "an error on the GPU" in crashes.cause(crashes.DEVICE_LOST)
    assert "CUDA_LAUNCH_BLOCKING=1" in crashes.remedy(crashes.DEVICE_LOST, alone())
    assert crashes.DEVICE_LOST not in crashes.NATIVE
