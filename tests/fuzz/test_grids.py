"""Any grid file: ``kdbench plan`` reads and expands it or reports its mistakes."""

from pathlib import Path
from typing import Any

import pytest
from drawn_grids import changed_bytes, changed_experiments, grids, trees, written
from fuzzing import answer, fuzzed
from hypothesis import given

from kdbench.grid.expand import expand
from kdbench.grid.parsing import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grids")


def check(folder: Path, content: bytes) -> None:
    """Read a file as ``kdbench plan`` does; a mistake must name the file."""
    path = folder / "grid.yaml"
    path.write_bytes(content)
    message = answer(lambda: expand(load(path)))
    assert all(line.startswith(str(folder)) for line in message.splitlines()), message


@fuzzed
@given(changed_experiments())
def test_changed_values(folder: Path, changed: tuple[Path, dict[str, Any]]) -> None:
    check(folder, written(changed[1]))


@fuzzed
@given(changed_bytes())
def test_changed_bytes(folder: Path, changed: tuple[Path, bytes]) -> None:
    check(folder, changed[1])


@fuzzed
@given(grids)
def test_invented_grids(folder: Path, tree: dict[str, Any]) -> None:
    small = {"name": "x", "dataset": "digits", "protocol": "demo", "seeds": [0], "methods": ["kd"]}
    check(folder, written(small | {"pairs": ["r8w4 -> r8w3"]} | tree))


@fuzzed
@given(trees)
def test_files_of_any_form(folder: Path, tree: Any) -> None:
    check(folder, written(tree))
