"""Notebooks as they are committed: whole, without outputs, and of commands that there are.

``make notebooks`` runs them.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from kdbench.cli import main

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_some() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {
        "quickstart", "reading_a_leaderboard", "anatomy_of_semckd", "writing_a_method",
    }  # fmt: skip


@each
def test_it_is_valid_and_carries_no_output(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")
    for cell in book.cells:
        assert not cell.metadata, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, (
                f"{path.name}: strip outputs, jupyter nbconvert --clear-output --inplace"
            )
            ast.parse(cell.source)
    assert set(book.metadata) == {"kernelspec", "language_info"}
    assert set(book.metadata.language_info) == {"name"}  # not whose Python it was


@each
def test_it_speaks_of_what_there_is(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    commands = re.findall(r"""(?:^|`)kdbench (\w+)|kdbench\(f?"(\w+)""", text, re.M)
    for command in {first or second for first, second in commands}:
        assert command in main.commands, command
    for name in re.findall(r"experiments/\w+\.yaml|notebooks/\w+\.ipynb", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`(\w+\.ipynb)`", text):
        assert (path.parent / name).is_file(), name
    for name in re.findall(r"\bPROFILE=(\w+)", text):
        assert f"GRID_{name} " in (ROOT / "Makefile").read_text()
