"""The command line: output, exit codes and imports."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from small_grids import kdbench, mistakes, python, write

from kdbench.cli import main
from kdbench.errors import UserError
from kdbench.execution import local
from kdbench.execution.events import Event

COMMANDS = (
    "plan", "run", "status", "retry", "report", "show", "train", "methods", "models", "datasets",
    "check", "teacher", "doctor",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert command in kdbench("--help").stdout
    result = kdbench(command, "--help")
    assert result.exit_code == 0 and "Usage" in result.stdout
    assert main.commands[command].help
    if command in ("plan", "run", "status", "retry", "report", "show", "train"):
        assert "--runs" in result.stdout and "--results" in result.stdout
    if command in ("plan", "run", "status", "retry", "report"):
        assert "--grid" in result.stdout and "--set" in result.stdout


def test_grid_from_status_to_report_and_again(tmp_path: Path) -> None:
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    grid = ("--grid", write(tmp_path), *folders)
    assert "3 pending" in kdbench("status", *grid).stdout
    dry = kdbench("run", *grid, "--dry-run").stdout.splitlines()
    assert [line.split("  ")[1] for line in dry] == [
        "r8w4, seed 0, teacher", "r8w3, seed 0, student", "r8w4 -> r8w3, seed 0, kd",
    ]  # fmt: skip
    assert not (tmp_path / "runs").exists()
    done = kdbench("run", *grid)
    assert done.exit_code == 0, done.output
    assert "small: 3 runs, 0 recorded, 3 to train" in done.stdout
    assert (tmp_path / "results" / "small" / "leaderboard.md").exists()
    assert "3 runs: 3 done" in kdbench("status", *grid).stdout
    assert "3 recorded, 0 to train" in kdbench("run", *grid).stdout
    assert kdbench("run", *grid, "--dry-run").stdout == ""
    assert kdbench("report", *grid).exit_code == 0
    assert kdbench("retry", *grid).stdout == ""
    assert kdbench("status", *grid, "--watch").exit_code == 0


def test_help_and_reports_import_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from kdbench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
slow = {"torch", "torchvision", "submitit"} & set(sys.modules)
assert not slow, slow
"""
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    grid = ("--grid", write(tmp_path), *folders)
    for args in (
        ("--help",), ("report", *grid), ("compare", "kd", "student", *grid),
        ("verify", *folders), ("status", *grid), ("run", *grid, "--dry-run"),
        ("retry", *grid), ("methods",),
    ):  # fmt: skip
        result = python(code, *args)
        assert result.returncode == 0, (args, result.stderr)
    help_only = "pydantic", "yaml", "rich", "pandas", "numpy"
    result = python(code.replace('"submitit"', '"submitit", ' + str(help_only)[1:-1]), "--help")
    assert result.returncode == 0, result.stderr


def test_closed_pipe_causes_no_error() -> None:
    command = f"{sys.executable} -m kdbench methods | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (UserError("one\ntwo"), 2, "kdbench: one\nkdbench: two\n"),
        (KeyboardInterrupt(), 130, "kdbench: stopped\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "kdbench: /x: Permission denied\n"),
        (OSError("odd"), 2, "kdbench: odd\n"),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
    ],
)
def test_errors_become_exit_codes_and_messages(
    error: BaseException, code: int, stderr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(main.commands, "fail", click.Command("fail", callback=fail))
    monkeypatch.setitem(main.commands["teacher"].commands, "fail", main.commands["fail"])  # type: ignore[attr-defined]
    for args in (("fail",), ("teacher", "fail")):
        result = kdbench(*args)
        assert (result.exit_code, result.stderr) == (code, stderr)


def test_ctrl_c_stops_and_explains_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> Iterator[Event]:
        yield Event(left=3)
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "run_all", interrupted)
    flags = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    result = kdbench("run", "--grid", write(tmp_path), *flags)
    assert result.exit_code == 130
    assert "stopped; 3 runs left; repeat the command to resume" in result.stderr


def test_version_is_printed() -> None:
    from kdbench import __version__

    assert __version__ in kdbench("--version").stdout


def test_check_passes_for_a_built_in_method() -> None:
    result = kdbench("check", "kd")
    assert result.exit_code == 0 and "ok  " in result.stdout


def test_check_reports_a_failing_method(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text('"""Mine (Somebody, 2024)."""\n')
    result = kdbench("check", path)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout == f"FAIL can be loaded: {path}: no subclass of Method\n"


def test_check_of_an_unknown_method_is_reported(tmp_path: Path) -> None:
    (line,) = mistakes("check", "kdd")
    assert line.startswith("kdd: unknown method; accepted: ab, ")
    assert line.endswith(", or a path ending in .py (did you mean kd?)")
    (line,) = mistakes("check", tmp_path / "mine.py")
    assert "mine.py: no such file" in line
