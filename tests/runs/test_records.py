"""Records and run.json on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_grids import make_record
from hypothesis import given, settings
from hypothesis import strategies as st
from small_grids import first

from kdbench.runs import records
from kdbench.runs.records import Cost, Record, RecordError, Result

amounts = st.floats(0, 1e12)
losses = st.floats(allow_nan=False)


@st.composite
def results(draw: st.DrawFn) -> Result:
    """Draw a result that training can have."""
    low, middle, high = sorted(draw(st.lists(st.floats(0, 100), min_size=3, max_size=3)))
    best_epoch, epoch = sorted(draw(st.lists(st.integers(0, 10**6), min_size=2, max_size=2)))
    return Result(
        epoch=epoch,
        steps=draw(st.integers(0, 10**9)),
        train_loss=draw(losses),
        train_acc=draw(st.floats(0, 100)),
        test_loss=draw(losses),
        test_acc=low,
        test_top5=high,
        best_acc=middle,
        best_epoch=best_epoch,
        weights=draw(st.text()),
        data=draw(st.text()),
        n_train=draw(st.integers(0, 10**9)),
        n_test=draw(st.integers(1, 9)),
        val_acc=draw(st.none() | st.floats(0, 100)),
    )


costs = st.builds(
    Cost,
    **dict.fromkeys(("seconds", "teacher_seconds", "step_ms", "peak_mb"), amounts),
    **{name: st.integers(0, 10**6) for name in ("params", "params_deployed", "params_extra")},
    macs=st.integers(0, 10**9),
    peak_reserved_mb=st.none() | amounts,
)
texts = st.text()


@st.composite
def made(draw: st.DrawFn) -> Record:
    """Draw a record that training can write."""
    status = draw(st.sampled_from(["done", "diverged", "failed", "skipped"]))
    result = draw(results()) if status == "done" else None
    if status in ("diverged", "failed"):
        result = draw(st.none() | results())
    return Record(
        run=draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
        status=status,  # type: ignore[arg-type]
        reason=draw(st.text(min_size=1)),
        result=result,
        cost=draw(st.none() | costs),
        traceback=draw(texts),
        environment=draw(st.dictionaries(texts, st.integers() | texts, max_size=3)),
        attempts=tuple(draw(st.lists(texts, max_size=2))),
    )


@settings(max_examples=30, deadline=None)
@given(made())
def test_record_is_restored_from_json(record: Record) -> None:
    assert Record.from_json(record.to_json()) == record


@settings(max_examples=100, deadline=None)
@given(st.floats() | st.text(max_size=5) | st.integers())
def test_values_are_read_as_by_the_json_module(value: Any) -> None:
    text = Record("a", "skipped", environment={"value": value}).to_json()
    assert repr(Record.from_json(text).environment) == repr(json.loads(text)["environment"])


def test_record_made_on_a_cpu_has_no_reserved_memory() -> None:
    """Its keys are those of records written before there was such a number."""
    run = first("kd")
    record = make_record(run, 90.0)
    keys = list(json.loads(record.to_json())["cost"])
    assert keys == [
        "seconds", "teacher_seconds", "step_ms", "params", "params_deployed", "params_extra",
        "macs", "peak_mb",
    ]  # fmt: skip
    assert record.cost is not None
    on_gpu = replace(record, cost=replace(record.cost, peak_reserved_mb=300.5))
    assert json.loads(on_gpu.to_json())["cost"]["peak_reserved_mb"] == 300.5


def test_half_a_surrogate_pair_and_a_long_record_are_read(tmp_path: Path) -> None:
    record = Record("abc", "failed", "\ud83c", traceback="x" * 2 * records.PART)
    (tmp_path / "abc").mkdir()
    records.write(tmp_path, record)
    assert records.load(tmp_path, ["abc"]) == {"abc": record}


def test_error_names_a_record_that_is_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "abc" / "record.json"
    path.mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as error:
        records.load(tmp_path, ["abc"])
    assert error.value.filename == str(path)


def test_infinite_losses_are_restored(tmp_path: Path) -> None:
    run = first("kd")
    record = make_record(run, 90.0)
    assert record.result is not None
    result = replace(record.result, train_loss=float("-inf"), test_loss=float("inf"))
    record = replace(record, status="diverged", result=result)
    records.write_run(tmp_path, run)
    records.write(tmp_path, record)
    assert records.read(tmp_path, run.id) == record


def test_paths_of_runs_and_records(tmp_path: Path) -> None:
    run = first("kd")
    assert records.read(tmp_path, run.id) is None
    records.write_run(tmp_path, run)
    before = (tmp_path / run.id / "run.json").stat().st_mtime_ns
    records.write_run(tmp_path, run)
    assert (tmp_path / run.id / "run.json").stat().st_mtime_ns == before
    assert records.read_run(tmp_path, run.id) == run
    records.write(tmp_path, Record(run.id, "failed", "why"))
    assert records.load(tmp_path, [run.id, "none", run.id]) == {
        run.id: Record(run.id, "failed", "why")
    }


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"schema": 99}', '{"schema": 1, "result": 3}', b"\xff\xfe",
     '{"schema": 1, "result": null, "cost": null, "attempts": [], "colour": "red"}'],
)  # fmt: skip
def test_error_names_a_damaged_record(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "abc" / "record.json"
    path.parent.mkdir()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RecordError) as error:
        records.read(tmp_path, "abc")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("values", [None, [], {}, {"teacher": 3}])
def test_error_names_a_damaged_run(tmp_path: Path, values: Any) -> None:
    with pytest.raises(RecordError, match="no such run"):
        records.read_run(tmp_path, "abc")
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "run.json").write_text(json.dumps(values))
    with pytest.raises(RecordError, match="not a run"):
        records.read_run(tmp_path, "abc")


def old(record: Record, **changes: Any) -> str:
    """Return a record as earlier versions wrote it, with other values in its result."""
    values = json.loads(record.to_json())
    del values["checksum"]
    values["result"] |= changes
    return json.dumps(values, indent=1) + "\n"


def test_record_without_checksum_is_read_and_told_apart(tmp_path: Path) -> None:
    run = first("kd")
    record = make_record(run, 90.0)
    path = tmp_path / run.id / "record.json"
    path.parent.mkdir()
    path.write_text(old(record))
    assert records.read(tmp_path, run.id) == record
    assert not records.has_checksum(tmp_path, run.id)
    path.unlink()
    records.write(tmp_path, record)
    assert records.has_checksum(tmp_path, run.id)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_acc": 1e9}, "result.test_acc: 1000000000.0: "),
        ({"test_acc": -5}, "result.test_acc: -5: "),
        ({"test_acc": float("nan")}, "result.test_acc: nan: "),
        ({"test_acc": "90"}, "result.test_acc: '90': "),
        ({"test_acc": True}, "result.test_acc: True: "),
        ({"test_acc": 90.1}, "result.test_acc: 90.1: not a whole number of 400 test images"),
        ({"train_acc": 101.0}, "result.train_acc: 101.0: expected 0 to 100"),
        ({"n_test": 0}, "result.n_test: 0: "),
        ({"best_acc": 89.5}, "result.best_acc: 89.5: less than test_acc"),
        ({"test_top5": 89.5}, "result.test_top5: 89.5: less than test_acc"),
        ({"best_epoch": 3}, "result.best_epoch: 3: after the last epoch"),
        ({"epoch": 1.5}, "result.epoch: 1.5: "),
        ({"colour": "red"}, "result.colour: 'red': "),
    ],
)
def test_impossible_result_is_refused(changes: dict[str, Any], message: str) -> None:
    record = make_record(first("kd"), 90.0)
    Record.from_json(old(record))
    with pytest.raises(RecordError) as error:
        Record.from_json(old(record, **changes))
    assert str(error.value).startswith(f"not a record: {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "finished"}, "status: 'finished': "),
        ({"result": None}, "status: done: without a result"),
        ({"status": "failed"}, "status: failed: without a reason"),
        ({"status": "skipped", "reason": "x"}, "status: skipped: with a result"),
        ({"attempts": [1]}, "attempts.0: 1: "),
        ({"schema": 9, "new": 1}, "schema 9, this kdbench reads 1"),
        ({"cost": {"seconds": -1.0}}, "cost.seconds: -1.0: "),
    ],
)
def test_impossible_record_is_refused(changes: dict[str, Any], message: str) -> None:
    values = json.loads(old(make_record(first("kd"), 90.0))) | changes
    with pytest.raises(RecordError) as error:
        Record.from_json(json.dumps(values))
    assert str(error.value).startswith(f"not a record: {message}")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "\ufeff{}", "{}x"])
def test_bomb_is_no_record(text: str) -> None:
    with pytest.raises(RecordError):
        Record.from_json(text)


def test_checksum_is_required_where_a_record_names_one(tmp_path: Path) -> None:
    record = make_record(first("kd"), 90.0)
    text = record.to_json()
    reformatted = json.dumps(json.loads(text))
    for changed in (text.replace("90.0", "91.0", 1), text + " ", reformatted):
        with pytest.raises(RecordError, match="does not match its checksum"):
            Record.from_json(changed)


def test_record_and_settings_of_another_run_are_refused(tmp_path: Path) -> None:
    one, other = first("kd"), first("student")
    for run in (one, other):
        records.write_run(tmp_path, run)
    records.write(tmp_path, make_record(one, 90.0))
    for name in ("record.json", "run.json"):
        content = (tmp_path / one.id / name).read_bytes()
        (tmp_path / other.id / name).write_bytes(content)
    for read in (
        lambda: records.read(tmp_path, other.id),
        lambda: records.load(tmp_path, [other.id]),
    ):
        with pytest.raises(RecordError, match=f"not a record of this run, but of '{one.id}'"):
            read()
    with pytest.raises(RecordError, match="the settings of another run"):
        records.read_run(tmp_path, other.id)


def test_changed_settings_without_checksum_are_those_of_another_run(tmp_path: Path) -> None:
    run = first("kd")
    values = run.to_json()
    (tmp_path / run.id).mkdir()
    path = tmp_path / run.id / "run.json"
    path.write_text(json.dumps(values))
    assert records.read_run(tmp_path, run.id) == run
    path.write_text(json.dumps(values | {"gamma": 0.5}))
    with pytest.raises(RecordError, match="damaged: its settings are those of another run"):
        records.read_run(tmp_path, run.id)


@pytest.mark.parametrize("checksum", [None, "", 0, "0" * 64])
def test_other_checksum_of_settings_is_refused(tmp_path: Path, checksum: Any) -> None:
    run = first("kd")
    records.write_run(tmp_path, run)
    path = tmp_path / run.id / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checksum": checksum}))
    with pytest.raises(RecordError, match="does not match its checksum"):
        records.read_run(tmp_path, run.id)
    record = json.loads(make_record(run, 90.0).to_json()) | {"checksum": checksum}
    with pytest.raises(RecordError, match="not a record: "):
        Record.from_json(json.dumps(record))
