"""Learning curves on disk."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_grids import done

from kdbench.runs import history
from kdbench.runs.records import RecordError

ROW = {
    "epoch": 1.0, "train_loss": 1 / 3, "train_acc": 50.0, "test_loss": 2.5, "test_acc": 41.25,
    "test_top5": 90.0, "seconds": 1.5,
}  # fmt: skip


def test_curve_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [ROW | {"val_acc": 40.0}, ROW | {"epoch": 2.0, "val_acc": 42.0}]
    history.write(tmp_path, [row | {"step_loss": 7.0} for row in rows])
    assert history.read(tmp_path.parent, tmp_path.name) == rows


def test_columns_do_not_depend_on_the_rows_but_for_held_out_accuracy(tmp_path: Path) -> None:
    header = "epoch,train_loss,train_acc,test_loss,test_acc,test_top5"
    for rows, more in (([], ""), ([ROW], ""), ([ROW | {"val_acc": 1.0}], ",val_acc")):
        history.write(tmp_path, rows)
        assert (tmp_path / history.NAME).read_text().splitlines()[0] == f"{header}{more},seconds"


def test_no_curve_has_no_rows(tmp_path: Path) -> None:
    assert history.read(tmp_path, "abc") == []


def test_columns_and_digits_are_chosen_by_the_reader(tmp_path: Path) -> None:
    history.write(tmp_path, [ROW])
    [row] = history.read(
        tmp_path.parent,
        tmp_path.name,
        number=lambda text: round(float(text), 2),
        leave_out=("seconds",),
    )
    assert row["train_loss"] == 0.33 and "seconds" not in row


GOOD = (
    b"epoch,train_loss,train_acc,test_loss,test_acc,test_top5,seconds\n"
    b"1,1.5,50,2.5,74,90,1\n2,1.5,50,2.5,75,90,2\n"
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the first line does not name the columns"),
        (bytes(len(GOOD)), "the first line does not name the columns"),
        (GOOD[:70] + bytes(10) + GOOD[80:], "line 2"),
        (GOOD[:-10], "line 3: 4 fields, expected 7"),
        (GOOD.replace(b"2.5,75", b"2.5,x"), "line 3: could not convert string to float"),
        (GOOD.replace(b"2.5,75", b"2.5,\xff"), "can't decode byte"),
        (GOOD.replace(b"2.5,75", b"2.5,175"), "epoch 2: test_acc: 175.0: expected 0 to 100"),
        (GOOD.replace(b"test_acc", b"best_acc"), "the first line does not name the columns"),
        (GOOD.replace(b"\n2,", b"\n3,"), "epoch 3.0, expected 2"),
        (GOOD[: GOOD.index(b"2,1.5")], "1 epochs, the run's record says 2"),
        (GOOD.replace(b"2.5,75", b"2.5,70"), "epoch 2: test_acc: 70.0, the run's record says 75.0"),
        (GOOD.replace(b"2.5,74", b"2.5,71"), "epoch 1: test_acc: 71.0, the run's record says 74.0"),
    ],
)
def test_damaged_curve_is_refused_with_its_file(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    record = done("abc")
    assert record.result is not None
    record = replace(record, result=replace(record.result, best_epoch=1, best_acc=74.0))
    path = tmp_path / "abc" / history.NAME
    path.parent.mkdir()
    path.write_bytes(GOOD)
    assert len(history.read(tmp_path, "abc", record=record)) == 2
    path.write_bytes(content)
    with pytest.raises(RecordError) as error:
        history.read(tmp_path, "abc", record=record)
    assert str(error.value).startswith(f"{path}: not a learning curve: ")
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_curve_of_a_run_without_epochs_has_no_rows(tmp_path: Path) -> None:
    history.write(tmp_path, [])
    assert history.read(tmp_path.parent, tmp_path.name, record=done("abc")) == []
