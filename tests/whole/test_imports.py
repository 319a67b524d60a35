"""Import rules that import-linter cannot check."""

import ast
from pathlib import Path

import pytest

import kdbench

PACKAGE = Path(kdbench.__file__).parent


def imported(source: str) -> set[str]:
    """Return the full names of all modules and names that a source imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def methods_in(names: set[str]) -> list[str]:
    """Return the names that belong to a method, under either name of the package."""
    return sorted(name for name in names if {"methods"} & set(name.split(".")[:2]))


@pytest.mark.parametrize(
    "line", ["import methods.sp", "from kdbench.methods import sp", "from methods.sp import SP"]
)
def test_imports_of_methods_are_recognised(line: str) -> None:
    assert methods_in(imported(line))


def test_no_module_imports_a_method_by_name() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    by_file = {
        str(path.relative_to(PACKAGE)): methods
        for path in files
        if "methods" not in path.relative_to(PACKAGE).parts
        and (methods := methods_in(imported(path.read_text())))
    }
    assert not by_file
