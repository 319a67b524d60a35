"""Commands of ``make table1``, printed by ``make -n``."""

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


NODES = "echo 'main* up infinite 4 idle n[1-4]'"
SILENT = "echo 'Unable to contact slurm controller' >&2; exit 1"


@pytest.mark.parametrize(
    ("programs", "grid"),
    [
        ({}, "demo"),
        ({"sbatch": "exit 0"}, "demo"),
        ({"sbatch": "exit 0", "sinfo": SILENT}, "demo"),
        ({"sbatch": "exit 0", "sinfo": f"{NODES}; exit 1"}, "demo"),
        ({"sbatch": "exit 0", "sinfo": "exit 0"}, "demo"),
        ({"sbatch": "exit 0", "sinfo": NODES}, "table1"),
        ({"timeout": 'test "$1" = 5 && shift && exec "$@"', "sinfo": NODES}, "table1"),
        ({"timeout": "exit 124", "sinfo": NODES}, "demo"),
        ({"nvidia-smi": "echo 'GPU 0: H200'"}, "table1"),
        ({"nvidia-smi": "exit 9"}, "demo"),
        ({"nvidia-smi": "exit 9", "sinfo": NODES}, "table1"),
    ],
)
def test_paper_profile_needs_a_gpu_or_slurm_that_answers(
    tmp_path: Path, programs: dict[str, str], grid: str
) -> None:
    for name, body in programs.items():
        program(tmp_path, name, body)
    assert f"/kdbench run --grid experiments/{grid}.yaml\n" in make(tmp_path, "table1")
    started = (tmp_path / "started").read_text().split() if programs.keys() - {"sbatch"} else []
    assert len(started) == len(set(started))


def test_given_profile_starts_no_program(tmp_path: Path) -> None:
    for name in ("sinfo", "nvidia-smi"):
        program(tmp_path, name, NODES)
    for profile in ("demo", "quick"):
        grid = f"--grid experiments/{profile}.yaml\n"
        assert grid in make(tmp_path, "table1", f"PROFILE={profile}")
    for target in ("help", "lint", "test", "setup"):
        make(tmp_path, target)
    assert not (tmp_path / "started").exists()


def test_other_torch_has_an_environment_of_its_own(tmp_path: Path) -> None:
    commands = make(tmp_path, "--always-make", "test-torch-2.11")
    assert " torch==2.11.0 torchvision==0.26.0\n" in commands
    assert ".venv-2.11/bin/python -m pytest" in commands
    assert ".venv/" not in commands
