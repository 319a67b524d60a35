"""Missing runs and their grouping into cohorts."""

from collections import Counter
from pathlib import Path

from debug_runner import teacher_and_students
from tiny_runs import alone, taught

from kdbench.execution import work
from kdbench.runs import records
from kdbench.runs.records import Record


def test_cohorts_share_teacher_and_seed_and_teachers_come_first() -> None:
    runs = teacher_and_students()
    groups = work.cohorts(runs, most=16, workers=1)
    assert groups[0] == (runs[0],)
    assert sorted(len(group) for group in groups[1:]) == [1, 1, 3, 3]
    assert all(len({run.shared for run in group}) == 1 for group in groups)
    assert Counter(run.id for group in groups for run in group) == Counter(r.id for r in runs)
    assert max(len(group) for group in work.cohorts(runs, most=2, workers=1)) == 2


def test_several_workers_get_enough_cohorts() -> None:
    teacher = alone(student="r8w4")
    runs = [teacher, *(taught(teacher, "kd", student=f"r8w{w}") for w in range(3, 19))]
    groups = work.cohorts(runs, most=16, workers=2)
    assert len(groups) - 1 >= 8


def test_runs_with_a_record_are_not_missing(tmp_path: Path) -> None:
    runs = teacher_and_students()
    records.write_run(tmp_path, runs[1])
    records.write(tmp_path, Record(runs[1].id, "failed", "why not"))
    assert work.missing(runs, tmp_path) == [runs[0], *runs[2:]]
