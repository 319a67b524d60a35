"""Damaged and invented records, ``run.json``, heartbeats and leases end well or in one line."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from damaged_files import anything, damaged_bytes, damaged_json
from fake_grids import make_record
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from json_documents import strict
from small_grids import first

from kdbench.cli import show, show_json
from kdbench.cli.json_output import document
from kdbench.runs import attempts, checksums, heartbeat, lease, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.owner import Owner
from kdbench.training import traces

RUN = first("kd")
RECORD = make_record(RUN, 80.25)
CONTENT = RECORD.to_json().encode()
SETTINGS = checksums.add(json.dumps(RUN.to_json(), indent=1) + "\n").encode()
BEAT = Beat(RUN.id, RUN.id, "t", "train", 1, 2, 3, 4, 5.5, 6.5, None, 7, "h", 1e12)


def without_checksum(content: bytes) -> bytes:
    values = json.loads(content)
    del values[checksums.KEY]
    return json.dumps(values, indent=1).encode() + b"\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / RUN.id).mkdir()
        yield Path(name)


@fuzzed
@given(content=damaged_bytes(CONTENT) | damaged_json(CONTENT))
def test_no_damaged_record_is_read_as_another_one(folder: Path, content: bytes) -> None:
    path = folder / RUN.id / "record.json"
    path.write_bytes(content)
    message = answer(lambda: records.read(folder, RUN.id))
    if message:
        assert message.startswith(f"{path}: ") and "\n" not in message
        assert answer(lambda: records.load(folder, [RUN.id])) == message
    elif checksums.KEY in json.loads(content):
        assert records.read(folder, RUN.id) == RECORD
    else:
        check_plausible(folder)


@fuzzed
@given(
    content=damaged_bytes(without_checksum(CONTENT))
    | damaged_json(without_checksum(CONTENT))
    | anything.map(lambda value: json.dumps(value).encode())
)
def test_old_record_has_possible_values_or_is_refused(folder: Path, content: bytes) -> None:
    path = folder / RUN.id / "record.json"
    path.write_bytes(content)
    message = answer(lambda: records.read(folder, RUN.id))
    if message:
        assert message.startswith(f"{path}: ") and "\n" not in message
    else:
        check_plausible(folder)


def check_plausible(folder: Path) -> None:
    record = records.read(folder, RUN.id)
    assert record is not None and record.run == RUN.id
    assert record.status in ("done", "diverged", "failed", "skipped")
    result = record.result
    if result is not None:
        assert 0 <= result.test_acc <= result.best_acc <= 100
        images = result.test_acc / 100 * result.n_test
        assert abs(images - round(images)) < 1e-6 * max(1.0, images)
    assert record.status != "done" or result is not None
    files = show.RunFiles(RUN.id, RUN.to_json(), RUN, "", record)
    strict(document("show", show_json.content(files)))
    assert records.Record.from_json(record.to_json()) == record or "nan" in repr(record)


@fuzzed
@given(content=damaged_bytes(SETTINGS) | damaged_json(SETTINGS))
def test_no_damaged_settings_are_read_as_others(folder: Path, content: bytes) -> None:
    path = folder / RUN.id / "run.json"
    path.write_bytes(content)
    message = answer(lambda: records.read_run(folder, RUN.id))
    if message:
        assert message.startswith(f"{path}: ") and "\n" not in message
        return
    read = records.read_run(folder, RUN.id)
    assert read.id == RUN.id
    if checksums.KEY in json.loads(content):
        assert read == RUN
    if not answer(lambda: show.describe_run(folder, RUN.id)):
        strict(document("show", show_json.content(show.read(folder, RUN.id))))


@fuzzed
@given(content=damaged_json(without_checksum(SETTINGS)) | damaged_bytes(without_checksum(SETTINGS)))
def test_old_settings_are_those_of_the_id(folder: Path, content: bytes) -> None:
    (folder / RUN.id / "run.json").write_bytes(content)
    if not answer(lambda: records.read_run(folder, RUN.id)):
        values = json.loads(content)
        same = records.read_run(folder, RUN.id).id == RUN.id
        assert same or values.get("numerics", 1) != 1 or values["dataset"]["name"] == "imagefolder"


BEAT_TEXT = json.dumps(asdict(BEAT)).encode()
LEASE_TEXT = json.dumps(asdict(Owner.me()) | {"token": "t"}).encode()


@fuzzed
@given(content=damaged_bytes(BEAT_TEXT) | damaged_json(BEAT_TEXT))
def test_damaged_heartbeat_is_ignored(folder: Path, content: bytes) -> None:
    (folder / RUN.id / "progress.json").write_bytes(content)
    assert not answer(lambda: heartbeat.load(folder, [RUN.id]))
    assert not answer(lambda: heartbeat.read(folder, RUN.id, fresh=False))


@fuzzed
@given(content=damaged_bytes(LEASE_TEXT) | damaged_json(LEASE_TEXT))
def test_damaged_lease_stops_nobody(folder: Path, content: bytes) -> None:
    (folder / RUN.id / lease.NAME).write_bytes(content)
    assert not answer(lambda: lease.fresh(folder / RUN.id))
    held = lease.acquire(folder / RUN.id, Owner.me())
    if held:
        held.release()


@fuzzed
@given(content=st.binary(max_size=99) | damaged_bytes("2026 job 3: ü\n".encode() * 3))
def test_damaged_log_of_attempts_is_read(folder: Path, content: bytes) -> None:
    (folder / RUN.id / attempts.NAME).write_bytes(content)
    read = partial(attempts.read, folder, RUN.id)
    assert not answer(read)
    written = replace(RECORD, attempts=read())
    assert records.Record.from_json(written.to_json()) == written


TRACE = b"epoch,semckd.attention[0][0],semckd.attention[0][1]\n1,0.5,0.5\n2,0.25,0.75\n"


@fuzzed
@given(content=damaged_bytes(TRACE))
def test_damaged_trace_is_refused_or_read(folder: Path, content: bytes) -> None:
    path = folder / RUN.id / traces.NAME
    path.write_bytes(content)
    message = answer(lambda: traces.read(folder / RUN.id))
    assert not message or message.startswith(f"{path}: ")
