"""Learning curves on disk."""

from pathlib import Path

from kdbench.runs import history

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
