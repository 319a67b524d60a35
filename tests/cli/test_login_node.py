"""A large grid on a login node is trained only where the command says so."""

from pathlib import Path

import pytest
from click.testing import Result
from small_grids import kdbench, mistakes, write

from kdbench.cli import login_node, run_grid
from kdbench.grid.expand import expand
from kdbench.grid.grid import Executor
from kdbench.grid.parsing import load
from kdbench.grid.yaml_tree import ROOT


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pretend to be on a login node, and return what is trained or submitted."""
    kinds: list[str] = []
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(login_node, "has_slurm", lambda: True)
    monkeypatch.setattr(login_node, "_answers", lambda: True)

    def train(*settings: object, **_: object) -> None:
        kinds.extend(value.kind for value in settings if isinstance(value, Executor))

    monkeypatch.setattr(run_grid, "train", train)
    return kinds


def run(folder: Path, grid: Path, *flags: str) -> Result:
    folders = ("--runs", folder / "runs", "--results", folder / "results")
    return kdbench("run", "--grid", grid, *folders, *flags)


def paper(folder: Path) -> Path:
    protocol = {"preset": "semckd"}
    return write(folder, dataset="cifar100", protocol=protocol, seeds=list(range(5)), executor={})


def test_large_grid_is_not_trained_unasked(tmp_path: Path, started: list[str]) -> None:
    grid = paper(tmp_path)
    [line] = mistakes("run", "--grid", grid, "--runs", tmp_path / "runs")
    assert line.startswith(f"{grid}: Slurm answers here") and started == []
    assert "--executor slurm" in line and "--executor local" in line


@pytest.mark.parametrize(
    "flags", [("--executor", "local"), ("--executor", "slurm"), ("--set", "executor.kind=local")]
)
def test_named_executor_is_obeyed(
    tmp_path: Path, started: list[str], flags: tuple[str, str]
) -> None:
    done = run(tmp_path, paper(tmp_path), *flags)
    assert done.exit_code == 0 and started == [flags[1].removeprefix("executor.kind=")]


@pytest.mark.parametrize("case", ["job", "no Slurm", "silent", "small"])
def test_other_machines_and_small_grids_train(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    if case == "job":
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    elif case == "no Slurm":
        monkeypatch.setattr(login_node, "has_slurm", lambda: False)
    elif case == "silent":
        monkeypatch.setattr(login_node, "_answers", lambda: False)
    grid = write(tmp_path) if case == "small" else paper(tmp_path)
    done = run(tmp_path, grid)
    assert done.exit_code == 0 and len(started) == 1


@pytest.mark.parametrize(("name", "large"), [("demo", False), ("quick", False), ("table1", True)])
def test_only_the_papers_grids_are_large(
    tmp_path: Path, started: list[str], name: str, large: bool
) -> None:
    grid = load(ROOT / "experiments" / f"{name}.yaml")
    runs = expand(grid).runs
    if large:
        with pytest.raises(ValueError, match="--executor slurm"):
            login_node.check(Executor(), runs, tmp_path, grid.source, asked=False)
    else:
        login_node.check(Executor(), runs, tmp_path, grid.source, asked=False)
