"""Read grid files into a tree of plain values: YAML, ``extends``, presets, ``--set``; no checks."""

import copy
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from kdbench.errors import short_text
from kdbench.grid import yaml_values
from kdbench.grid.grid import GridError

ROOT = Path(__file__).parents[2]
SHORT = {"dataset": "name", "protocol": "preset"}
"""Keys whose value may be a name only, and the key inside their mapping that holds the name."""

LARGEST = 1_000_000
"""Bytes of a grid file."""
CHAIN = 20
"""Files that extend each other."""
KEYS = 20
"""Keys with dots between them in ``--set``."""

Tree = dict[str, Any]


def parse_yaml(text: str, where: str, *, file: bool = False) -> Any:
    """Parse YAML text into plain values.

    Args:
        text: YAML.
        where: the text's source, for messages.
        file: add line and column to messages.

    Raises:
        GridError: the text is not valid YAML, or has values that no grid has.
    """
    try:
        return yaml_values.values(text)
    except yaml_values.Mistake as mistake:
        mark = mistake.mark
        if mark and file:
            where = f"{where}:{mark.line + 1}:{mark.column + 1}"
        raise GridError([f"{where}: {mistake}"]) from None


def read(path: Path) -> tuple[Tree, list[Path]]:
    """Read a grid file and the files that it extends: mappings merge, other values replace.

    An empty mapping also replaces: ``sweep: {}`` (or ``sweep: null``) removes an inherited sweep.

    Returns:
        The tree, and the folders to which relative paths in it may refer, the nearest first.

    Raises:
        GridError: a file is missing, is not a YAML mapping, or extends itself.
    """
    return _read(path, {})


def _read(path: Path, seen: dict[Path, Path]) -> tuple[Tree, list[Path]]:
    """Read a file that is extended by the files ``seen``: the resolved path of each -> its path."""
    text, place = _text(path)
    if place in seen:
        circle = " -> ".join(str(file) for file in (*seen.values(), path))
        raise GridError([f"{path}: extends: files extend each other in a circle: {circle}"])
    if len(seen) == CHAIN:
        raise GridError([f"{path}: extends: more than {CHAIN} files that extend each other"])
    tree = parse_yaml(text, str(path), file=True)
    if not isinstance(tree, dict):
        raise GridError([f"{path}: expected a mapping of keys to values"])
    extended = tree.pop("extends", None)
    if extended is None:
        return tree, [path.parent]
    if not isinstance(extended, str):
        named = short_text(extended)
        raise GridError([f"{path}: extends: expected the name of one file, not {named}"])
    candidates = [folder / extended for folder in (path.parent, ROOT, Path())]
    target = next((file for file in candidates if is_file(file)), None)
    if target is None:
        places = f"next to this grid, in {ROOT} or in the working folder"
        named = short_text(extended)
        raise GridError([f"{path}: extends: {named}: no such file {places}"])
    below, folders = _read(target, seen | {place: path})
    return merged(below, tree, empties=True), [path.parent, *folders]


def _text(path: Path) -> tuple[str, Path]:
    """Return a grid file's text and its resolved path."""
    try:
        place = path.resolve()
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise GridError([f"{path}: no such file"]) from None
    except (OSError, ValueError, RuntimeError) as error:  # a name with NUL, a circle of links
        reason = getattr(error, "strerror", None) or error
        raise GridError([f"{path}: cannot be read: {reason}"]) from None
    if len(content) > LARGEST:
        raise GridError([f"{path}: larger than any grid file: more than {LARGEST:,} bytes"])
    try:
        return content.decode("utf-8-sig"), place
    except UnicodeDecodeError:
        raise GridError([f"{path}: cannot be read: not UTF-8 text"]) from None


def is_file(path: Path) -> bool:
    """Check whether a path names a file, whatever the path."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that must not be entered
        return False


def merged(below: Tree, above: Tree, *, empties: bool = False) -> Tree:
    """Return ``below`` with the values of ``above``: mappings merge, other values replace.

    A mapping over a name (``protocol: semckd``) changes the settings of that name.

    Args:
        below: is not changed.
        above: its values win.
        empties: an empty mapping inside ``above`` replaces a value; otherwise it has no effect.
    """
    tree = dict(below)
    for key, value in above.items():
        old = tree.get(key)
        if isinstance(old, str) and isinstance(value, dict) and key in SHORT:
            old = {SHORT[key]: old}
        if isinstance(old, dict) and isinstance(value, dict) and (value or not empties):
            value = merged(old, value, empties=empties)
        tree[key] = value
    return tree


def option_tree(option: str, value: Any) -> Tree:
    """Return the options that set ``option`` to ``value``.

    ``{"at": {"beta": 5}}`` for ``at.beta``, an option of a part of a combination, and
    ``{"beta": 5}`` for ``beta``.
    """
    part, dot, key = option.partition(".")
    return {part: {key: value}} if dot else {option: value}


def set_value(tree: Tree, assignment: str, flag: str = "--set") -> None:
    """Set the value of ``key.key=value`` in a tree; the value is YAML.

    Raises:
        GridError: the assignment has another form, or one of its keys is in a value without keys.
    """
    where = f"{flag} {short_text(assignment, 100)}"
    key, equals, text = assignment.partition("=")
    *parents, last = key.strip().split(".")
    if parents[:1] == ["sweep"]:  # its keys contain dots
        parents, last = ["sweep"], ".".join([*parents[1:], last])
    if not equals or not last or not all(parents):
        example = "protocol.epochs=2" if flag == "--set" else "temperature=2"
        raise GridError([f"{where}: expected KEY=VALUE, e.g. {example}"])
    if len(parents) > KEYS:
        raise GridError([f"{where}: more than {KEYS} keys with dots between them"])
    value = parse_yaml(text, where)
    node = tree
    for i, parent in enumerate(parents):
        child = node.get(parent)
        if isinstance(child, str) and parent in SHORT:
            child = {SHORT[parent]: child}
        if child is not None and not isinstance(child, dict):
            name = ".".join(parents[: i + 1])
            given = short_text(repr(child))
            raise GridError([f"{where}: {name} is {given}, which has no keys; set {name}=..."])
        node[parent] = child = dict(child or {})
        node = child
    node[last] = value


def presets() -> list[str]:
    """Return the names of the protocols that ship with kdbench."""
    files = resources.files("kdbench.grid.presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def preset(name: str) -> Tree:
    """Return the tree of a protocol that ships with kdbench."""
    return copy.deepcopy(_cached_preset(name))  # callers may change the tree


@cache
def _cached_preset(name: str) -> Tree:
    text = (
        resources.files("kdbench.grid.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    )
    tree: Tree = parse_yaml(text, f"presets/{name}.yaml", file=True)
    return tree
