"""What make trains and installs, with pretended programs."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")


def make(tools: Path, *args: str) -> str:
    """Run ``make -n`` with no programs except those in a folder."""
    done = subprocess.run(
        [str(MAKE), "-n", *args], env={"PATH": str(tools)}, cwd=ROOT, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def program(tools: Path, name: str, body: str) -> None:
    """Write a program that logs each start of itself in ``started``."""
    file = tools / name
    file.write_text(f"#!/bin/sh\necho {name} >> {tools}/started\n{body}\n")
    file.chmod(0o755)


def recipe(tools: Path, target: str, venv: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a target for real, with an environment that is already installed."""
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    (venv / ".kdbench-installed").touch()
    program(venv / "bin", "kdbench", 'test "$1" != plan || echo "1,000.0 h of training"')
    return subprocess.run(
        [str(MAKE), target, f"VENV={venv}", *args], env={"PATH": f"{tools}:/usr/bin:/bin"},
        cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["nvidia-smi", "sinfo"])
def test_table1_is_the_demo_on_any_machine(tmp_path: Path, name: str) -> None:
    program(tmp_path, name, "echo 'GPU 0: H200'")
    for target in ("table1", "demo"):
        assert "/kdbench run --grid experiments/demo.yaml\n" in make(tmp_path, target)
    for target in ("help", "lint", "test", "setup"):
        make(tmp_path, target)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(("target", "grid"), [("quick", "quick"), ("paper", "table1")])
def test_large_tables_start_only_if_asked(tmp_path: Path, target: str, grid: str) -> None:
    venv = tmp_path / "venv"
    refused = recipe(tmp_path, target, venv)
    assert refused.returncode == 2 and not (venv / "bin" / "started").exists()
    assert "no terminal to ask: repeat make with YES=1" in refused.stderr.splitlines()[0]
    done = recipe(tmp_path, target, venv, "YES=1")
    assert done.returncode == 0 and "1,000.0 h of training" in done.stdout
    assert f"kdbench run --grid experiments/{grid}.yaml" in done.stdout
    assert (venv / "bin" / "started").read_text().split() == ["kdbench", "kdbench"]


def test_profiles_of_earlier_versions_are_refused(tmp_path: Path) -> None:
    done = recipe(tmp_path, "table1", tmp_path / "venv", "PROFILE=paper")
    assert done.returncode == 2 and "make quick, make paper" in done.stderr
    assert not (tmp_path / "venv" / "bin" / "started").exists()


# --- installation ---------------------------------------------------------------------------------

PYTHON = """case "$*" in
*'import torch, '*) exit {torch} ;;
*'-m venv'*) for venv; do :; done; mkdir -p "$venv/bin"; cp "$0" "$venv/bin/python"; exit {venv} ;;
*urlopen*) exit {index} ;;
*'pip install'*) echo "$*" >> {log} ;;
esac"""


def setup(
    tools: Path, *args: str, torch: int = 0, venv: int = 0, index: int = 0
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Install with a pretended Python, and return what pip was told."""
    log = tools / "pip"
    body = PYTHON.format(torch=torch, venv=venv, index=index, log=log)
    program(tools, "python", body)
    for name in ("cp", "mkdir", "rm", "sh", "touch", "uname"):  # without this machine's Slurm
        (tools / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [str(MAKE), "setup", f"VENV={tools / 'venv'}", f"PYTHON={tools / 'python'}", *args],
        env={"PATH": str(tools)}, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done, log.read_text() if log.exists() else ""


def test_missing_torch_is_found_before_anything_is_downloaded(tmp_path: Path) -> None:
    done, pip = setup(tmp_path, "TORCH=none", torch=1)
    assert done.returncode == 2 and pip == "" and not (tmp_path / "venv").exists()
    assert "has no torch with torchvision" in done.stderr.splitlines()[0]


def test_torch_of_the_python_is_used(tmp_path: Path) -> None:
    done, pip = setup(tmp_path, "TORCH=none")
    assert done.returncode == 0 and "torch" not in pip.replace("/torch", "") and "--editable" in pip


def test_environment_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    done, pip = setup(tmp_path, venv=1)
    assert done.returncode == 2 and pip == "" and not (tmp_path / "venv").exists()


def test_environment_without_pip_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    program(tmp_path / "venv" / "bin", "python", "exit 1")
    done, pip = setup(tmp_path)
    assert done.returncode == 0 and "--editable" in pip


@pytest.mark.parametrize(
    ("programs", "args", "index", "url"),
    [
        ({}, (), 0, "https://download.pytorch.org/whl/cpu"),
        ({}, (), 1, None),
        ({"nvidia-smi": "echo 'GPU 0: H200'"}, (), 0, None),
        ({"nvidia-smi": "exit 9"}, (), 0, "https://download.pytorch.org/whl/cpu"),
        ({"sbatch": "exit 0"}, (), 0, None),
        ({}, ("TORCH_INDEX=https://mine",), 0, "https://mine"),
    ],
)
def test_small_torch_where_no_gpu_will_be_used(
    tmp_path: Path, programs: dict[str, str], args: tuple[str, ...], index: int, url: str | None
) -> None:
    for name, body in programs.items():
        program(tmp_path, name, body)
    done, pip = setup(tmp_path, *args, index=index)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in pip.splitlines() if "torch==" in line]
    assert (f"--index-url {url}" if url else "quiet torch==") in line


def test_other_torch_has_an_environment_of_its_own(tmp_path: Path) -> None:
    commands = make(tmp_path, "--always-make", "test-torch-2.11")
    assert "pip install --quiet torch==2.11.0 torchvision==0.26.0; }" in commands
    assert ".venv-2.11/bin/python -m pytest" in commands
    assert ".venv/" not in commands
