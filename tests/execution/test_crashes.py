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
