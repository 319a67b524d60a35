"""Groups of networks that cannot be built, or that no memory holds, are refused before training."""

from pathlib import Path
from typing import Any

import pytest
from small_grids import PLUGIN, expanded, first, kdbench, mistakes, write

from kdbench.cost.estimate import data_shape, group_of, upper_bound
from kdbench.cost.groups import check_groups, least_bytes
from kdbench.cost.network_cost import network_cost
from kdbench.errors import UserError
from kdbench.method import Group

BAD: list[Any] = [
    "kd",
    {"okddip": {"peers": 2}},
    {"okddip": {"form": "x", "label": "form"}},
    {"one": {"peers": 0}},
    {"dml": {"peers": -1}},
]
REFUSED = (
    "okddip: peers is 2, expected at least 3",
    "form: form is 'x', expected 'branch' or 'network'",
    "one: peers: a group of 0 networks; expected at least 2",
    "dml: peers: a group of -1 networks; expected at least 2",
)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_impossible_groups_are_a_line_each(tmp_path: Path, command: str) -> None:
    path = write(tmp_path, methods=BAD)
    found = mistakes(command, "--grid", path, "--runs", tmp_path / "runs")
    assert found == [f"{path}: methods.{line}" for line in REFUSED]


def test_leader_is_one_of_the_peers() -> None:
    runs = expanded(methods=[{"okddip": {"peers": 2, "ensemble": True}}]).runs
    check_groups("grid.yaml", runs, None)


def test_group_too_large_for_the_memory_is_refused() -> None:
    run = first("okddip", methods=[{"okddip": {"peers": 4000}}])
    check_groups("grid.yaml", [run], None)
    check_groups("grid.yaml", [run], 1e15)
    message = (
        r"^grid\.yaml: methods\.okddip: a group of 4,000 networks r8w3 needs at least [\d.]+ GB, "
        r"but 0\.1 GB are available$"
    )
    with pytest.raises(UserError, match=message):
        check_groups("grid.yaml", [run], 1e8)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_command_knows_the_memory(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"plan": "kdbench.cli.planned_device", "run": "kdbench.cli.run_grid"}[command]
    monkeypatch.setattr(f"{where}.free_memory", lambda: 2.0**27)
    path = write(tmp_path, methods=[{"okddip": {"peers": 4000}}])
    [line] = mistakes(command, "--grid", path, "--runs", tmp_path / "runs")
    assert line.endswith("GB, but 0.1 GB are available")


@pytest.mark.parametrize("shared", [None, 1])
def test_bytes_are_those_of_a_counted_group(shared: int | None) -> None:
    run, group = first("student"), Group(5, shared)
    shape = data_shape(run.dataset)
    counted = network_cost("r8w3", shape, group)
    expected = 12 * counted.parameters + run.training.batch_size * counted.kept
    assert least_bytes(run, shape, group) == pytest.approx(expected)


def test_worker_can_bound_the_memory_of_an_impossible_group() -> None:
    for hyper in ({"peers": 1}, {"form": "x"}):
        run = first("okddip", methods=[{"okddip": hyper}])
        assert group_of(run) is None and upper_bound(run).held > 0


def test_plugin_that_fails_does_so_alone(tmp_path: Path) -> None:
    text = PLUGIN.replace("    beta = 2.0", "    brings_peers = True")
    group = "    @classmethod\n    def group(cls, **hyper):\n        raise OSError('of a plugin')\n"
    path = tmp_path / "mine.py"
    path.write_text(text + "\n" + group)
    grid = write(tmp_path, methods=[str(path)])
    assert "OSError: of a plugin" in kdbench("plan", "--grid", grid, "--tflops", 1).stdout
