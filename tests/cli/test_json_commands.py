"""``--json`` of status, show and plan: every document is parsed as a script would."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_grids import done, make_record
from json_documents import answer, strict
from small_grids import SMALL, cell, expanded, kdbench, mistakes, small, write

from kdbench.cli import plan, plan_json
from kdbench.cli.json_output import document
from kdbench.grid.run import Run
from kdbench.runs import heartbeat, lease, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record

HOSTILE = 'a "quoted" \\ \x1b[31mred\x1b[0m \u202efdp.exe </script> \u2028 é 漢'
GRID: dict[str, Any] = {
    "methods": ["kd", "at"], "seeds": [0, 1], "pairs": ["r8w4 -> r8w3", "v5w4 -> r8w3"],
}  # fmt: skip


def beat(run: Run) -> Beat:
    return Beat(
        run=run.id, cohort="c", title=run.title, phase="train", epoch=3, epochs=9, step=1, steps=4,
        images_per_s=1234.5, acc=81.25, eta=None, pid=1, host="h", at=time.time(),
    )  # fmt: skip


def put(runs: Path, run: Run, record: Record | None = None) -> None:
    records.write_run(runs, run)
    if record:
        records.write(runs, record)


# --- status ---------------------------------------------------------------------------------------


def test_status_has_a_row_per_cell_and_run(tmp_path: Path) -> None:
    grid, path, runs = expanded(**GRID), write(tmp_path, **GRID), tmp_path / "runs"
    kd, at = cell(grid, "kd").runs, cell(grid, "at").runs
    put(runs, kd[0], make_record(kd[0], 80.0))
    put(runs, kd[1])
    heartbeat.write(runs, beat(kd[1]))
    put(runs, at[0], Record(at[0].id, "failed", HOSTILE))
    theirs = lease.acquire(runs / at[1].id, Owner("node7", "another boot", 17, "1", job="12_3"))
    assert theirs is not None
    os.utime(theirs.path, (time.time() - 30, time.time() - 30))
    values = answer("status", "--grid", path, "--runs", runs)
    assert (values["grid"], values["file"]) == ("small", str(path))
    assert values["runs_total"] == 12 and sum(values["states"].values()) == 12
    assert values["states"]["pending"] == 8 and values["states"]["skipped"] == 0
    of_kd = [row for row in values["cells"] if row["method"] == "kd"]
    assert [row["pair"] for row in of_kd] == ["r8w4 -> r8w3", "v5w4 -> r8w3"]
    assert [row["test_acc_percent"] for row in of_kd] == [80.0, None]
    assert of_kd[0]["runs"] == 2 and of_kd[0]["states"]["running"] == 1
    by_id = {row["id"]: row for row in values["runs"] if row["pair"] == "r8w4 -> r8w3"}
    assert {run.id for run in (*kd, *at)} <= set(by_id) and all(len(i) == 16 for i in by_id)
    assert by_id[kd[0].id] == {
        "pair": "r8w4 -> r8w3", "method": "kd", "seed": 0, "id": kd[0].id, "state": "done",
        "reason": None, "test_acc_percent": 80.0, "val_acc_percent": None, "progress": None,
        "holder": None,
    }  # fmt: skip
    assert by_id[kd[1].id]["progress"] == {
        "phase": "train", "epoch": 3, "epochs": 9, "step": 1, "steps_per_epoch": 4,
        "test_acc_percent": 81.25, "images_per_second_of_cohort": 1234.5, "seconds_left": None,
        "host": "h", "pid": 1,
    }  # fmt: skip
    assert (by_id[at[0].id]["state"], by_id[at[0].id]["reason"]) == ("failed", HOSTILE)
    held = by_id[at[1].id]
    assert held["state"] == "held" and held["holder"]["seconds_since_sign"] == pytest.approx(30, 1)
    sign = held["holder"].pop("seconds_since_sign")
    assert isinstance(sign, float)
    assert held["holder"] == {"host": "node7", "pid": 17, "job": "12_3", "ended": False}
    theirs.release()


def test_status_lists_imported_teachers_and_auxiliaries(tmp_path: Path) -> None:
    row = {"hkd": {"auxiliary": {"student": "r8w8", "method": "pkt"}}}
    path = write(tmp_path, methods=[row], teachers={"r8w4": "import-1"})
    values = answer("status", "--grid", path, "--runs", tmp_path / "runs")
    cells = {row["method"]: row for row in values["cells"]}
    assert cells["teacher"]["runs"] == 0 and cells["pkt (auxiliary)"]["pair"] == "r8w4 -> r8w8"


def test_status_cannot_be_watched_as_json(tmp_path: Path) -> None:
    command = ("status", "--grid", write(tmp_path), "--watch", "--json")
    assert mistakes(*command) == ["status: --watch and --json exclude each other"]


# --- show -----------------------------------------------------------------------------------------


def test_show_has_settings_record_curve_and_repeat_command(tmp_path: Path) -> None:
    run = cell(expanded(**GRID), "kd").runs[0]
    put(tmp_path, run)
    values = answer("show", run.id[:5], "--runs", tmp_path)
    assert (values["id"], values["state"], values["imported"]) == (run.id, "unfinished", False)
    assert values["repeat"].startswith("kdbench train --method kd --teacher r8w4 --student r8w3")
    assert values["settings"] == json.loads(json.dumps(run.to_json()))
    keys = list(values)
    heartbeat.write(tmp_path, beat(run))
    values = answer("show", run.id, "--runs", tmp_path)
    assert (values["state"], values["progress"]["epoch"]) == ("running", 3)
    record = make_record(run, 50.0)
    assert record.result and record.cost
    result = replace(
        record.result, epoch=30, train_loss=float("nan"), test_loss=float("inf"), best_acc=50.0,
        best_epoch=30,
    )  # fmt: skip
    record = replace(
        record, status="diverged", reason=HOSTILE, result=result, traceback="line 1\nline 2\n",
        attempts=("resumed at epoch 2",),
    )  # fmt: skip
    records.write(tmp_path, record)
    history = "epoch,train_loss,train_acc,test_loss,test_acc,seconds\n"
    history += "".join(f"{i},nan,50,1.25,{50 * i / 30},9\n" for i in range(1, 31))
    (tmp_path / run.id / "history.csv").write_text(history)
    values = answer("show", run.id, "--runs", tmp_path)
    assert list(values) == keys
    assert (values["state"], values["reason"]) == ("diverged", HOSTILE)
    assert (values["result"]["train_loss"], values["result"]["test_loss"]) == (None, None)
    assert (values["result"]["test_acc_percent"], values["result"]["val_acc_percent"]) == (50, None)
    assert (values["cost"]["seconds"], values["cost"]["peak_mb"]) == (10.0, 200.0)
    assert values["environment"] == json.loads(json.dumps(record.environment))
    assert values["attempts"] == ["resumed at epoch 2"] and values["has_checksum"] is True
    assert values["traceback"] == "line 1\nline 2\n"
    assert len(values["curve"]) == 30 and values["curve_problem"] is None
    assert values["curve"][29] == {
        "epoch": 30, "train_loss": None, "train_acc_percent": 50, "test_loss": 1.25,
        "test_acc_percent": 50, "seconds": 9,
    }  # fmt: skip


def test_show_of_a_damaged_curve_has_the_rest(tmp_path: Path) -> None:
    run = cell(expanded(), "kd").runs[0]
    put(tmp_path, run, make_record(run, 50.0))
    (tmp_path / run.id / "history.csv").write_text("x")
    values = answer("show", run.id, "--runs", tmp_path)
    assert values["state"] == "done" and values["curve"] == []
    assert "not a learning curve" in values["curve_problem"]


def test_show_of_an_imported_teacher(tmp_path: Path) -> None:
    (tmp_path / "import-01").mkdir()
    (tmp_path / "import-01" / "run.json").write_text('{"id": "import-01", "student": "vgg8"}')
    records.write(tmp_path, done("import-01"))
    values = answer("show", "import", "--runs", tmp_path)
    assert values["imported"] is True and values["repeat"] is None
    assert values["in_a_grid"] == "teachers: {vgg8: import-01}"
    assert values["settings"] == {"id": "import-01", "student": "vgg8"}


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_mistakes_are_lines_on_stderr(flags: tuple[str, ...], tmp_path: Path) -> None:
    for command in (("show", "abc", "--runs", tmp_path), ("status", "--grid", tmp_path / "x.yaml"),
                    ("plan", "--grid", tmp_path / "x.yaml")):  # fmt: skip
        assert len(mistakes(*command, *flags)) == 1
        assert kdbench(*command, *flags).stdout == ""


# --- plan -----------------------------------------------------------------------------------------


def test_plan_has_rows_totals_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "process_bytes", lambda: 4e8)
    options = {"kd": {"alpha": 0.5}}
    pairs = ["v5w4 -> r8w3", {"teacher": "r8w4", "student": "r8w3", "options": options}]
    changes = GRID | {"pairs": pairs, "title": "Größe"}
    run = cell(expanded(**changes), "kd").runs[0]
    put(tmp_path / "runs", run, make_record(run, 50.0))
    command = ("plan", "--grid", write(tmp_path, **changes), "--runs", tmp_path / "runs")
    values = answer(*command, "--tflops", 2, "--exact")
    assert values["title"] == "Größe"
    assert [row["method"] for row in values["rows"]] == [
        "teacher", "student", "kd", "at", "teacher", "student", "kd", "at",
    ]  # fmt: skip
    kd = values["rows"][2]
    assert (kd["pair"], kd["runs"], kd["states"]["done"]) == ("v5w4 -> r8w3", 2, 1)
    assert kd["tflop_per_run"] == pytest.approx(
        sum(kd[f"tflop_of_{part}"] for part in ("student", "teacher", "methods", "evaluation"))
    )
    assert kd["hours_per_run"] == pytest.approx(kd["tflop_per_run"] / 2 / 3600)
    assert values["pairs"][1] == {"pair": "r8w4 -> r8w3", "options": options}
    totals = values["totals"]
    assert (totals["runs"], totals["runs_to_train"]) == (12, 11)
    missing = [row["hours_per_run"] * row["states"]["pending"] for row in values["rows"]]
    assert totals["training_hours"] < sum(missing)  # the student of both pairs counts once
    assert totals["elapsed_hours"] == totals["training_hours"] / totals["cohorts_at_once"]
    parts = ("process_mb", "data_mb", "teacher_mb", "learners_mb")
    cohort = values["largest_cohort"]
    assert cohort["memory_mb"] == pytest.approx(sum(cohort[part] for part in parts))
    assert values["hours_from"] == ["at 2 TFLOP/s (--tflops)"] and values["warnings"] == []
    text = kdbench(*command, "--tflops", 2, "--exact").stdout
    assert f"largest cohort: {cohort['memory_mb'] / 1024:.1f} GB on a CPU" in text
    assert "12 runs (1 done, 11 pending); 11 to train in " in text


def test_plan_of_impossible_and_imported_rows(tmp_path: Path) -> None:
    changes = {
        "dataset": {"name": "synthetic", "per_class": 3},
        "teachers": {"r8w4": "import-1"},
        "executor": SMALL["executor"] | {"graphs": "always"},
    }
    (tmp_path / "runs" / "import-1").mkdir(parents=True)
    grid = expanded(**changes)
    values = plan_content(grid, tmp_path, **changes)
    teacher, student, kd = values["rows"]
    assert teacher["imported"] and teacher["tflop_per_run"] is None
    for row in (student, kd):
        assert row["problem"] == "fails: 30 training images do not fill a batch of 64"
        assert row["hours_per_run"] is None and row["memory_mb"] is None
    assert values["warnings"] == [
        "executor.graphs: always needs a GPU; accepted on a CPU: auto, never"
    ]


def plan_content(grid: Any, runs: Path, **changes: Any) -> Any:
    """Return the document of a plan whose imported teacher has no files."""
    estimate = plan.estimated(small(**changes), grid, runs, 1.0)
    return strict(document("plan", plan_json.content(estimate)))
