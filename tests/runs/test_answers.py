"""Accuracies of other predictions (``Method.answers``) in records, learning curves and reports."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_grids import PAIRS, evidence_of, make_cells, make_grid, make_record, make_records, typical
from json_documents import answer
from small_grids import first

from kdbench.report.page import cell_numbers
from kdbench.runs import archive, history, records
from kdbench.runs.records import Record, RecordError

RUN = first("kd")
ANSWERS = {"ensemble": 62.5, "mean": 100 * 605 / (3 * 400)}
"""Of 400 images, with the mean of three networks."""


def record(answers: dict[str, float] | None) -> Record:
    made = make_record(RUN, 62.5)
    assert made.result is not None
    return replace(made, result=replace(made.result, answers=answers))


def unsigned(text: str) -> str:
    """Return a record without its checksum."""
    return json.dumps({k: v for k, v in json.loads(text).items() if k != "checksum"})


def test_record_keeps_them() -> None:
    text = record(ANSWERS).to_json()
    assert Record.from_json(text) == record(ANSWERS)
    assert json.loads(text)["result"]["answers"] == ANSWERS
    assert Record.from_json(unsigned(text)) == record(ANSWERS)


def test_record_of_a_run_without_any_has_no_such_key() -> None:
    text = record(None).to_json()
    assert "answers" not in text
    assert Record.from_json(text) == record(None)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            {"mean": 50.123456},
            "result.answers.mean: 50.123456: not a mean of whole numbers of 400 test images",
        ),
        ({"mean": 100.5}, "result.answers.mean: 100.5: input should be less than or equal to 100"),
        ({"mean": "50"}, "result.answers.mean: '50': input should be a valid number"),
        ({}, "result.answers: dictionary should have at least 1 item"),
    ],
)
def test_impossible_accuracies_are_found(answers: dict[str, float], expected: str) -> None:
    with pytest.raises(RecordError, match="not a record: ") as error:
        Record.from_json(unsigned(record(answers).to_json()))
    assert expected in str(error.value)


def rows(last: float = ANSWERS["mean"]) -> list[dict[str, float]]:
    common = {"train_loss": 1.0, "train_acc": 50.0, "test_loss": 1.0, "test_top5": 90.0}
    end = {"test_acc_mean": last, "test_acc_ensemble": 62.5, "seconds": 2.0}
    return [
        {"epoch": 1, **common, "test_acc": 40.0, **end},
        {"epoch": 2, **common, "test_acc": 62.5, **end},
    ]


def short(answers: dict[str, float] | None) -> Record:
    made = record(answers)
    assert made.result is not None
    return replace(made, result=replace(made.result, epoch=2, best_epoch=2, best_acc=62.5))


def test_curve_has_columns_that_agree_with_the_record(tmp_path: Path) -> None:
    folder = records.folder(tmp_path, RUN.id)
    folder.mkdir()
    history.write(folder, rows())
    head = (folder / "history.csv").read_text().splitlines()[0]
    expected = "epoch,train_loss,train_acc,test_loss,test_acc,test_top5"
    assert head == f"{expected},test_acc_mean,test_acc_ensemble,seconds"
    read = history.read(tmp_path, RUN.id, record=short(ANSWERS))
    assert history.answers(read[-1]) == ANSWERS
    history.write(folder, rows(last=12.5))
    with pytest.raises(RecordError, match=r"epoch 2: test_acc_mean: 12\.5, the run's record says"):
        history.read(tmp_path, RUN.id, record=short(ANSWERS))
    history.write(folder, rows(last=101.0))
    with pytest.raises(RecordError, match=r"test_acc_mean: 101\.0: expected 0 to 100"):
        history.read(tmp_path, RUN.id, record=short(None))


def test_show_gives_them_in_percent(tmp_path: Path) -> None:
    records.write_run(tmp_path, RUN)
    history.write(records.folder(tmp_path, RUN.id), rows())
    records.write(tmp_path, short(ANSWERS))
    values = answer("show", RUN.id, "--runs", tmp_path)
    assert values["curve_problem"] is None
    assert values["result"]["answers_percent"] == ANSWERS
    assert values["curve"][1]["test_acc_mean_percent"] == ANSWERS["mean"]


def test_archive_keeps_them(tmp_path: Path) -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    found = make_records(cells, typical)
    run = cells[-1].runs[0]
    result = found[run.id].result
    assert result is not None
    found[run.id] = replace(found[run.id], result=replace(result, answers={"mean": 50.0}))
    archive.write(evidence_of(grid, cells, found), tmp_path / "records.parquet")
    assert archive.load(tmp_path / "records.parquet").records == found


def test_details_of_a_cell_show_means_over_seeds() -> None:
    assert cell_numbers.answers([record(None), None]) == []
    found = [record({"mean": 50.0}), record({"mean": 52.0}), None]
    assert cell_numbers.answers(found) == [("mean", "51.00 ± 1.41 %")]
