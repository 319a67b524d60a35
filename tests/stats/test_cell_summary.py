import math
from dataclasses import replace

import pytest
from fake_grids import ended, make_cells, make_grid, make_record

from kdbench.grid.run import Teacher
from kdbench.stats.cell_summary import summarise, teacher_accuracy, teacher_ids


def test_summary_of_a_cell() -> None:
    grid = make_grid(seeds=[0, 1, 2, 3, 4])
    runs = make_cells(grid)[2].runs
    records = {run.id: make_record(run, acc) for run, acc in zip(runs, (70.0, 72.0), strict=False)}
    records[runs[2].id] = ended(runs[2], "failed", "boom")
    records[runs[3].id] = ended(runs[3], "diverged", "nan")
    summary = summarise(runs, records)
    assert (summary.n, summary.expected, summary.mean, summary.best) == (2, 5, 71.0, 71.5)
    assert summary.sd == pytest.approx(math.sqrt(2))
    assert summary.accuracies == {0: 70.0, 1: 72.0}
    assert summary.statuses == {"done": 2, "diverged": 1, "failed": 1, "missing": 1}
    assert summary.reasons == (("failed", "boom", runs[2].id), ("diverged", "nan", runs[3].id))
    assert summary.status == "partial"
    assert summarise(runs[:2], records).status == "done"
    assert summarise(runs[2:], records).status == "diverged"


def test_summary_without_records() -> None:
    runs = make_cells(make_grid())[2].runs
    summary = summarise(runs, {})
    assert (summary.n, summary.status, summary.statuses) == (0, "missing", {"missing": 3})
    assert all(map(math.isnan, (summary.mean, summary.sd, summary.best)))
    assert math.isnan(summarise(runs[:1], {runs[0].id: make_record(runs[0], 1.0)}).sd)


def test_record_without_a_result_has_failed() -> None:
    [run, *_] = make_cells(make_grid())[2].runs
    record = replace(make_record(run, 1.0), result=None)
    assert summarise([run], {run.id: record}).statuses == {"failed": 1}


def test_accuracy_of_a_diverged_run_is_ignored() -> None:
    runs = make_cells(make_grid())[2].runs
    records = {run.id: make_record(run, 70.0) for run in runs}
    records[runs[0].id] = replace(records[runs[0].id], status="diverged", reason="nan")
    assert summarise(runs, records).n == 2


def test_auxiliary_is_not_a_pairs_teacher() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    [own], kd, semckd = cells[0].runs, cells[2].runs, cells[4].runs
    helper = Teacher("big", "0" * 16)
    cells[4] = replace(cells[4], runs=tuple(replace(run, teacher=helper) for run in semckd))
    assert teacher_ids(cells) == [own.id]
    records = {}
    for run in cells[4].runs:
        record = make_record(run, 80.0)
        assert record.result
        records[run.id] = replace(record, result=replace(record.result, teacher_acc=70.0))
    assert math.isnan(teacher_accuracy(cells, records))
    records[own.id] = make_record(own, 94.0)
    assert teacher_accuracy(cells, records) == 94.0
    records[kd[0].id] = make_record(kd[0], 80.0)
    assert teacher_accuracy(cells, records) == 95.0
    assert teacher_ids(cells[1:]) == [own.id, helper.run]
