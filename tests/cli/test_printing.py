"""Other people's text in a terminal: shown, never obeyed."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from small_grids import expanded, kdbench, mistakes, tree, write

from kdbench.cli.printing import display, say
from kdbench.cli.safe_console import SafeConsole
from kdbench.errors import UserError, visible_lines
from kdbench.runs import records
from kdbench.runs.records import Record

RED, REVERSED, LINK = "\x1b[31mred\x1b[0m", "\u202efdp.exe", "\x1b]8;;http://x\x07click"
HOSTILE = (RED, REVERSED, LINK, "a\rb", "\x9b2J", "a\x08b", "\udcff")


def obeyed(text: str) -> str:
    """Return the characters that a terminal would obey."""
    return "".join(c for c in text if not c.isprintable() and c != "\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_printed_text_is_visible_lines(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    say(text, err=True)
    display(text)
    display(Group(Text(text), text))
    captured = capsys.readouterr()
    assert obeyed(captured.out + captured.err) == ""


def test_lines_and_tabs_are_kept() -> None:
    assert visible_lines("a\n\tb\n") == "a\n        b\n"
    assert visible_lines("\x1b[31m") == "\\x1b[31m" and visible_lines("é 漢 \xa0x") == "é 漢  x"


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[link=http://x]y"])
def test_markup_is_not_interpreted(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("column")
    table.add_row(text)
    display(Group(text, table))
    assert capsys.readouterr().out.count(text) == 2


@given(st.text())
def test_consoles_write_no_control_characters(text: str) -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, width=60)
    table = Table(title=Text(text))
    table.add_column(Text(text))
    table.add_row(Text(text))
    console.print(table)
    console.print(text)
    with Live(Group(Text(text), table), console=console, auto_refresh=False):
        pass
    assert obeyed(file.getvalue()) == ""


@given(st.text())
def test_user_errors_have_no_control_characters(text: str) -> None:
    assert obeyed(str(UserError(f"{text}: unknown"))) == ""


def test_reasons_of_records_are_visible_lines(tmp_path: Path) -> None:
    path, run = write(tmp_path), expanded().runs[-1]
    (tmp_path / run.id).mkdir()
    reason = f"{RED} [red] {REVERSED}"
    records.write_run(tmp_path, run)
    records.write(tmp_path, Record(run.id, "failed", reason=reason, traceback=f"{LINK}\n\tx"))
    for command in (("status", "--grid", path), ("show", run.id)):
        result = kdbench(*command, "--runs", tmp_path)
        assert obeyed(result.output) == "" and result.exit_code == 0
        assert "\\x1b[31mred" in result.output and "[red]" in result.output


def test_names_in_arguments_are_visible_lines(tmp_path: Path) -> None:
    for line in mistakes("plan", "--grid", tmp_path / f"{RED}.yaml"):
        assert "\\x1b[31mred" in line and obeyed(line) == ""
    for arguments in ((f"--{RED}",), (RED,), ("train", "--seed", RED), ("plan", f"--{RED}")):
        result = kdbench(*arguments)
        assert result.exit_code == 2 and obeyed(result.output) == ""
        assert "\\x1b[31m" in result.output


def test_files_that_cannot_be_written_are_visible_lines(tmp_path: Path) -> None:
    folder = tmp_path / RED
    folder.mkdir()
    (folder / "results").write_text("")
    grid = write(folder)
    result = kdbench("report", "--grid", grid, "--results", folder / "results")
    assert obeyed(result.output) == ""


@pytest.mark.parametrize("key", ["title", "name"])
def test_control_characters_are_refused_in_grids(tmp_path: Path, key: str) -> None:
    [line] = mistakes("plan", "--grid", write(tmp_path, **{key: RED}))
    assert line.startswith(f"{tmp_path}/grid.yaml:") and "the control character \\x1b" in line
    assert tree()["name"] == "small"
