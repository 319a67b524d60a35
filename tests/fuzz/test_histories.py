"""Damaged and invented learning curves are read, or refused in one line that names the file."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from damaged_files import damaged_bytes
from fake_grids import make_record
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from json_documents import strict
from small_grids import first

from kdbench.cli import show, show_json
from kdbench.cli.json_output import document
from kdbench.runs import history, records

RUN = first("kd")
ROWS = [
    {"epoch": i, "train_loss": 1 / i, "train_acc": 50.0, "test_loss": 2.5, "test_acc": acc,
     "test_top5": 90.0, "val_acc": 40.0, "seconds": 1.5}
    for i, acc in enumerate((41.25, 43.0, 42.5), 1)
]  # fmt: skip


def record() -> records.Record:
    """Return the record of a run with this curve."""
    made = make_record(RUN, 42.5)
    assert made.result is not None
    return replace(made, result=replace(made.result, epoch=3, best_acc=43.0, best_epoch=2))


def curve() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        history.write(Path(name), ROWS)
        return (Path(name) / history.NAME).read_bytes()


fields = st.sampled_from(["", "1", "2", "nan", "-inf", "1e9", "x", "1_0", "\x00", '"', "-0", "50"])
tables = st.lists(st.lists(fields, min_size=1, max_size=9).map(",".join), max_size=5).map(
    lambda lines: "\n".join([",".join(history.COLUMNS), *lines]).encode()
)
"""Tables with the right first line and any fields."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / RUN.id).mkdir()
        yield Path(name)


@fuzzed
@given(content=damaged_bytes(curve()) | tables | st.binary(max_size=200))
def test_damaged_curve_is_possible_or_refused(folder: Path, content: bytes) -> None:
    path = folder / RUN.id / history.NAME
    path.write_bytes(content)
    message = answer(lambda: history.read(folder, RUN.id, record=record()))
    if message:
        assert message.startswith(f"{path}: ") and "\n" not in message
        return
    rows = history.read(folder, RUN.id, record=record())
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(0 <= row.get("test_acc", 0) <= 100 for row in rows)
    if rows:
        assert len(rows) == 3
        assert abs(rows[-1]["test_acc"] - 42.5) < 1e-3 and abs(rows[1]["test_acc"] - 43.0) < 1e-3


@fuzzed
@given(content=damaged_bytes(curve()) | tables)
def test_run_is_shown_whatever_its_curve(folder: Path, content: bytes) -> None:
    if not records.has_record(folder, RUN.id):
        records.write_run(folder, RUN)
        records.write(folder, record())
    (folder / RUN.id / history.NAME).write_bytes(content)
    assert not answer(lambda: show.describe_run(folder, RUN.id))
    strict(document("show", show_json.content(show.read(folder, RUN.id))))
