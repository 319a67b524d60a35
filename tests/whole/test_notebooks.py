"""Committed notebooks: valid, without outputs, and only with commands and files that exist.

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


def test_expected_notebooks_exist() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {
        "quickstart", "reading_a_leaderboard", "anatomy_of_semckd", "writing_a_method",
    }  # fmt: skip


@each
def test_notebook_is_valid_and_has_no_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, (
                f"{path.name}: strip outputs, jupyter nbconvert --clear-output --inplace"
            )
            ast.parse(cell.source)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}  # no version of the local Python


@each
def test_notebook_mentions_existing_commands_and_files(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    commands = re.findall(r"""(?:^|`)kdbench (\w+)|kdbench\(f?"(\w+)""", text, re.M)
    for command in {first or second for first, second in commands}:
        assert command in main.commands, command
    for name in re.findall(r"experiments/\w+\.yaml|notebooks/\w+\.ipynb", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`(\w+\.ipynb)`", text):
        assert (path.parent / name).is_file(), name
    for name in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.M), name
