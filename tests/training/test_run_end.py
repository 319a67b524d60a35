"""The end of a run: whatever happens there, the run is finished from what is on the disk."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import alone, data, numbers, stop_after, taught, train

from benchmarks.kills.survey import survey
from benchmarks.kills.trainings import SCENARIOS
from kdbench.grid.run import Run
from kdbench.runs import attempts, heartbeat, records
from kdbench.runs.lease import LeaseLost
from kdbench.runs.records import Record, Result
from kdbench.training import checkpoint, run_end
from kdbench.training.cohort import Stopped
from kdbench.training.learner import Learner
from kdbench.training.run_end import RunEnd


def remove_record(folder: Path, run: Run) -> Record:
    """Bring a run's folder into the state after the final checkpoint."""
    record = records.read(folder, run.id)
    assert record is not None
    for name in ("record.json", "history.csv"):
        (folder / run.id / name).unlink()
    return record


def forbid_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kdbench.training.cohort.Cohort._train_epoch", lambda *_: pytest.fail("trained again")
    )


def test_run_is_finished_from_its_final_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = alone(student="r8w4")
    run = taught(teacher, "semckd")  # traces values
    train([teacher], tmp_path)
    train([run], tmp_path)
    before = numbers(tmp_path, run)
    trace = (tmp_path / run.id / "trace.csv").read_bytes()
    record = remove_record(tmp_path, run)
    (tmp_path / run.id / "trace.csv").unlink()
    attempts.note(tmp_path, run.id, "the machine lost power")
    forbid_steps(monkeypatch)
    finished = train([run], tmp_path)[run.id]
    assert numbers(tmp_path, run) == before
    assert (tmp_path / run.id / "trace.csv").read_bytes() == trace
    assert (finished.cost, finished.environment) == (record.cost, record.environment)
    assert finished.attempts[0].endswith("the machine lost power")
    assert finished.attempts[1] == "finished from the final checkpoint"


def test_final_checkpoint_is_hardly_larger_than_the_weights(tmp_path: Path) -> None:
    run = alone(student="r8w4")
    train([run], tmp_path)
    state = checkpoint.load(tmp_path / run.id)
    assert state is not None
    weights = sum(x.numel() * x.element_size() for x in state["model"].values())
    assert "optimizer" not in state
    assert len(json.dumps(state[run_end.HISTORY])) + len(state[run_end.RECORD]) < weights / 5


def _another_run(result: Result, record: Record) -> Record:
    return replace(record, run="0" * 16)


def _changed(**values: Any) -> Callable[[Result, Record], Record]:
    return lambda result, record: replace(record, result=replace(result, **values))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_another_run, "belongs to run 0000"),
        (_changed(weights="other"), "not those of its record"),
        (_changed(data="other"), "other data"),
        (_changed(teacher_weights="other"), "another teacher"),
    ],
)
def test_final_checkpoint_of_something_else_is_not_used(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Result, Record], Record],
    reason: str,
) -> None:
    run = alone()
    train([run], tmp_path)
    before = numbers(tmp_path, run)
    record = remove_record(tmp_path, run)
    state = checkpoint.load(tmp_path / run.id)
    assert state is not None and record.result is not None
    assert RunEnd.of(state, run.id, data(), None) is not None
    state[run_end.RECORD] = change(record.result, record).to_json()
    checkpoint.save(tmp_path / run.id, state, final=True)
    train([run], tmp_path)
    assert reason in caplog.text and numbers(tmp_path, run) == before


def test_tensorboard_curves_are_written_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = alone()
    for _ in range(2):
        train([run], tmp_path, tensorboard=True)
        assert len(list((tmp_path / run.id / "tensorboard").iterdir())) == 1
        remove_record(tmp_path, run)


def test_record_does_not_depend_on_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writing = pytest.importorskip("torch.utils.tensorboard")

    def broken(*args: Any) -> None:
        raise AttributeError("a tool of another version")

    monkeypatch.setattr(writing, "SummaryWriter", broken)
    run = alone()
    assert train([run], tmp_path, tensorboard=True)[run.id].status == "done"
    assert "no curves for TensorBoard: a tool of another version" in caplog.text


def test_litter_is_swept_when_a_run_is_resumed(tmp_path: Path) -> None:
    run = alone()
    with pytest.raises(Stopped):
        train([run], tmp_path, stop=stop_after(3))
    for name in (".checkpoint.pt.0123456789abcdef.tmp", ".checkpoint.new.pt.4711.tmp"):
        (tmp_path / run.id / name).write_bytes(b"part of a checkpoint")
    (tmp_path / run.id / checkpoint.NEW).write_bytes(b"of an earlier version")
    train([run], tmp_path)
    names = sorted(path.name for path in (tmp_path / run.id).iterdir())
    assert names == ["checkpoint.pt", "history.csv", "record.json", "run.json"]


# --- two writers ----------------------------------------------------------------------------------


def losing(folder: Path, run: Run, call: int) -> Callable[[str], AbstractContextManager[None]]:
    """Return a ``TrainingContext.writing`` during whose n-th call another process ends the run."""
    calls = [0]

    @contextmanager
    def writing(run_id: str) -> Iterator[None]:
        calls[0] += 1
        if calls[0] == call:
            for name in ("checkpoint.pt", "history.csv"):
                (folder / run.id / name).write_text("the other process wrote this")
            records.write(folder, Record(run.id, "failed", "the other process wrote this"))
        yield

    return writing


@pytest.mark.parametrize("call", [1, 2, 3, 6, 7])
def test_writer_that_wakes_up_after_the_record_changes_no_file(tmp_path: Path, call: int) -> None:
    """It was stopped between asking for its lease and renaming its file."""
    run, lines = alone(), list[str]()
    context = {"writing": losing(tmp_path, run, call), "checkpoint_seconds": 0.0}
    record = train([run], tmp_path, report=lambda beats, line: lines.append(line), **context)
    assert record[run.id].reason == "the other process wrote this"
    for name in ("checkpoint.pt", "history.csv"):
        assert (tmp_path / run.id / name).read_text() == "the other process wrote this"
    assert sum("taken over by another process" in line for line in lines) == 1
    assert not list((tmp_path / run.id).glob(".*"))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_writer_without_lease_writes_nothing(tmp_path: Path, call: int) -> None:
    """The last checkpoint, the history and the record of a run are renamed."""
    run, calls, seen = alone(), [0], dict[str, bytes]()

    @contextmanager
    def writing(run_id: str) -> Iterator[None]:
        calls[0] += 1
        if calls[0] == call:
            seen.update({p.name: p.read_bytes() for p in (tmp_path / run.id).glob("[!.]*")})
            raise LeaseLost(run_id)
        yield

    assert not train([run], tmp_path, writing=writing)
    assert {p.name: p.read_bytes() for p in (tmp_path / run.id).iterdir()} == seen


def test_other_learners_continue_when_one_is_lost(tmp_path: Path) -> None:
    lost, kept = alone(student="r8w3"), alone(student="r8w4")
    writing = losing(tmp_path, lost, 1)
    written = train([lost, kept], tmp_path, writing=writing, checkpoint_seconds=0.0)
    assert (written[lost.id].status, written[kept.id].status) == ("failed", "done")


def test_failed_record_and_heartbeat_need_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone()

    @contextmanager
    def writing(run_id: str) -> Iterator[None]:
        raise LeaseLost(run_id)
        yield  # type: ignore[unreachable]

    def broken(*args: Any, **options: Any) -> None:
        raise ValueError("cannot be built")

    monkeypatch.setattr(Learner, "__init__", broken)
    assert not train([run], tmp_path, writing=writing, held=lambda run_id: False)
    assert heartbeat.read(tmp_path, run.id, fresh=False) is None


def test_heartbeat_that_cannot_be_written_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(heartbeat, "write", full)
    run = alone()
    assert train([run], tmp_path, beat_seconds=0.0)[run.id].status == "done"


# --- faults at every file operation ---------------------------------------------------------------


def test_kills_and_full_disks_at_some_operations_lose_nothing(tmp_path: Path) -> None:
    found = survey(SCENARIOS["end, one run"], tmp_path, every=5, first=12)
    assert found.points >= 10
    assert found.clean, found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SCENARIOS)
def test_kills_and_full_disks_lose_nothing(tmp_path: Path, name: str) -> None:
    """``python -m benchmarks.kills`` tries every operation."""
    found = survey(SCENARIOS[name], tmp_path, every=11, first=1)
    assert found.clean, found
