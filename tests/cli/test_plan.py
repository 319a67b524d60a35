"""The plan of a grid."""

import re
from pathlib import Path

import pytest
from fake_grids import make_record
from small_grids import cell, expanded, kdbench, mistakes, small, write

from kdbench.cli import plan
from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.grid.yaml_tree import ROOT
from kdbench.runs import records
from kdbench.runs.records import Record


def rendered(runs: Path, **changes: object) -> list[str]:
    return plan.render(small(**changes), expanded(**changes), runs, 1.0).splitlines()


def test_plan_fits_eighty_columns_and_adds_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "process_bytes", lambda: 4e8)  # the test process itself is larger
    changes = {"methods": ["kd", "ft", "semckd+at"], "seeds": [0, 1]}
    lines = rendered(tmp_path, **changes)
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines[:8]] == [
        "method", "r8w4", "teacher", "r8w4", "student", "kd", "ft", "semckd+at",
    ]  # fmt: skip
    assert "small: 9 runs (9 pending); 9 to train in " in lines[9]
    assert "at 1 TFLOP/s (--tflops)" in lines[11]
    assert lines[12].startswith("largest cohort: 0.")


def test_largest_cohort_holds_all_learners_and_one_step(tmp_path: Path) -> None:
    def largest(**executor: object) -> tuple[float, float, float]:
        changes: dict[str, object] = {
            "methods": ["semckd", "kd", "ft"],
            "pairs": ["vgg13 -> vgg8"],
            "dataset": "cifar100",
            "executor": {"device": "cpu", "workers": 1} | executor,
        }
        line = next(x for x in rendered(tmp_path, **changes) if x.startswith("largest cohort"))
        match = re.fullmatch(
            r"largest cohort: ([\d.]+) GB on a CPU \(([\d.]+) torch, data, teacher; "
            r"([\d.]+) learners\)", line
        )  # fmt: skip
        assert match
        total, shared, own = map(float, match.groups())
        return total, shared, own

    cohort, single = largest(cohort=16), largest(cohort=1)
    assert cohort[0] == pytest.approx(cohort[1] + cohort[2], abs=0.11)
    assert cohort[1] == pytest.approx(single[1], abs=0.11)
    assert single[2] < cohort[2] < 2 * single[2]  # three steps at once would need more


def test_states_and_missing_runs_are_counted(tmp_path: Path) -> None:
    expansion = expanded(seeds=[0, 1])
    teacher, kd = cell(expansion, "teacher").runs[0], cell(expansion, "kd").runs
    for run in (teacher, kd[0]):
        records.write_run(tmp_path, run)
    records.write(tmp_path, make_record(kd[0], 50.0))
    records.write(tmp_path, Record(teacher.id, "failed", "x"))
    records.write_run(tmp_path, kd[1])
    lines = rendered(tmp_path, seeds=[0, 1])
    assert any("1 done, 1 blocked" in line for line in lines)
    assert any("5 runs (1 done, 2 pending, 1 blocked, 1 failed); 3 to train" in x for x in lines)


def test_imported_teachers_and_auxiliaries(tmp_path: Path) -> None:
    row = {"hkd": {"auxiliary": {"student": "r8w8", "method": "pkt"}}}
    lines = rendered(tmp_path, methods=[row], teachers={"r8w4": "import-1"})
    assert any(line.split() == ["teacher", "0", "imported"] for line in lines)
    assert lines[1:3] == ["r8w4 -> r8w8", lines[2]] and "pkt (auxiliary)" in lines[2]


def test_impossible_runs_are_reported(tmp_path: Path) -> None:
    lines = rendered(tmp_path, dataset={"name": "synthetic", "per_class": 3})
    assert "    fails: 30 training images do not fill a batch of 64" in lines


def test_missing_image_folders_are_reported(tmp_path: Path) -> None:
    root, far = tmp_path / "pets", tmp_path / "far"
    path = write(tmp_path, dataset={"name": "imagefolder", "root": str(root), "size": 8})
    command = ("plan", "--grid", path, "--runs", tmp_path / "runs", "--tflops", 1)
    rest = (
        ": put images there, train/CLASS/* and test/CLASS/*, or set the data set's root to a "
        "folder that has them"
    )
    assert mistakes(*command) == [f"{path}: no image folder {root}{rest}"]
    teacher = f"teacher.dataset={{name: imagefolder, root: {far}, size: 8}}"
    both = mistakes(*command, "--set", teacher)
    assert both == [f"{path}: no image folder {folder}{rest}" for folder in (far, root)]
    (root / "train" / "cat").mkdir(parents=True)
    assert mistakes(*command) == [f"{path}: no image folder {root}{rest}"]
    (root / "test" / "cat").mkdir(parents=True)
    done = kdbench(*command)
    assert done.exit_code == 0
    assert "fails: 0 training images do not fill a batch of 64" in done.stdout


def test_finished_runs_need_no_images(tmp_path: Path) -> None:
    changes = {"dataset": {"name": "imagefolder", "root": str(tmp_path / "gone"), "size": 8}}
    for run in expanded(**changes).runs:
        records.write_run(tmp_path, run)
        records.write(tmp_path, make_record(run, 50.0))
    lines = rendered(tmp_path, **changes)
    assert any("(3 done); 0 to train" in line for line in lines)
    assert lines.count(f"    cost unknown: no image folder {tmp_path / 'gone'}") == 3


def test_rough_estimates_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SECONDS", 0.0)
    changes = {"methods": ["semckd"], "pairs": ["r8w4 -> r8w3", "r8w4 -> r8w5"]}
    lines = rendered(tmp_path, **changes)
    marked = [line for line in lines if line.endswith("~")]
    assert len(marked) == 1 and lines[-1].startswith("~ ")
    path = write(tmp_path, **changes)
    result = kdbench("plan", "--grid", path, "--tflops", 1, "--exact")
    assert "~" not in result.stdout


@pytest.mark.parametrize("name", ["few_shot_50", "label_noise_30", "semckd_ablation"])
def test_experiments_of_the_papers_can_be_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SECONDS", 0.0)
    grid = load(ROOT / "experiments" / f"{name}.yaml", ("seeds=[0]",))
    lines = plan.render(grid, expand(grid), tmp_path, 1.0).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert not any("fails" in line or "skipped" in line for line in lines)
    methods = {row.label for row in grid.methods}
    assert methods <= {line[2:30].strip().split("  ")[0] for line in lines}
