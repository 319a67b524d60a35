"""The plan of a grid."""

import re
from pathlib import Path

import pytest
import torch
from fake_grids import make_record
from small_grids import cell, expanded, kdbench, mistakes, small, write

from kdbench.cli import plan, planned_device
from kdbench.cli.plan_text import text
from kdbench.cost import gpu_speed, speed
from kdbench.errors import UserError
from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.grid.run import Run
from kdbench.grid.yaml_tree import ROOT
from kdbench.runs import records
from kdbench.runs.records import Record


def rendered(runs: Path, **changes: object) -> list[str]:
    return text(plan.estimated(small(**changes), expanded(**changes), runs, 1.0)).splitlines()


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


def test_options_of_a_pair_are_shown_under_its_name(tmp_path: Path) -> None:
    options = {"dkd": {"rest": 2}}
    pairs = ["r8w4 -> r8w3", {"teacher": "r8w4", "student": "v5w4", "options": options}]
    lines = rendered(tmp_path, methods=["dkd"], pairs=pairs)
    assert lines[lines.index("r8w4 -> v5w4") + 1] == "  (dkd: rest 2)"
    assert lines[lines.index("r8w4 -> r8w3") + 1].split()[0] == "student"


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
    lines = text(plan.estimated(grid, expand(grid), tmp_path, 1.0)).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert not any("fails" in line or "skipped" in line for line in lines)
    methods = {row.label for row in grid.methods}
    assert methods <= {line[2:30].strip().split("  ")[0] for line in lines}


# --- devices -------------------------------------------------------------------------------------

SECONDS_OF_RUN = 7200.0


class Card:
    """Properties of a GPU, as torch gives them."""

    name, total_memory, major, minor = "NVIDIA H200", 140 * 2**30, 9, 0


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> type[Card]:
    """Pretend that there are two GPUs; each run takes two hours on them."""

    class Own(Card):
        pass

    def measured(run: object, shape: object, device: torch.device, **options: object) -> float:
        assert device.type == "cuda"
        return SECONDS_OF_RUN

    monkeypatch.setattr(planned_device, "gpu_of", lambda executor: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Own)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: Own.name)
    monkeypatch.setattr(plan, "workers", lambda executor: 2)
    monkeypatch.setattr(gpu_speed, "run_seconds", measured)
    monkeypatch.setattr(speed.Speed, "seconds_of", lambda *_: pytest.fail("measures the CPU"))
    return Own


def measured_plan(runs: Path, **changes: object) -> list[str]:
    return text(plan.estimated(small(**changes), expanded(**changes), runs, None)).splitlines()


def test_hours_are_those_of_the_gpu_that_will_train(tmp_path: Path, card: type[Card]) -> None:
    lines = measured_plan(tmp_path)
    assert all(len(line) <= 80 for line in lines)
    rows = [line.split() for line in lines if line.startswith("  ") and " pending " in line]
    assert len(rows) == 3 and all("2.0 h" in " ".join(row) for row in rows)
    assert "6.0 h of training, 2 at a time: 3.0 h" in lines
    assert "measured on NVIDIA H200, where possible with CUDA graphs" in lines
    assert any(re.fullmatch(r"largest cohort: .* on a GPU \(.* CUDA, data, .*\)", x) for x in lines)
    assert "CPU" not in "".join(lines)
    lines = measured_plan(tmp_path, executor={"graphs": "never"})
    assert "measured on NVIDIA H200, without CUDA graphs" in lines


def test_cpu_is_named_as_the_device_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed.Speed, "seconds_of", lambda *_: 3600.0)
    lines = measured_plan(tmp_path, executor={"device": "cpu", "workers": 3})
    assert "3.0 h of training, 3 at a time: 1.0 h" in lines
    assert "measured on this CPU, 1 thread per worker" in lines


def test_hours_of_a_cpu_are_not_divided_among_workers_with_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed.Speed, "seconds_of", lambda *_: 3600.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    changes = {"executor": {"device": "cuda", "workers": 3}}
    lines = measured_plan(tmp_path, **changes)
    assert "3.0 h of training" in lines
    note = "measured on this CPU, but the grid trains on GPUs: --tflops N estimates those"
    assert note in lines and len(note) <= 80
    assert any("on a GPU (" in line for line in lines)
    assert any(" of training, 3 at a time: " in line for line in rendered(tmp_path, **changes))
    jobs = {"executor": {"kind": "slurm", "slurm": {"gpus": 1}}}
    assert note in measured_plan(tmp_path, **jobs)


def test_hours_of_given_tflops_are_not_divided_among_this_machines_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("kdbench.runs.environment.cores", lambda: 8)
    paper = {"executor": {"device": "auto"}}
    assert any(" of training, 1 at a time: " in line for line in rendered(tmp_path, **paper))
    jobs = {"executor": {"kind": "slurm", "device": "cpu"}}
    [line] = [line for line in rendered(tmp_path, **jobs) if " of training" in line]
    assert "at a time" not in line


def test_card_too_small_is_a_row_of_its_own(tmp_path: Path, card: type[Card]) -> None:
    card.total_memory = 2**30
    lines = measured_plan(tmp_path)
    alone = [i for i, x in enumerate(lines) if "of the GPU's 1.0 GB even alone" in x]
    assert len(alone) == 3
    assert all(len(lines[i]) <= 80 and lines[i - 1].endswith("MB") for i in alone)
    assert "NVIDIA H200 has 1.0 GB: larger cohorts are split" in lines


def test_settings_that_need_a_gpu_are_warned_of(tmp_path: Path, card: type[Card]) -> None:
    tf32 = {"protocol": {"preset": "demo", "precision": "tf32"}}
    here = {"executor": {"device": "cpu", "graphs": "always"}}

    def warned(**changes: object) -> list[str]:
        return [line for line in rendered(tmp_path, **changes) if " needs a GPU" in line]

    assert warned(**tf32) == []
    card.major = 7
    assert warned(**tf32) == [
        "protocol.precision: tf32 needs a GPU of capability 8.0 or newer; NVIDIA H200 has 7.0; "
        "accepted there: fp32, bf16"
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned_device, "gpu_of", lambda executor: None)
        assert warned(**tf32, **here) == [
            "protocol.precision: tf32 needs a GPU; accepted on a CPU: fp32, bf16",
            "executor.graphs: always needs a GPU; accepted on a CPU: auto, never",
        ]
        assert warned(**tf32, executor={"device": "cuda"}) == []
        assert warned() == []


def test_methods_that_could_not_be_measured_are_named(
    tmp_path: Path, card: type[Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(run: Run, *rest: object, **options: object) -> float:
        if run.method == "kd":
            raise torch.OutOfMemoryError("CUDA out of memory. " + 30 * "Tried to allocate ")
        return SECONDS_OF_RUN

    monkeypatch.setattr(gpu_speed, "run_seconds", measured)
    lines = measured_plan(tmp_path)
    told = [line for line in lines if line.startswith("kd: estimated from other runs, not")]
    assert len(told) == 1 and "OutOfMemoryError: CUDA out of memory" in told[0]


def test_gpu_that_torch_cannot_use_gives_one_line(
    card: type[Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(device: object) -> object:
        raise RuntimeError("The NVIDIA driver on your system is too old\nmore")

    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    with pytest.raises(
        UserError, match=r"^executor.device: cpu: cuda:0 cannot be used: .*too old$"
    ):
        planned_device.device_of(small().executor)
