"""Status, show and retry, for hand-made records and heartbeats."""

import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_grids import done, make_record
from rich.console import Console
from small_grids import cell, expanded, kdbench, small, write

from kdbench.cli import show, status
from kdbench.execution import retry as retrying
from kdbench.grid.expand import Expansion
from kdbench.grid.run import Run
from kdbench.runs import heartbeat, lease, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record
from kdbench.training import checkpoint


def beat(run: Run, **changes: Any) -> Beat:
    made = Beat(
        run=run.id, cohort="c", title=run.title, phase="train", epoch=3, epochs=9, step=1, steps=4,
        images_per_s=1234.5, acc=81.25, eta=75.0, pid=1, host="h", at=time.time(),
    )  # fmt: skip
    return replace(made, **changes)


def text(renderable: Any, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable, markup=False, highlight=False)
    return console.export_text()


@pytest.fixture
def grid() -> Expansion:
    return expanded(methods=["kd", "at"], seeds=[0, 1], pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"])


def test_states_of_runs(grid: Expansion) -> None:
    kd, at = cell(grid, "kd").runs, cell(grid, "at").runs
    teacher, other = cell(grid, "teacher").runs[0], cell(grid, "teacher", 1).runs[0]
    ended = {
        teacher.id: make_record(teacher, 90.0),
        other.id: Record(other.id, "diverged", "loss not finite"),
        kd[0].id: make_record(kd[0], 80.0),
        at[0].id: Record(at[0].id, "failed", "ValueError: x"),
        at[1].id: Record(at[1].id, "skipped", "never"),
    }
    states = status.states(grid.runs, ended, {kd[1].id: beat(kd[1])})
    assert [states[run.id] for run in (teacher, other, *kd, *at)] == [
        "done", "diverged", "done", "running", "failed", "skipped",
    ]  # fmt: skip
    assert [states[run.id] for run in cell(grid, "student").runs] == ["pending", "pending"]
    assert [states[run.id] for run in cell(grid, "kd", 1).runs] == ["blocked", "blocked"]
    assert status.count(states.values()) == (
        "2 done, 1 running, 2 pending, 4 blocked, 1 diverged, 1 failed, 1 skipped"
    )


def test_status_names_the_holder_of_a_run_without_heartbeat(
    grid: Expansion, tmp_path: Path
) -> None:
    run = cell(grid, "kd").runs[1]
    theirs = lease.acquire(tmp_path / run.id, Owner("node7", "another boot", 1, "1"))
    assert theirs is not None
    tomorrow = time.time() + 86460
    os.utime(theirs.path, (tomorrow, tomorrow))
    heartbeat.write(tmp_path, beat(run, at=tomorrow))  # proves nothing
    config = small(methods=["kd", "at"], seeds=[0, 1], pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"])
    output = text(status.render(config, grid, tmp_path), 200)
    assert (
        "1 held, 1 pending; seed 1: held by node7 (pid 1), last sign dated 24.0 h in the future by "
        "a wrong clock"
    ) in output
    assert "12 runs: 1 held, 11 pending" in output
    theirs.release()


def test_student_of_a_blocked_teacher_is_blocked() -> None:
    row = {"hkd": {"auxiliary": {"student": "r8w8", "method": "pkt"}}}
    grid = expanded(methods=[row])
    teacher, alone, helper, run = grid.runs
    failed = {teacher.id: Record(teacher.id, "failed", "x")}
    states = status.states(grid.runs, failed, {})
    assert [states[r.id] for r in (alone, helper, run)] == ["pending", "blocked", "blocked"]
    [helper_row, *_] = list(status.rows(grid))
    assert (helper_row[0], helper_row[1].method) == ("r8w4 -> r8w8", "pkt (auxiliary)")


def test_status_has_one_line_per_cell(grid: Expansion, tmp_path: Path) -> None:
    kd, at = cell(grid, "kd").runs, cell(grid, "at").runs
    for run in grid.runs:
        records.write_run(tmp_path, run)
    records.write(tmp_path, make_record(kd[0], 80.0))
    heartbeat.write(tmp_path, beat(kd[1]))
    heartbeat.write(tmp_path, beat(at[1], at=time.time() - 1000))
    records.write(tmp_path, Record(at[0].id, "failed", "ValueError: [a] bad shape"))
    config = small(methods=["kd", "at"], seeds=[0, 1], pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"])
    output = text(status.render(config, grid, tmp_path))
    assert "1 done, 1 running; 80.00 %; seed 1: epoch 3/9, 81.2 %, 1.2 min to go" in output
    assert "1 pending, 1 failed; seed 0: ValueError: [a] bad shape" in output
    assert "12 runs: 1 done, 1 running, 9 pending, 1 failed" in output
    assert output.count("r8w4 -> r8w3") == 1
    assert all(len(line) <= 80 for line in text(status.render(config, grid, tmp_path), 80).split())


def test_watching_ends_if_no_run_is_pending(
    grid: Expansion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(methods=["kd", "at"], seeds=[0, 1], pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"])
    for run in grid.runs:
        if run.teacher is None:
            records.write_run(tmp_path, run)
            records.write(tmp_path, Record(run.id, "failed", "x"))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits without need"))
    status.show_live(config, grid, tmp_path)


def test_retry_sets_failed_records_aside(grid: Expansion, tmp_path: Path) -> None:
    path = write(tmp_path, methods=["kd", "at"], seeds=[0, 1],
                 pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"])  # fmt: skip
    kd, at, alone = (cell(grid, name).runs for name in ("kd", "at", "student"))
    for run, outcome in (
        (kd[0], "failed"),
        (kd[1], "diverged"),
        (at[0], "skipped"),
        (at[1], "failed"),
    ):
        records.write_run(tmp_path, run)
        records.write(tmp_path, Record(run.id, outcome, "why"))  # type: ignore[arg-type]
    records.write_run(tmp_path, alone[0])
    records.write(tmp_path, make_record(alone[0], 70.0))

    def retry(*flags: str) -> list[str]:
        result = kdbench("retry", "--grid", path, "--runs", tmp_path, *flags)
        assert result.exit_code == 0
        return [line.split()[0] for line in result.stdout.splitlines()]

    assert retry("--diverged") == [kd[1].id]
    assert not (tmp_path / kd[1].id / "record.json").exists()
    old = json.loads((tmp_path / kd[1].id / "record.previous.json").read_text())
    assert old["status"] == "diverged"
    assert retry("--failed") == [kd[0].id, at[1].id]
    assert retry() == []
    assert records.read(tmp_path, at[0].id) and records.read(tmp_path, alone[0].id)


def test_retry_includes_damaged_teachers(grid: Expansion, tmp_path: Path) -> None:
    good, bad = cell(grid, "teacher").runs[0], cell(grid, "teacher", 1).runs[0]
    for run in (good, bad):
        records.write_run(tmp_path, run)
        record = make_record(run, 90.0)
        assert record.result is not None
        result = replace(record.result, weights=checkpoint.digest({}))
        records.write(tmp_path, replace(record, result=result))
        checkpoint.save(tmp_path / run.id, {"model": {}}, final=True)
    (tmp_path / bad.id / "checkpoint.pt").write_bytes(b"PK damaged")
    assert retrying.forget(grid, tmp_path, {"failed"}) == [bad]
    assert records.read(tmp_path, good.id) is not None


def test_show_describes_a_run(grid: Expansion, tmp_path: Path) -> None:
    run = cell(grid, "kd").runs[0]
    records.write_run(tmp_path, run)
    assert "not finished" in text(show.describe_run(tmp_path, run.id))
    heartbeat.write(tmp_path, beat(run))
    assert "running, epoch 3/9" in text(show.describe_run(tmp_path, run.id[:5]))
    record = replace(
        make_record(run, 81.5), status="failed", reason="why", traceback="line 1\nline 2\n",
        attempts=("resumed at epoch 2",),
    )  # fmt: skip
    assert record.result is not None
    result = replace(record.result, epoch=100, test_acc=50.0, best_acc=50.0, best_epoch=100)
    record = replace(record, result=result)
    records.write(tmp_path, record)
    history = "epoch,train_loss,train_acc,test_loss,test_acc,seconds\n"
    history += "".join(f"{i},1.5,50,1.25,{i / 2},9\n" for i in range(1, 101))
    (tmp_path / run.id / "history.csv").write_text(history)
    output = text(show.describe_run(tmp_path, run.id), 500)
    for part in ("failed: why", '"test_acc": 50.0', "line 2", "attempt: resumed at epoch 2",
                 '"teacher": {"arch": "r8w4"',
                 "repeat with: kdbench train --method kd"):  # fmt: skip
        assert part in output
    assert 10 <= output.count(" 1.25 ") <= 15 and " 50 " in output


def test_show_tells_a_record_without_checksum(grid: Expansion, tmp_path: Path) -> None:
    run = cell(grid, "kd").runs[0]
    records.write_run(tmp_path, run)
    records.write(tmp_path, make_record(run, 90.0))
    line = "record: without a checksum"
    assert line not in text(show.describe_run(tmp_path, run.id))
    path = tmp_path / run.id / "record.json"
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_text(json.dumps(values))
    assert line in text(show.describe_run(tmp_path, run.id))


def test_show_describes_an_imported_teacher(tmp_path: Path) -> None:
    (tmp_path / "import-01").mkdir()
    (tmp_path / "import-01" / "run.json").write_text('{"id": "import-01", "student": "vgg8"}')
    records.write(tmp_path, done("import-01"))
    output = text(show.describe_run(tmp_path, "import"))
    assert "vgg8, imported" in output and "teachers: {vgg8: import-01}" in output
