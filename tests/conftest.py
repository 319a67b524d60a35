"""What all tests share: one thread, tools that may be absent, the golden tally."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from required_tools import required

torch.set_num_threads(1)
# How long an example takes says nothing about the code on a busy machine.
settings.register_profile("kdbench", deadline=None)
settings.load_profile("kdbench")

TOOLS = {
    "slurm": ("sbatch",),
    "browser": ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell"),
}
"""Marker -> programs, any of which will do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an absent tool, unless ``KDBENCH_REQUIRE=slurm,browser`` lists it."""
    for marker, programs in TOOLS.items():
        if required(marker) or any(map(shutil.which, programs)):
            continue
        reason = f"needs {' or '.join(programs)}; KDBENCH_REQUIRE={marker} makes that a failure"
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def machine_file(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``kdbench doctor --tune`` keeps its figures in tests: not in the user's cache."""
    file = tmp_path_factory.getbasetemp() / "no" / "machine.json"
    monkeypatch.setenv("KDBENCH_MACHINE", str(file))
    return file


@pytest.fixture
def golden_tally(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Call it with the number of tensors a golden case compared; the test's properties keep it."""

    def add(count: int) -> None:
        request.node.user_properties.append(("golden_tensors", count))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many golden cases and tensors were compared, under xdist too."""
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
    """Processes started here heed Ctrl-C, even if a shell in the background had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
