"""``kdbench train``: from flags to runs, and from each run to a command that repeats it."""

import hashlib
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small_grids import PLUGIN, cell, expanded, first, kdbench, small

from kdbench.cli import main
from kdbench.grid import repeat_command
from kdbench.grid.expand import expand
from kdbench.grid.repeat_command import BY_GRID, Commands
from kdbench.grid.run import Run, Teacher
from kdbench.grid.train_command import TrainFlags, one_cell
from kdbench.registry import lookup
from kdbench.runs import records
from kdbench.runs.evidence import without_local_paths


def parsed_command(run: Run, runs: Path) -> tuple[Run, str]:
    """Return the run of a run's command, parsed as by a shell, and the command."""
    line = Commands(partial(records.read_run, runs))(run)
    program, name, *words = shlex.split(line)
    assert (program, name) == ("kdbench", "train"), line
    context = main.commands["train"].make_context("train", words)
    values = context.params
    _, needed = one_cell(
        TrainFlags(
            **{key: values[key] for key in ("student", "dataset", "protocol", "method", "teacher")},
            seed=values["seed"],
            options=values["options"],
            overrides=values["overrides"],
        )
    )
    return needed[-1], line


ROUND_TRIPS: list[tuple[str, dict[str, Any]]] = [
    ("student", {"protocol": "semckd"}),
    ("teacher", {"protocol": "semckd"}),
    ("kd", {"protocol": "crd"}),
    ("kd", {"protocol": {"preset": "crd", "epochs": 3}, "seeds": [5]}),
    ("semckd+at", {"methods": ["semckd+at"], "protocol": "semckd"}),
    ("semckd+at", {"methods": [{"semckd+at": {"at": {"beta": 3, "p": 4}, "alpha": 0.5}}]}),
    ("ft", {"methods": [{"ft": {"pretrain_epochs": 3, "k": 0.25}}]}),
    ("fsp", {"methods": ["fsp"], "protocol": "crd"}),
    ("irg", {"methods": [{"irg": {"variant": "semckd", "layers_s": [1, 2], "layers_t": [1, 2]}}]}),
    ("at", {"methods": [{"at": {"label": "a label", "beta": 7}}]}),
    ("label_smoothing", {"methods": [{"label_smoothing": {"epsilon": 0.2}}]}),
    ("confidence_penalty", {"methods": [{"confidence_penalty": {"threshold": 0.5}}]}),
    ("kd", {"dataset": {"name": "synthetic", "per_class": 8, "validation": 0.1, "size": 16}}),
    ("kd", {"dataset": {"name": "imagefolder", "root": "my images", "label": "a, b: {c}"}}),
    ("kd", {"protocol": {"epochs": 2, "schedule": {"milestones": [1]}, "gamma": 0.5}}),
    ("kd", {"pairs": [{"teacher": "r8w4", "student": "r8w3", "lr": 0.3}], "protocol": "semckd"}),
    ("kd", {"pairs": [{"teacher": "vgg8", "student": "MobileNetV2", "lr": 1}], "protocol": "crd"}),
    ("kd", {"teachers": {"r8w4": "import-0123"}}),
    ("kd", {"teacher": {"seed": 7}}),
    ("kd", {"teacher": {"seed": 7, "dataset": {"name": "synthetic", "per_class": 9}}}),
    ("kd", {"teacher": {"protocol": {"preset": "crd", "epochs": 4}}, "protocol": "semckd"}),
    ("hkd", {"methods": [{"hkd": {"auxiliary": {"student": "r8w8", "method": "pkt"}}}]}),
    ("hkd", {"methods": [{"hkd": {"auxiliary": {"student": "r8w8", "method": "pkt"}}}],
             "teacher": {"seed": 2}}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "changes"), ROUND_TRIPS)
def test_command_gives_the_same_run(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    expansion = expanded(**changes)
    for run in expansion.runs:
        records.write_run(tmp_path, run)
    label = "a label" if "label" in str(changes.get("methods")) and method == "at" else method
    run = next(row.runs[0] for row in expansion.cells if row.method == label)
    repeated_run, line = parsed_command(run, tmp_path)
    assert repeated_run.id == run.id
    assert (repeated_run.dataset, repeated_run.training) == (run.dataset, run.training)
    assert "preset: demo" not in line or run.training.epochs != 60


def test_command_omits_values_of_preset(tmp_path: Path) -> None:
    run = first("semckd", methods=["semckd"], protocol="semckd", dataset="cifar100", seeds=[3])
    assert Commands(partial(records.read_run, tmp_path))(run) == (
        "kdbench train --method semckd --teacher r8w4 --student r8w3 --dataset cifar100 "
        "--protocol semckd --seed 3"
    )
    swept = first(
        "semckd(beta=100)", methods=["semckd"], sweep={"semckd.beta": [100]}, protocol="semckd"
    )
    assert Commands(partial(records.read_run, tmp_path))(swept).endswith(
        "--protocol semckd --seed 0 --option beta=100"
    )
    alone = first("student", protocol="crd")
    assert Commands(partial(records.read_run, tmp_path))(alone) == (
        "kdbench train --student r8w3 --dataset synthetic --protocol crd --seed 0"
    )


def test_commands_of_plugins_and_combinations(tmp_path: Path) -> None:
    path = tmp_path / "it's mine.py"
    path.write_text(PLUGIN)
    name = "it's mine"
    for row in (str(path), {str(path): {"width": 3, "limit": 2.0}}):
        run = first(name, methods=[row])
        assert parsed_command(run, tmp_path)[0].id == run.id
    both = {f"kd+{path}": {name: {"width": 4}, "kd": {"temperature": 2}}}
    run = first(f"kd+{name}", methods=[both])
    assert parsed_command(run, tmp_path)[0].id == run.id
    digest = hashlib.sha256(PLUGIN.encode()).hexdigest()[:16]
    for change in ("# changed\n", ""):
        path.write_text(PLUGIN + change) if change else path.unlink()
        line = Commands(partial(records.read_run, tmp_path))(run)
        command, _, needs = line.partition("  # needs ")
        assert needs.startswith(f"{path} with sha256 {digest}")
        path.write_text(PLUGIN)
        assert one_cell_of(command).id == run.id


def test_published_command_of_a_plugin_does_not_depend_on_its_file(tmp_path: Path) -> None:
    """The command is that of a run with the same id, if the reader has the file with the sha256."""
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    grid = small(methods=[{f"kd+{path}": {"mine": {"width": 3, "beta": 5}, "alpha": 0.25}}])
    expansion = expand(grid)
    run = cell(expansion, "kd+mine").runs[0]
    digest = hashlib.sha256(PLUGIN.encode()).hexdigest()
    digests = {digest: {"mine.py": digest}}
    line = Commands.of_grid(grid, expansion.cells, without_local_paths, digests)(run)
    command, _, needs = line.partition("  # needs ")
    assert needs == f"/PATH/mine.py with sha256 {digest[:16]}"
    assert str(tmp_path) not in line
    assert one_cell_of(command.replace("/PATH", str(tmp_path))).id == run.id
    path.unlink()
    assert Commands.of_grid(grid, expansion.cells, without_local_paths, digests)(run) == line


def test_published_command_names_each_file_that_a_plugin_imports(tmp_path: Path) -> None:
    """Each digest is that of a file: the run's id has one digest of all files."""
    text, parts = "from mine_parts import scale\n" + PLUGIN, "scale = 2.0\n"
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "mine_parts.py").write_text(parts)
    grid = small(methods=[str(tmp_path / "mine.py")])
    expansion = expand(grid)
    run = cell(expansion, "mine").runs[0]
    source = str(run.terms[0].source)
    digests = {source: lookup.describe(str(tmp_path / "mine.py")).digests}
    line = Commands.of_grid(grid, expansion.cells, without_local_paths, digests)(run)
    one, other = (hashlib.sha256(content.encode()).hexdigest()[:16] for content in (text, parts))
    assert line.partition("  # needs ")[2] == (
        f"/PATH/mine.py with sha256 {one}, /PATH/mine_parts.py with sha256 {other}"
    )
    packaged = replace(run, terms=(replace(run.terms[0], path=None),))
    line = Commands.of_grid(grid, expansion.cells, without_local_paths, digests)(packaged)
    assert line.startswith("kdbench train --method mine ")
    assert line.partition("  # needs ")[2] == (
        f"mine from a package: mine.py with sha256 {one}, mine_parts.py with sha256 {other}"
    )
    line = Commands.of_grid(grid, expansion.cells, without_local_paths)(run)
    assert line.endswith(
        f"/PATH/mine.py with sha256 {source[:16]} (of it and the files that it imports, if any)"
    )


def test_hostile_names_of_files_stay_in_the_comment(tmp_path: Path) -> None:
    """A reader pastes the line into a shell, and a new line would end the comment."""
    path = tmp_path / "x\nrm -rf x.py"
    path.write_text(PLUGIN)
    grid = small(methods=[{str(path): {"label": "mine"}}])
    cells = expand(grid).cells
    run = next(cell for cell in cells if cell.method == "mine").runs[0]
    for digests in ({}, {str(run.terms[0].source): {path.name: "\n" * 16, "y\n.py": "\nls"}}):
        line = Commands.of_grid(grid, cells, without_local_paths, digests)(run)
        assert "\n" in line.partition("  # needs ")[0]  # quoted there
        assert "\n" not in line.partition("  # needs ")[2]


def test_auxiliary_teachers_beside_methods_outside_kdbench(tmp_path: Path) -> None:
    """A row with such a method hides no teacher, whether its file is there or not."""
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    helped = {"auxiliary": {"student": "r8w8", "method": "pkt"}}
    grid = small(
        methods=[
            {"hkd": helped},
            {str(path): {"label": "swept", "width": 3, **helped}},
            {"at": {"auxiliary": {"student": "r8w8", "method": str(path)}}},
        ],
        sweep={"swept.beta": [1]},
    )
    cells = expand(grid).cells
    runs = {cell.method: cell.runs[0] for cell in cells}
    present = Commands.of_grid(grid, cells, without_local_paths)
    lines = {name: present(run) for name, run in runs.items()}
    for name in ("hkd", "swept(beta=1)"):
        command = lines[name].partition("  # needs ")[0].replace("/PATH", str(tmp_path))
        assert one_cell_of(command).id == runs[name].id
    assert lines["at"] == BY_GRID
    path.unlink()
    absent = Commands.of_grid(grid, cells, without_local_paths)
    assert {name: absent(run) for name, run in runs.items()} == lines


def test_commands_of_a_grid_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"hkd": {"auxiliary": {"student": "r8w8", "method": "pkt"}}}
    grid = small(methods=[row], teacher={"seed": 2})
    cells = expand(grid).cells
    run = cell(expand(grid), "hkd").runs[0]
    calls: list[TrainFlags] = []
    trial = repeat_command.one_cell

    def counted(flags: TrainFlags) -> Any:
        calls.append(flags)
        return trial(flags)

    monkeypatch.setattr(repeat_command, "one_cell", counted)
    commands = Commands.of_grid(grid, cells, lambda run: replace(run, protocol="public"))
    line = commands(run)
    trials = len(calls)
    assert trials and commands(run) == line and len(calls) == trials
    assert "auxiliary={student: r8w8, method: pkt}" in line and "teacher.seed=2" in line
    assert one_cell_of(line).id == run.id
    stranger = replace(run, teacher=Teacher("r8w4", "0" * 16))
    assert commands(stranger) == BY_GRID


def test_teachers_come_before_the_requested_run() -> None:
    flags = TrainFlags("r8w3", "synthetic", "demo", "kd", "r8w4", seed=2)
    _, runs = one_cell(flags)
    assert [(run.method, run.seed) for run in runs] == [("teacher", 0), ("kd", 2)]
    _, runs = one_cell(TrainFlags("r8w3", "synthetic", "demo"))
    assert [(run.method, run.teacher) for run in runs] == [("student", None)]
    row = "auxiliary={student: r8w8, method: pkt}"
    _, runs = one_cell(TrainFlags("r8w3", "synthetic", "demo", "hkd", "r8w4", options=(row,)))
    assert [run.method for run in runs] == ["teacher", "pkt", "hkd"]


def test_train_and_show_from_end_to_end(tmp_path: Path) -> None:
    runs = ("--runs", tmp_path / "runs")
    flags = (
        "train", "--method", "at", "--teacher", "r8w4", "--student", "r8w3", "--dataset",
        "synthetic", "--protocol", "{preset: demo, epochs: 1}", "--option", "beta=3", *runs,
    )  # fmt: skip
    result = kdbench(*flags)
    assert result.exit_code == 0, result.output
    run_id = result.stdout.splitlines()[-1].split()[0]
    assert "r8w4 -> r8w3, seed 0, at: done" in result.stdout.splitlines()[-1]
    repeated = kdbench(*flags)
    assert repeated.stdout.splitlines() == [result.stdout.splitlines()[-1]]
    text = kdbench("show", run_id[:8], *runs).stdout
    for part in ("at", run_id, "protocol", "result: ", "test_acc", "repeat with: kdbench train"):
        assert part in text
    words = " ".join(text.partition("repeat with: ")[2].split("\ndone")[0].split())
    assert one_cell_of(words).id == run_id


def one_cell_of(line: str) -> Run:
    params = main.commands["train"].make_context("train", shlex.split(line)[2:]).params
    for name in ("runs", "results", "data"):
        params.pop(name)
    return one_cell(TrainFlags(**params))[1][-1]
