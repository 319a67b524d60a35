"""The environment of a result: the version of a GPU's driver."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdbench.runs import environment


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Look for the driver's file in an empty folder, and forget the answer of this machine."""
    monkeypatch.setattr(environment, "DRIVER_FILE", tmp_path / "version")
    environment.gpu_driver.cache_clear()
    yield
    environment.gpu_driver.cache_clear()


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
            "535.104.05",
        ),
        ("NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
    ],
)
def test_driver_is_read_from_the_kernel_modules_file(
    tmp_path: Path, line: str, version: str
) -> None:
    text = f"NVRM version: {line}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1)\n"
    (tmp_path / "version").write_text(text)
    assert environment.gpu_driver() == version


def test_driver_is_asked_of_nvidia_smi_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def run(command: list[str], **options: Any) -> Any:
        calls.append((command[0], options["timeout"]))
        return SimpleNamespace(stdout="580.65.06\n580.65.06\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert [environment.gpu_driver() for _ in range(2)] == ["580.65.06"] * 2
    assert calls == [("nvidia-smi", 10)]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "no nvidia-smi"), subprocess.TimeoutExpired("nvidia-smi", 10)]
)
def test_unknown_driver_is_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def run(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert environment.gpu_driver() is None


def test_facts_of_a_gpu_are_part_of_the_description_and_absent_on_a_cpu() -> None:
    on_cpu = environment.describe("cpu", 1, "AVX2")
    assert list(on_cpu)[-8:] == [
        "device", "threads", "cores", "processor", "cpu_capability", "onednn_limit", "system",
        "host",
    ]  # fmt: skip
    on_gpu = environment.describe("A GPU", 1, "AVX2", {"cuda": "13.0"})
    assert on_gpu == on_cpu | {"device": "A GPU", "cuda": "13.0"}
