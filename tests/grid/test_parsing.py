"""Parsing of trees into grids: short forms, presets, paths."""

from pathlib import Path
from typing import Any

import pytest
from small_grids import PLUGIN, small, tree, write

from kdbench.grid.parsing import load, parse
from kdbench.grid.yaml_tree import ROOT


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem
)
def test_included_experiments_are_grids(path: Path) -> None:
    assert load(path).source == str(path)


def test_name_of_changed_preset_lists_changes() -> None:
    changed = small(protocol={"preset": "semckd", "epochs": 9, "methods": {"at": {"beta": 5}}})
    assert changed.protocol.name == "semckd with other epochs, methods"
    assert changed.protocol.methods["at"] == {"beta": 5}
    assert changed.protocol.methods["sp"] == {"beta": 3000}
    assert changed.protocol.schedule.milestones == (150, 180, 210)
    assert small(protocol="semckd").protocol.name == "semckd"
    assert (
        small(protocol={"preset": "semckd", "epochs": 9, "name": "short"}).protocol.name == "short"
    )
    assert small(protocol={"epochs": 9}).protocol.name == "custom"


def test_overrides_reach_short_forms(tmp_path: Path) -> None:
    grid = load(
        write(tmp_path, dataset="digits"),
        [
            "dataset.per_class=10",
            "protocol=crd",
            "protocol.epochs=3",
            "seeds=[4, 5]",
            "report=null",
        ],
    )
    assert grid.dataset.per_class == 10
    assert (grid.protocol.name, grid.protocol.epochs) == ("crd with other epochs", 3)
    assert grid.seeds == (4, 5)


def test_null_means_the_default() -> None:
    grid = small(report=None, sweep=None, teacher=None, executor=None, title=None)
    assert grid.title == "small" and grid.executor.kind == "auto"


def test_teachers_can_have_other_settings() -> None:
    grid = small(teacher={"seed": 7, "dataset": "synthetic", "protocol": "semckd"})
    assert grid.teacher.seed == 7
    assert grid.teacher.protocol is not None and grid.teacher.protocol.epochs == 240
    assert grid.teacher.dataset is not None and grid.teacher.dataset.name == "synthetic"


def test_paths_are_relative_to_the_file_that_contains_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "mine.py").write_text(PLUGIN)
    write(folder, methods=["./mine.py"], dataset={"name": "imagefolder", "root": "images"})
    other = tmp_path / "other.yaml"
    other.write_text("extends: base/grid.yaml\nname: other\n")
    monkeypatch.chdir(tmp_path)
    grid = load(Path("other.yaml"))
    assert grid.methods[0].name == str(folder / "mine.py")
    assert grid.dataset.root == "base/images"
    assert grid.methods[0].label == "mine"


@pytest.mark.parametrize(
    ("row", "name", "options"),
    [
        ("kd", "kd", {}), ({"kd": None}, "kd", {}), ({"at": {"p": 4}}, "at", {"p": 4}),
        (" semckd + at ", "semckd+at", {}),
        ({"semckd+at": {"at": {"p": 4}, "alpha": 0}}, "semckd+at", {"at": {"p": 4}, "alpha": 0}),
    ],
)  # fmt: skip
def test_rows_have_several_forms(row: Any, name: str, options: dict[str, Any]) -> None:
    grid = small(methods=[row])
    assert (grid.methods[0].name, grid.methods[0].options) == (name, options)


def test_plugin_options_in_a_combination_use_its_short_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    for key in ("mine", "./mine.py"):
        row = {"kd+./mine.py": {key: {"width": 3}}}
        grid = parse(tree(methods=[row]), source="g", folders=[tmp_path])
        assert grid.methods[0].options == {"mine": {"width": 3}}
        assert grid.methods[0].short == "kd+mine"
