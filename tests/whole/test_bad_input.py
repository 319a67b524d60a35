"""Bad input: all mistakes at once, a clear line for each, exit code 2, and nothing changed."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from small_grids import PLUGIN, cell, expanded, kdbench, mistakes, small, tree, write

from kdbench.grid.grid import GridError
from kdbench.grid.parsing import parse
from kdbench.runs import records

TWO = PLUGIN + "\n\nclass Second(Mine):\n    pass\n"
BARE = '"""None."""\n\nx = 1\n'


def lines(**changes: Any) -> list[str]:
    """Return the mistakes in a grid, without the file's name."""
    with pytest.raises(GridError) as error:
        parse(tree(**changes), source="grid.yaml")
    assert all(line.startswith("grid.yaml: ") for line in error.value.lines)
    return [line.removeprefix("grid.yaml: ") for line in error.value.lines]


# --- a line per mistake ---------------------------------------------------------------------------


def test_one_mistake_is_one_line() -> None:
    assert lines(seeds=["a"]) == ["seeds.0: expected a whole number, not 'a'"]
    [line] = lines(methods=["kdd"], report={"baseline": "kdd"})[:1]
    assert line.startswith("methods.kdd: kdd: unknown method")
    [line] = lines(methods=[{"kd": 3}], report={"baseline": "kd"})
    assert line.startswith("methods.0: ")
    assert lines(seeds=[]) == ["seeds: empty; expected at least one"]


def test_number_of_mistakes_is_limited() -> None:
    messages = lines(pairs=[f"a{i} -> b{i}" for i in range(10_000)])
    assert len(messages) == 101 and messages[-1] == "more than 100 mistakes; these are the first"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"methds": []}, "methds: unknown; accepted: dataset, executor, extends, methods, name, "
         "pairs, protocol, report, seeds, sweep, teacher, teachers, title (did you mean methods?)"),
        ({"source": "x"}, "source: unknown; accepted: dataset, "),
        ({"name": None}, "name: missing"),
        ({"name": "my grid"}, "name: expected letters, digits and . _ -, "),
        ({"name": 3}, "name: expected text, not 3"),
        ({"name": "Index.HTML"}, "name: Index.HTML: results/ has other files of this name; not "
         "accepted: analyses, index.html, transfer"),
        ({"name": "transfer"}, "name: transfer: results/ has other files of this name"),
        ({"name": "CON"}, "name: CON: Windows accepts no folder of this name"),
        ({"name": "nul.x"}, "name: nul.x: Windows accepts no folder of this name"),
        ({"name": "a."}, "name: a.: Windows accepts no folder of this name"),
        ({"name": "."}, "name: expected letters, digits and . _ -, "),
        ({"name": ".hidden"}, "name: expected letters, digits and . _ -, "),
        ({"name": "x" * 300}, "name: expected at most 100 characters, not 'xxx"),
        ({"executor": {"threads": 100_000_000}}, "executor.threads: expected 1024 or less, not 1"),
        ({"executor": {"workers": 100_000_000}}, "executor.workers: expected 1024 or less, not 1"),
        ({"executor": {"slurm": {"memory": "24"}}},
         "executor.slurm.memory: expected a size such as 24 GB, not '24'"),
        ({"dataset": {"name": "cifar100", "per_class": 501}},
         "dataset: per_class: expected at most 500, the images per class of cifar100, not 501"),
        ({"seeds": [2**63]}, "seeds.0: expected at most 9223372036854775807, not 922337203685477"),
        ({"seeds": list(range(100_001))}, "seeds: 100,001 entries; at most 100,000 are accepted"),
        ({"pairs": ["resnet18 -> r8w3"]}, "pairs.0.teacher: resnet18: unknown model; accepted: any "
         "name in `kdbench models` (did you mean ResNet18?)"),
        ({"teachers": {"r8w4": "../x"}}, "teachers.r8w4: expected the id of a run, not '../x'"),
        ({"protocol": {"preset": "demo", "epoch": 3}}, "protocol.epoch: unknown; accepted: "),
        ({"protocol": {"preset": "demo", "epochs": "x"}},
         "protocol.epochs: expected a whole number, not 'x'"),
        ({"protocol": {"epochs": True}}, "protocol.epochs: expected a number, not True"),
        ({"protocol": {"lr": 0}}, "protocol.lr: expected more than 0, not 0"),
        ({"protocol": {"lr": float("inf")}}, "protocol.lr: expected a finite number, not inf"),
        ({"protocol": "semkd"}, "protocol.preset: semkd: unknown; accepted: "),
        ({"protocol": None}, "protocol: missing; presets: "),
        ({"protocol": [1]}, "protocol: expected a preset or a mapping, not [1]; presets: "),
        ({"protocol": {"schedule": {"kind": "stairs"}}},
         "protocol.schedule.kind: 'stairs': unknown; accepted: constant, cosine, step"),
        ({"protocol": {"schedule": {"steps": 3}}},
         "protocol.schedule.steps: unknown; accepted: factor, kind, milestones, warmup"),
        ({"protocol": {"schedule": {"milestones": [3, 2]}}},
         "protocol.schedule: milestones [3, 2] must increase"),
        ({"protocol": {"lr_of": {"vgg9": 0.1}}},
         "protocol.lr_of: vgg9: unknown model; accepted: any name in `kdbench models` "),
        ({"protocol": {"methods": {"att": {}}}}, "protocol.methods.att: att: unknown method; "),
        ({"protocol": {"methods": {"at": {"q": 1}}}}, "protocol.methods.at: q: unknown; AT takes "),
        ({"dataset": None}, "dataset: missing"),
        ({"dataset": "cifar"}, "dataset.name: 'cifar': unknown; accepted: cifar10, cifar100, "),
        ({"dataset": {"name": "digits", "perclass": 3}},
         "dataset.perclass: unknown; accepted: label, label_noise, name, noise_by, "
         "per_class, root, size, subset_seed, transfer, validation (did you mean per_class?)"),
        ({"dataset": {"name": "imagefolder"}}, "dataset: imagefolder needs a root: "),
        ({"dataset": {"name": "digits", "validation": 1.5}},
         "dataset.validation: expected less than 1, not 1.5"),
        ({"executor": {"worker": 3}}, "executor.worker: unknown; accepted: "),
        ({"executor": {"device": "gpu"}},
         "executor.device: expected auto, cpu, cuda or cuda:N, not 'gpu'"),
        ({"executor": {"ranks": 7}}, "executor.ranks: 7: must divide protocol.batch_size, "),
        ({"executor": {"ranks": 7}, "teacher": {"protocol": {"batch_size": 7}}},
         "executor.ranks: 7: must divide protocol.batch_size, "),
        ({"executor": {"ranks": 2, "device": "cuda:1"}},
         "executor.device: cuda:1: one GPU for 2 ranks; expected cuda"),
        ({"executor": "local"}, "executor: expected a mapping of keys to values, not 'local'"),
        ({"report": {"base": "kd"}}, "report.base: unknown; accepted: "),
        ({"report": {"reference": "SemCKD (AAAI 2020)/Table 1"}},
         "report.reference: SemCKD (AAAI 2020)/Table 1: unknown; accepted: "),
        ({"report": {"reference": "CRD / RepDistiller (ICLR 2020)/README table"}},
         "report.reference: CRD / RepDistiller (ICLR 2020)/README table: not unique; "),
        ({"report": {"tie": -1}}, "report.tie: expected 0"),
        ({"report": {"baseline": "kdd"}}, "report.baseline: kdd: unknown; accepted: kd (did you "),
        ({"report": {"ari_of": "semckd"}}, "report.ari_of: semckd: unknown; accepted: kd"),
        ({"teacher": {"sead": 1}}, "teacher.sead: unknown; accepted: dataset, protocol, seed (did"),
        ({"teacher": {"protocol": "x"}}, "teacher.protocol.preset: x: unknown; accepted: "),
        ({"teachers": {"r8w8": "import-1"}},
         "teachers.r8w8: unknown; accepted: r8w4 (did you mean r8w4?)"),
        ({"teachers": {"r8w4": 3}}, "teachers.r8w4: expected text, not 3"),
        ({"seeds": [0, -1]}, "seeds.1: expected 0 or more, not -1"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 is given twice"),
        ({"seeds": []}, "seeds: empty; expected at least one"),
        ({"seeds": 3}, "seeds: expected a list, not 3"),
        ({"seeds": ["a"]}, "seeds.0: expected a whole number, not 'a'"),
        ({"seeds": None}, "seeds: missing"),
        ({"pairs": []}, "pairs: missing; expected a list of TEACHER -> STUDENT"),
        ({"pairs": None}, "pairs: missing; expected a list of TEACHER -> STUDENT"),
        ({"pairs": "r8w4 -> r8w3"}, "pairs: expected a list, not 'r8w4 -> r8w3'"),
        ({"pairs": ["r8w4 => r8w3"]}, "pairs.0: 'r8w4 => r8w3': expected TEACHER -> STUDENT or {"),
        ({"pairs": ["a -> b -> c"]}, "pairs.0: 'a -> b -> c': expected TEACHER -> STUDENT or {"),
        ({"pairs": [{"teacher": "r8w4"}]}, "pairs.0: {'teacher': 'r8w4'}: expected TEACHER -> "),
        ({"pairs": [{"teacher": "r8w4", "studnt": "r8w3"}]}, "pairs.0.student: missing"),
        ({"pairs": [3]}, "pairs.0: 3: expected TEACHER -> STUDENT or {"),
        ({"pairs": ["resnet32x4 -> resnet8x4", "resnet32x4 -> vgg9"]},
         "pairs.1.student: vgg9: unknown model; accepted: any name in `kdbench models` (did you "),
        ({"pairs": ["r8w4 -> r8w3", "r8w4->r8w3"]}, "pairs.1: r8w4 -> r8w3 is given twice"),
        ({"methods": "kd"}, "methods: expected a list, not 'kd'"),
        ({"methods": [3]}, "methods.0: 3: expected NAME, NAME+NAME or {NAME: {key: value}}"),
        ({"methods": [{"kd": {}, "at": {}}]}, "methods.0: {'kd': {}, 'at': {}}: expected NAME, "),
        ({"methods": ["kd+"]}, "methods.0: 'kd+': expected NAME, NAME+NAME or "),
        ({"methods": [{"kd": 3}]}, "methods.0: {'kd': 3}: expected NAME, "),
        ({"methods": ["fitnet"]}, "methods.fitnet: fitnet: unknown method; accepted: ab, at, "),
        ({"methods": ["kd", "kd"]},
         "methods.kd: given twice, as entries 1 and 2; give one of them a `label`"),
        ({"methods": ["at+sp", "sp+at"]}, "methods.sp+at: given twice, as entries 1 and 2; "),
        ({"methods": [{"kd": {"label": "student"}}]},
         "methods.kd: every table already has a row student; give another `label`"),
        ({"methods": ["at+at"]}, "methods.at+at: a method is combined with itself"),
        ({"methods": [{"rkd": {"angel": 3}}]},
         "methods.rkd: angel: unknown; RKD takes distance, angle, eps; every method takes beta, "
         "gamma, alpha, temperature, pretrain_epochs, pretrain_lr, pretrain_lr_of, auxiliary, "
         "label "
         "(did you mean angle?)"),
        ({"methods": [{"at": {"betta": 3}}]},
         "methods.at: betta: unknown; AT takes p; every method takes beta, "),
        ({"methods": [{"at": {"p": "two"}}]}, "methods.at: p: expected int like 2, not 'two'"),
        ({"methods": [{"at": {"beta": -1}}]}, "methods.at: beta: expected 0 or more, not -1"),
        ({"methods": [{"at": {"beta": "x"}}]}, "methods.at: beta: expected a number, not 'x'"),
        ({"methods": [{"at": {"label": ""}}]}, "methods.at: label: empty; expected at least one"),
        ({"methods": [{"at": {"pretrain_epochs": 3}}]},
         "methods.at: pretrain_epochs: AT has no pretraining phase"),
        ({"methods": [{"label_smoothing": {"alpha": 1}}]}, "methods.label_smoothing: alpha: "
         "LabelSmoothing trains without a teacher; combine it: label_smoothing+kd"),
        ({"methods": [{"hkd": {"auxiliary": {"student": "r8w4"}}}]},
         "methods.hkd: auxiliary.method: missing"),
        ({"methods": [{"hkd": {"auxiliary": {"student": "vgg9", "method": "pkt"}}}]},
         "methods.hkd: auxiliary.student: vgg9: unknown model; "),
        ({"methods": [{"hkd": {"auxiliary": {"student": "r8w4", "method": "ptk"}}}]},
         "methods.hkd: auxiliary.method: ptk: unknown method; "),
        ({"methods": [{"at+sp": {"beta": 3}}]},
         "methods.at+sp: beta: ambiguous in a combination; write at: {beta: ...}"),
        ({"methods": [{"at+sp": {"vid": {}}}]}, "methods.at+sp: vid: unknown; accepted: "),
        ({"methods": [{"at+sp": {"at": 3}}]},
         "methods.at+sp: at: expected a mapping of options, not 3"),
        ({"methods": [{"at+sp": {"at": {"q": 1}}}]}, "methods.at+sp: at.q: unknown; AT takes p; "),
        ({"methods": [{"at+sp": {"at": {"p": "x"}}}]},
         "methods.at+sp: at.p: expected int like 2, not 'x'"),
        ({"methods": [{"at+sp": {"at": {"beta": "x"}}}]},
         "methods.at+sp: at.beta: expected a number, not 'x'"),
        ({"methods": [{"confidence_penalty": {"threshold": {1, 2}}}]},
         "methods.confidence_penalty: threshold: expected a number, text or a list of them, "
         "not {1, 2}"),
        ({"sweep": {"at.beta": [1]}}, "sweep.at.beta: expected METHOD.OPTION; methods: kd"),
        ({"sweep": {"kd": [1]}}, "sweep.kd: expected METHOD.OPTION; methods: kd"),
        ({"sweep": {"kd.tau": [1]}}, "sweep.kd.tau: tau: unknown; KD takes temperature"),
        ({"sweep": {"kd.beta": []}}, "sweep.kd.beta: expected a list of values, not []"),
        ({"sweep": {"kd.beta": 3}}, "sweep.kd.beta: expected a list"),
        ({"sweep": {"kd.beta": [1, 1.0]}}, "sweep.kd.beta: 1.0 is given twice"),
        ({"sweep": {"kd.beta": [1, "x", -1]}}, "sweep.kd.beta: beta: expected a number, not 'x'"),
        ({"sweep": [1]}, "sweep: expected a mapping of keys to values, not [1]"),
    ],
)  # fmt: skip
def test_mistake_is_reported_in_one_line(changes: dict[str, Any], line: str) -> None:
    messages = lines(**changes)
    assert messages[0].startswith(line)


def test_all_mistakes_are_reported_at_once() -> None:
    messages = lines(
        nam="x", seeds=[0, 0, -1], pairs=["r8w4 > r8w3", "vgg9 -> vgg8"], protocol={"lr": -1},
        dataset={"name": "digits", "size": 0}, methods=["kd", "kdd", {"at": {"p": "x", "q": 1}}],
        sweep={"x.y": [1]}, executor={"threads": 0}, report={"baseline": "z", "title": 1},
    )  # fmt: skip
    keys = [line.partition(":")[0] for line in messages]
    assert keys == [
        "nam", "dataset.size", "protocol.lr", "pairs.0", "report.title", "executor.threads",
        "seeds.2", "seeds", "pairs.1.teacher", "methods.kdd", "methods.at", "methods.at",
        "sweep.x.y",
    ]  # fmt: skip


# --- plugins --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BARE, "mine.py: no subclass of Method"),
        (TWO, "expected one method per file, not Mine and Second"),
        ("class (", "mine.py:1: invalid syntax"),
        (None, "mine.py: no such file"),
        (PLUGIN.replace("width: int = 8", "width: int"), "hyper-parameter width has no default"),
    ],
)
def test_plugins_without_a_valid_method_are_refused(
    tmp_path: Path, text: str | None, problem: str
) -> None:
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    [line] = mistakes("plan", "--grid", write(tmp_path, methods=["./mine.py"]))
    assert line.startswith(f"{tmp_path / 'grid.yaml'}: methods.mine: ") and problem in line


def test_plugin_in_a_folder_with_a_plus_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "c++"
    folder.mkdir()
    (folder / "mine.py").write_text(PLUGIN)
    [line] = mistakes("plan", "--grid", write(folder, methods=["./mine.py"]))
    assert "a path must not contain +, which combines methods" in line


def test_plugin_that_fails_gives_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("(s.logits", "(s.logit"))
    result = kdbench(
        "run", "--grid", write(tmp_path, methods=["./mine.py"]), "--runs", tmp_path / "runs",
        "--results", tmp_path / "results",
    )  # fmt: skip
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "AttributeError" in result.stdout
    assert "1 run failed" in result.stderr


def test_incompatible_method_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, pairs=["r8w4 -> v5w4"], methods=["reviewkd", "kd"], dataset="digits")
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    path.write_text(path.read_text().replace("reviewkd", "./never.py"))
    never = PLUGIN.replace("import Batch,", "import Batch, Incompatible,").replace(
        "super().__init__(setup)", "raise Incompatible('never works')"
    )
    (tmp_path / "never.py").write_text(never)
    plan = kdbench("plan", "--grid", path, *folders[:2])
    assert "skipped: never works" in plan.stdout
    result = kdbench("run", "--grid", path, *folders)
    assert result.exit_code == 0 and "never: skipped: never works" in result.stdout
    assert "1 skipped" in kdbench("status", "--grid", path, *folders[:2]).stdout


# --- files and folders ----------------------------------------------------------------------------


def test_unreadable_grids_are_reported(tmp_path: Path) -> None:
    assert mistakes("plan", "--grid", tmp_path / "no.yaml") == [f"{tmp_path}/no.yaml: no such file"]
    [line] = mistakes("status", "--grid", tmp_path)
    assert line == f"{tmp_path}: cannot be read: Is a directory"
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nseeds: [0, 1\npairs: []\n")
    [line] = mistakes("run", "--grid", path)
    assert line.startswith(f"{path}:3:") and "not YAML" in line
    path.write_text("extends: none.yaml\n")
    [line] = mistakes("report", "--grid", path)
    assert line.startswith(f"{path}: extends: none.yaml: no such file")


def test_mistakes_in_set_and_executor_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path)
    [line] = mistakes("plan", "--grid", path, "--set", "epochs")
    assert line == "--set epochs: expected KEY=VALUE, e.g. protocol.epochs=2"
    [line] = mistakes("plan", "--grid", path, "--set", "protocol.epochs=none")
    assert line == f"{path}: protocol.epochs: expected a whole number, not 'none'"
    result = kdbench("run", "--grid", path, "--executor", "cloud")
    assert result.exit_code == 2 and "'cloud' is not one of" in result.stderr
    result = kdbench("plan", "--grid", path, "--sett", "a=b")
    assert result.exit_code == 2 and "No such option" in result.stderr


@pytest.mark.parametrize("command", ["plan", "run"])
def test_missing_teacher_stops_the_command(tmp_path: Path, command: str) -> None:
    path = write(tmp_path, teachers={"r8w4": "import-0123"})
    runs = tmp_path / "runs"
    [line] = mistakes(command, "--grid", path, "--runs", runs)
    assert line.startswith(f"{path}: teachers.r8w4: import-0123: no such run in {runs}")
    assert not runs.exists()


def test_runs_folder_that_is_a_file_is_reported(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.write_text("a file")
    grid = write(tmp_path)
    [line] = mistakes("run", "--grid", grid, "--runs", runs)
    assert line == f"{runs}: cannot be written: File exists"
    assert kdbench("status", "--grid", grid, "--runs", runs).exit_code == 0
    assert mistakes("show", "abc", "--runs", runs) == [f"{runs}: no such folder of runs"]
    assert "is a file" in kdbench("doctor", "--runs", runs).stdout
    assert runs.read_text() == "a file"


def test_run_resumes_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, runs = write(tmp_path), tmp_path / "runs"
    teacher = cell(expanded(), "teacher").runs[0]
    real = os.fsync

    def full(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if "record.json" in name and teacher.id not in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    folders = ("--runs", runs, "--results", tmp_path / "results")
    result = kdbench("run", "--grid", path, *folders)
    assert result.exit_code == 2
    [line] = [line for line in result.stderr.splitlines() if line.startswith("kdbench: ")]
    assert "disk full" in line and "the same command resumes" in line
    monkeypatch.setattr(os, "fsync", real)
    assert records.read(runs, teacher.id) is not None
    assert kdbench("run", "--grid", path, *folders).exit_code == 0


def test_results_folder_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    path = write(tmp_path)
    result = kdbench("report", "--grid", path, "--results", tmp_path / "results")
    assert result.exit_code == 2 and "Traceback" not in result.output


def test_damaged_record_is_reported_and_can_be_retried(tmp_path: Path) -> None:
    path, run = write(tmp_path), expanded().runs[0]
    (tmp_path / run.id).mkdir()
    (tmp_path / run.id / "record.json").write_text('{"run": ')
    for command in ("plan", "status", "report"):
        extra = ("--results", tmp_path / "results")
        [line] = mistakes(command, "--grid", path, "--runs", tmp_path, *extra)
        assert line.startswith(f"{tmp_path / run.id / 'record.json'}: not a record")
    assert run.id in kdbench("retry", "--grid", path, "--runs", tmp_path).stdout
    assert kdbench("status", "--grid", path, "--runs", tmp_path).exit_code == 0


# --- other commands -------------------------------------------------------------------------------


def test_show_reports_unknown_runs(tmp_path: Path) -> None:
    assert mistakes("show", "abc", "--runs", tmp_path) == [f"{tmp_path}/abc: no such run"]
    for name in ("abc1", "abc2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    [line] = mistakes("show", "abc", "--runs", tmp_path)
    assert line == f"{tmp_path}/abc: the ids of 2 runs begin so: abc1, abc2"
    [line] = mistakes("show", "abc1", "--runs", tmp_path)
    assert line.startswith(f"{tmp_path}/abc1/run.json: not a run: ")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--method", "kd"], "give --method and --teacher together"),
        (["--teacher", "r8w4"], "give --method and --teacher together"),
        (["--option", "beta=3"], "--option is for a method"),
        (
            ["--method", "kdd", "--teacher", "r8w4"],
            "kdbench train: methods.kdd: kdd: unknown method",
        ),
        (
            ["--method", "kd", "--teacher", "r9"],
            "kdbench train: pairs.0.teacher: r9: unknown model",
        ),
        (
            ["--method", "kd", "--teacher", "r8w4", "--option", "x"],
            "--option x: expected KEY=VALUE",
        ),
        (["--method", "kd", "--teacher", "r8w4", "--option", "x=1"], "methods.kd: x: unknown"),
        (["--dataset", "{name: "], "--dataset {name: : not YAML: "),
        (["--dataset", "cifar"], "kdbench train: dataset.name: 'cifar': unknown"),
        (["--protocol", "x"], "kdbench train: protocol.preset: x: unknown"),
        (["--set", "x"], "--set x: expected KEY=VALUE"),
        (["--set", "teachers={r8w3: import-x}"], "teachers.r8w3: import-x: no such run"),
    ],
)
def test_mistakes_in_flags_of_train_are_reported(
    tmp_path: Path, flags: list[str], problem: str
) -> None:
    base = ("train", "--student", "r8w3", "--dataset", "synthetic", "--runs", tmp_path / "runs")
    assert problem in mistakes(*base, *flags)[0]
    assert not (tmp_path / "runs").exists()


def test_negative_seed_of_train_is_refused() -> None:
    result = kdbench("train", "--student", "r8w3", "--dataset", "synthetic", "--seed", -1)
    assert result.exit_code == 2 and "Invalid value for '--seed'" in result.stderr


def test_unusable_checkpoints_are_refused(tmp_path: Path) -> None:
    from kdbench.models import zoo

    good, cut, code = (tmp_path / name for name in ("good.pth", "cut.pth", "code.pth"))
    torch.save({"model": zoo.create("r8w3", num_classes=10).state_dict()}, good)
    cut.write_bytes(good.read_bytes()[:2000])
    torch.save({"model": Path("x")}, code)
    runs = tmp_path / "runs"
    base = ("--dataset", "synthetic", "--runs", runs)
    for path, arch, problem in (
        (good, "r8w4", "good.pth as r8w4: conv1.weight is [3, 3, 3, 3] in the checkpoint"),
        (good, "vgg9", "--arch vgg9: unknown model"),
        (cut, "r8w3", "cut.pth: damaged or not a checkpoint"),
        (code, "r8w3", "code.pth: refused: "),
        (tmp_path / "none.pth", "r8w3", "none.pth: no such file"),
        (tmp_path, "r8w3", "damaged or not a checkpoint"),
    ):
        [line] = mistakes("teacher", "import", path, "--arch", arch, *base)
        assert problem in line, line
    [line] = mistakes("teacher", "import", good, *base)
    assert line.endswith("no architecture in the folder's name; give --arch")
    [line] = mistakes("teacher", "import", good, "--arch", "r8w3", "--dataset", "x")
    assert "dataset.name: 'x': unknown" in line
    assert not runs.exists()


def test_unknown_commands_and_pairs_are_reported() -> None:
    result = kdbench("stauts")
    assert result.exit_code == 2 and "Did you mean status?" in result.stderr
    [line] = mistakes("methods", "--pair", "resnet32x4")
    assert line.startswith("--pair resnet32x4: expected 'TEACHER -> STUDENT'")


def test_missing_data_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, dataset="cifar100")
    flags = ("--runs", tmp_path / "runs", "--data", tmp_path / "data")
    result = kdbench("run", "--grid", path, *flags, "--results", tmp_path / "results")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert any("cifar100" in line for line in result.stderr.splitlines())


def test_unchanged_grid_is_valid() -> None:
    assert small().source == "grid.yaml"


def test_plugin_that_cannot_be_imported_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"import nowhere_to_be_found\n{PLUGIN}")
    grid = write(tmp_path, methods=["kd", "./mine.py"])
    runs = tmp_path / "runs"
    done = kdbench("run", "--grid", grid, "--runs", runs, "--results", tmp_path / "results")
    assert done.exit_code == 2
    assert "mine.py: cannot be imported: ModuleNotFoundError: No module named" in done.output
    assert not list(runs.glob("*/record.json"))
