"""Setup of all tests: one thread, tools that may be absent, the count of golden tensors."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from required_tools import required

torch.set_num_threads(1)
# On a busy machine, the duration of an example says nothing about the code.
settings.register_profile("kdbench", deadline=None)
settings.load_profile("kdbench")

TOOLS = {
    "slurm": ("sbatch",),
    "browser": ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell"),
}
"""Marker -> programs; one of them suffices."""
GPU_TESTS_ON = "KDBENCH_GPU_TESTS_ON"
"""Variable with the device of the tests with the marker ``gpu``; by default the first GPU. With
``cpu``, they run with tiny networks on a CPU, to test the tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of absent tools, unless ``KDBENCH_REQUIRE=slurm,browser,gpu`` lists the tool."""
    for marker, programs in TOOLS.items():
        if required(marker) or any(map(shutil.which, programs)):
            continue
        reason = f"needs {' or '.join(programs)}; KDBENCH_REQUIRE={marker} makes that a failure"
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    if required("gpu") or os.environ.get(GPU_TESTS_ON) or torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            reason = "torch finds no GPU; KDBENCH_REQUIRE=gpu makes that a failure"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def machine_file(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the results of ``kdbench doctor --tune`` out of the user's cache."""
    file = tmp_path_factory.getbasetemp() / "no" / "machine.json"
    monkeypatch.setenv("KDBENCH_MACHINE", str(file))
    return file


@pytest.fixture
def golden_tally(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Return a function that records the number of tensors that a golden case compared."""

    def add(count: int) -> None:
        request.node.user_properties.append(("golden_tensors", count))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the numbers of golden cases and tensors that were compared, also under xdist."""
    counts = [
        count
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, count in report.user_properties
        if name == "golden_tensors"
    ]
    if counts:
        terminalreporter.write_line(
            f"golden: {len(counts)} cases agree, {sum(counts)} tensors compared"
        )


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Make child processes react to Ctrl-C, even if a background shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
