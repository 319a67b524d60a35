"""A runner says whom it waits for, once."""

from pathlib import Path

import pytest
from debug_runner import DEBUG, train_all
from tiny_runs import TRAINING, alone, taught

from kdbench.execution import waiting
from kdbench.execution.waiting import Waiting
from kdbench.runs import lease, records
from kdbench.runs.owner import Owner

NODE7 = Owner("node7", "another boot", 1, "1")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.0)


def test_holder_of_the_only_runs_is_named_once(tmp_path: Path) -> None:
    runs = [alone(seed) for seed in range(2)]
    student = taught(alone(student="r8w4"), "kd")  # waits for its teacher, like everybody
    leases = [lease.acquire(tmp_path / run.id, NODE7) for run in runs]
    looking = Waiting(tmp_path)
    line = looking.line([*runs, student])
    assert line.startswith("waiting for node7 (pid 1), which holds 2 runs; last sign ")
    assert line.endswith("taken over after 2.0 min of silence")
    assert looking.line([*runs, student]) == ""
    for held in leases:
        assert held is not None
        held.release()


def test_nothing_is_said_while_a_run_is_free_or_in_training_here(tmp_path: Path) -> None:
    first, second = alone(0), alone(1)
    theirs = lease.acquire(tmp_path / first.id, NODE7)
    assert theirs is not None
    assert Waiting(tmp_path).line([first, second]) == ""
    mine = lease.acquire(tmp_path / second.id, Owner.me())
    assert mine is not None
    assert Waiting(tmp_path).line([first, second], {Owner.me().process}) == ""
    assert "which holds 1 run;" in Waiting(tmp_path).line([first, second])
    mine.release()
    theirs.release()


def test_runner_says_whom_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbench.runs.signs_of_life.STALE_SECONDS", 2.0)
    run = alone(training=TRAINING.model_copy(update={"epochs": 1}))
    theirs = lease.acquire(tmp_path / run.id, NODE7)
    assert theirs is not None
    lease._forget(theirs)  # the lost process does not renew it
    events = train_all([run], tmp_path, DEBUG)
    lines = [event.line for event in events if event.line]
    assert len(lines) == 1 and lines[0].startswith("waiting for node7 (pid 1), which holds 1 run;")
    record = records.read(tmp_path, run.id)
    assert record is not None and record.status == "done"
