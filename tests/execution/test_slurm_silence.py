"""Slurm that is not installed, or has not answered yet."""

from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, lines_of, make_runner, run_to_end, slurm
from small_grids import kdbench, write
from tiny_runs import alone

from kdbench.execution.events import Event
from kdbench.execution.slurm.jobs_of_grid import jobs_known
from kdbench.execution.work import JobError

__all__ = ["slurm"]
AWAY = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"


@pytest.mark.parametrize("flags", [(), ("--detach",)])
def test_run_without_slurm_ends_at_once_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = write(tmp_path)
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    result = kdbench("run", "--grid", path, *folders, "--executor", "slurm", *flags)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("kdbench: executor.kind: slurm: this machine lacks Slurm's commands (")
    assert "expected auto, local or debug" in line


def test_runner_gives_up_if_slurm_never_answered(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.faults["sinfo"] = lambda: AWAY
    events: list[Event] = []
    began = slurm.clock.now
    with pytest.raises(JobError, match=r"not answered for 10.0 min, and no job .* \(connect fail"):
        events.extend(make_runner([alone()], tmp_path, slurm).events())
    assert slurm.clock.now - began < 700
    assert lines_of(events).count("\n") == 0
    assert "not submitted yet, trying again: sinfo: slurm_load_partitions" in lines_of(events)
    assert "giving up after 10.0 min without an answer" in lines_of(events)
    assert not jobs_known([alone()], tmp_path)


def test_sbatch_that_never_answers_is_given_up(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.faults["sbatch"] = slurm.faults["squeue"] = lambda: AWAY
    with pytest.raises(JobError, match="no job of this grid is known"):
        run_to_end([alone()], tmp_path, slurm)


def test_runner_waits_for_ever_for_jobs_that_were_submitted(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    first, second = alone(0), alone(1)
    list(make_runner([first], tmp_path, slurm).submit_all())
    assert jobs_known([first], tmp_path) and not jobs_known([second], tmp_path)
    began = slurm.clock.now

    def away() -> str | None:
        return AWAY if slurm.clock.now - began < 3000 else None

    for name in ("sinfo", "squeue", "sacct"):
        slurm.faults[name] = away
    events = run_to_end([first, second], tmp_path, slurm)
    assert "giving up" not in lines_of(events)
    assert slurm.clock.now - began >= 3000
