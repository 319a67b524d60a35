"""README, CONTRIBUTING, CHANGELOG and docs: every snippet and every command is executed or checked.

``test_docs_names.py`` checks paths, links and tables.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from doc_pages import PAGES, ROOT, SNIPPETS, Snippet, prose, table
from PIL import Image

from kdbench.cli import main
from kdbench.registry import references

pytestmark = pytest.mark.timeout(60)

MAKEFILE = (ROOT / "Makefile").read_text()
SHELL = {"git", "cd", "while", "do", "mkdir", "mv", "done", "read"}
"""First words of shell commands that are not kdbench's."""
GRID: dict[str, Any] = {
    "name": "snippet", "dataset": "digits", "protocol": "demo", "seeds": [0],
    "pairs": ["r8w4 -> r8w3"], "methods": ["kd"],
}  # fmt: skip
"""The grid that a fragment is merged into."""
READING = {"methods", "models", "datasets", "schema", "doctor", "check", "plan", "status"}
"""Commands that train and write nothing."""


def of_language(language: str) -> Any:
    chosen = [snippet for snippet in SNIPPETS if snippet.language == language]
    assert chosen
    return pytest.mark.parametrize("snippet", chosen, ids=lambda s: f"{s.page.name}-{s.line}")


# --- commands -----------------------------------------------------------------------------------


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that the words name, and the remaining words."""
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        subcommand = command.get_command(click.Context(command), words[0])
        assert subcommand, f"kdbench {' '.join(words)}: no command {words[0]}"
        command, words = subcommand, words[1:]
    return command, words


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script.

    Assignments before a command and redirections after it are left out.
    """
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in [*lexer, ";"]:
            if word in (";", "&&", "|"):
                if words:
                    yield words
                words, redirected = [], False
            elif word in ("<", ">"):
                redirected = True
            elif not redirected and (words or not re.fullmatch(r"\w+=.*", word)):
                words.append(word)


def full_commands() -> list[tuple[str, list[str]]]:
    """Return (place, words) of every complete kdbench command: in scripts and in tables."""
    commands = []
    for snippet in SNIPPETS:
        if snippet.language == "sh":
            for words in simple_commands(snippet.text):
                if words[0].rpartition("/")[2] == "kdbench":
                    place = f"{snippet.page.name}-{snippet.line}"
                    commands.append((place, words[1:]))
    for page in (ROOT / "README.md", ROOT / "docs" / "commands.md"):
        for row in table(page.read_text(), "command", "what it does"):
            match = re.fullmatch(r"`kdbench (.*)`", row[0])
            assert match, row[0]
            commands.append((page.name, shlex.split(match[1])))
    return commands


COMMANDS = full_commands()


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=lambda x: x if type(x) is str else "")
def test_command_is_accepted(place: str, words: list[str]) -> None:
    command, rest = resolve(words)
    assert not isinstance(command, click.Group), words
    command.make_context(command.name, list(rest)).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_inline_commands_and_their_options_exist(page: Path) -> None:
    for text in re.findall(r"`kdbench\s([^`]+)`", prose(page)):
        first, *rest = text.replace("[", "").replace("]", "").split()
        variants = [[first, name] for name in rest[0].split("|")] if "|" in text else [[first]]
        for names in variants:
            is_group = isinstance(main.commands[first], click.Group)
            command, _ = resolve([*names, *rest[:1]] if is_group and len(names) == 1 else names)
            options = {name for param in command.params for name in param.opts}
            given = {word.partition("=")[0] for word in rest if word.startswith("-")}
            assert given - {"->"} <= options, f"kdbench {text}"


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    for name, command in main.commands.items():
        assert f"`kdbench {name}" in text, name
        for inner in command.commands if isinstance(command, click.Group) else ():
            assert re.search(rf"[` ]{inner}\b", text), f"{name} {inner}"


def readable() -> list[list[str]]:
    """Return the commands that only read and whose files exist in a checkout."""
    chosen = [words for _, words in COMMANDS if words[0] in READING and "--tune" not in words]
    chosen = [words for words in chosen if "G" not in words and "--watch" not in words]
    return [list(words) for words in dict.fromkeys(map(tuple, chosen))]


@pytest.mark.parametrize("words", readable(), ids=" ".join)
def test_reading_command_runs(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "methods" / "sp.py", tmp_path / "my_method.py")
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "methods").mkdir()
    shutil.copy(ROOT / "methods" / "sp.py", tmp_path / "methods" / "mine.py")
    monkeypatch.chdir(tmp_path)
    if words[0] == "doctor":
        monkeypatch.setenv("PATH", "")  # Slurm on this machine may not answer
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert done.output


# --- snippets -----------------------------------------------------------------------------------


def test_every_language_is_checked() -> None:
    known = ("sh", "yaml", "python", "text", "bibtex")
    assert not [snippet for snippet in SNIPPETS if snippet.language not in known]


@of_language("bibtex")
def test_reference(snippet: Snippet) -> None:
    assert references.parse(snippet.text, str(snippet.page))


@of_language("sh")
def test_script(snippet: Snippet) -> None:
    """Check the syntax, and that every program, make target and module exists.

    ``test_command_is_accepted`` checks the arguments of kdbench.
    """
    subprocess.run(["bash", "-n", "-c", snippet.text], check=True)
    for words in simple_commands(snippet.text):
        program = words[0].rpartition("/")[2]
        if program == "make":
            check_make(words[1:])
        elif program == "python":
            assert words[1] == "-m", words
            check_module(words[2], words[3:])
        else:
            assert program in SHELL | {"kdbench"}, words


def check_make(words: list[str]) -> None:
    for word in words:
        name, equals, _ = word.partition("=")
        pattern = rf"^{name} \?=" if equals else rf"^{name}:"
        assert re.search(pattern, MAKEFILE, re.M), f"make {word}"


def check_module(name: str, options: list[str]) -> None:
    """Check a benchmark and its options, without importing it."""
    path = ROOT / name.replace(".", "/")
    source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    for option in options:
        assert not option.startswith("--") or f'"{option}"' in source, f"{name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_inline_make_and_modules_exist(page: Path) -> None:
    text = prose(page)
    for words in re.findall(r"`make ([^`]+)`", text):
        check_make(words.split())
    for name, options in re.findall(r"`(?:python -m )?(benchmarks\.\w+)([^`]*)`", text):
        check_module(name, options.split())


@of_language("yaml")
def test_grid_is_planned(snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan the grid; a fragment is merged into a minimal grid first."""
    values = yaml.safe_load(snippet.text)
    assert isinstance(values, dict)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "methods" / "sp.py", "my_method.py")
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            folder = Path("photos", part, label)
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / "0.png")
    text = snippet.text if GRID.keys() <= values.keys() else yaml.safe_dump(GRID | values)
    Path("grid.yaml").write_text(text)
    done = CliRunner().invoke(main, ["plan", "--grid", "grid.yaml", "--tflops", "1"])
    assert done.exit_code == 0, done.output
    assert "kd" in done.output


@of_language("python")
def test_method_passes_the_checks(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("methods").mkdir()
    Path("methods", "mine.py").write_text(snippet.text)
    done = CliRunner().invoke(main, ["check", "methods/mine.py"])
    assert done.exit_code == 0, done.output
    assert "FAIL" not in done.output


def test_readme_shows_all_of_sp() -> None:
    (code,) = (s.text for s in SNIPPETS if s.page.name == "README.md" and s.language == "python")
    assert code == (ROOT / "methods" / "sp.py").read_text()
