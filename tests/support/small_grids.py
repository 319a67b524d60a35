"""Small grids as values or files, and the command line in this process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from kdbench.cli import main
from kdbench.grid.expand import Expansion, expand
from kdbench.grid.grid import Grid
from kdbench.grid.parsing import parse
from kdbench.grid.run import Cell, Run

SMALL: dict[str, Any] = {
    "name": "small",
    "dataset": "synthetic",
    "protocol": {"preset": "demo", "epochs": 1},
    "seeds": [0],
    "pairs": ["r8w4 -> r8w3"],
    "methods": ["kd"],
    "executor": {"kind": "debug", "device": "cpu"},
}

PLUGIN = '''"""Mine (Somebody, 2024)."""

from kdbench.method import Batch, Features, Method, Setup


class Mine(Method):
    beta = 2.0

    def __init__(self, setup: Setup, *, width: int = 8, limit: float | None = None) -> None:
        super().__init__(setup)

    def loss(self, s: Features, t: Features, batch: Batch):
        return (s.logits - t.logits).pow(2).mean()
'''


def tree(**changes: Any) -> dict[str, Any]:
    """Return ``SMALL`` with other values."""
    return SMALL | changes


def small(**changes: Any) -> Grid:
    return parse(tree(**changes), source="grid.yaml")


def expanded(**changes: Any) -> Expansion:
    return expand(small(**changes))


def cell(expansion: Expansion, method: str, pair: int = 0) -> Cell:
    """Return a pair's cell of the row with this label."""
    return [cell for cell in expansion.cells if cell.method == method][pair]


def first(method: str, **changes: Any) -> Run:
    """Return the first run of a row."""
    return cell(expanded(**changes), method).runs[0]


def write(folder: Path, **changes: Any) -> Path:
    """Write ``SMALL`` with other values to a file, and return its path."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(tree(**changes), sort_keys=False))
    return path


def kdbench(*args: object) -> Result:
    """Run the command in this process; raise its unexpected exceptions."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def mistakes(*args: object) -> list[str]:
    """Run a command that must fail with exit code 2, and return its messages without prefix."""
    result = kdbench(*args)
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert lines and all(line.startswith("kdbench: ") for line in lines), result.stderr
    assert "Traceback" not in result.output
    return [line.removeprefix("kdbench: ") for line in lines]


def python(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python process; its exit code is not checked."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
