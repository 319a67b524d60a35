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

numbers = st.floats(allow_nan=False)
results = st.builds(
    Result,
    **{name: st.integers(0, 10**6) for name in ("epoch", "steps", "best_epoch", "n_train")},
    **dict.fromkeys(("train_loss", "train_acc", "test_loss", "test_acc"), numbers),
    test_top5=numbers,
    best_acc=numbers,
    weights=st.text(),
    data=st.text(),
    n_test=st.integers(0, 9),
    val_acc=st.none() | numbers,
)
costs = st.builds(
    Cost,
    **dict.fromkeys(("seconds", "teacher_seconds", "step_ms", "peak_mb"), numbers),
    **{name: st.integers(0, 10**6) for name in ("params", "params_deployed", "params_extra")},
    macs=st.integers(0, 10**9),
    peak_reserved_mb=st.none() | numbers,
)
made = st.builds(
    Record,
    run=st.text("0123456789abcdef", min_size=16, max_size=16),
    status=st.sampled_from(["done", "diverged", "failed", "skipped"]),
    reason=st.text(),
    result=st.none() | results,
    cost=st.none() | costs,
    traceback=st.text(),
    environment=st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
    attempts=st.lists(st.text(), max_size=2).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(made)
def test_record_is_restored_from_json(record: Record) -> None:
    assert Record.from_json(record.to_json()) == record


@settings(max_examples=100, deadline=None)
@given(st.floats() | st.text(max_size=5) | st.integers())
def test_values_are_read_as_by_the_json_module(value: Any) -> None:
    text = Record("a", "done", environment={"value": value}).to_json()
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
    record = make_record(run, float("inf"))
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
