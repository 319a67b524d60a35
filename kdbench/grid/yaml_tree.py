"""Read grid files into a tree of plain values: YAML, ``extends``, presets, ``--set``; no checks."""

import copy
import re
from collections.abc import Hashable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from kdbench.grid.grid import GridError

ROOT = Path(__file__).parents[2]
SHORT = {"dataset": "name", "protocol": "preset"}
"""Keys whose value may be a name only, and the key inside their mapping that holds the name."""

Tree = dict[str, Any]


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML loader that reads ``1e-3`` as a number and a date as text, and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; a repeated key is an error."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", mark)
            seen.add(key if isinstance(key, Hashable) else id(key_node))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))
    ]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str, *, file: bool = False) -> Any:
    """Parse YAML text into plain values.

    Args:
        text: YAML.
        where: the text's source, for messages.
        file: add line and column to messages.

    Raises:
        GridError: the text is not valid YAML.
    """
    try:
        return yaml.load(text, Loader)
    except UnicodeEncodeError:  # an argument with bytes that are not text
        raise GridError([f"{where}: not UTF-8 text"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark and file:
            where = f"{where}:{mark.line + 1}:{mark.column + 1}"
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise GridError([f"{where}: not YAML: {problem}"]) from None


def read(path: Path) -> tuple[Tree, list[Path]]:
    """Read a grid file and the files that it extends: mappings merge, other values replace.

    An empty mapping also replaces: ``sweep: {}`` (or ``sweep: null``) removes an inherited sweep.

    Returns:
        The tree, and the folders to which relative paths in it may refer, the nearest first.

    Raises:
        GridError: a file is missing, is not a YAML mapping, or extends itself.
    """
    return _read(path, ())


def _read(path: Path, seen: tuple[Path, ...]) -> tuple[Tree, list[Path]]:
    if path.resolve() in [file.resolve() for file in seen]:
        circle = " -> ".join(str(file) for file in (*seen, path))
        raise GridError([f"{seen[0]}: extends: files extend each other in a circle: {circle}"])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GridError([f"{path}: no such file"]) from None
    except OSError as error:
        raise GridError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise GridError([f"{path}: cannot be read: not UTF-8 text"]) from None
    tree = parse_yaml(text, str(path), file=True)
    if not isinstance(tree, dict):
        raise GridError([f"{path}: expected a mapping of keys to values"])
    extended = tree.pop("extends", None)
    if extended is None:
        return tree, [path.parent]
    if not isinstance(extended, str):
        raise GridError([f"{path}: extends: expected the name of one file, not {extended!r}"])
    candidates = [folder / extended for folder in (path.parent, ROOT, Path())]
    target = next((file for file in candidates if file.is_file()), None)
    if target is None:
        places = f"next to this grid, in {ROOT} or in the working folder"
        raise GridError([f"{path}: extends: {extended}: no such file {places}"])
    below, folders = _read(target, (*seen, path))
    return merged(below, tree, empties=True), [path.parent, *folders]


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
    where = f"{flag} {assignment}"
    key, equals, text = assignment.partition("=")
    *parents, last = key.strip().split(".")
    if parents[:1] == ["sweep"]:  # its keys contain dots
        parents, last = ["sweep"], ".".join([*parents[1:], last])
    if not equals or not last or not all(parents):
        example = "protocol.epochs=2" if flag == "--set" else "temperature=2"
        raise GridError([f"{where}: expected KEY=VALUE, e.g. {example}"])
    value = parse_yaml(text, where)
    node = tree
    for i, parent in enumerate(parents):
        child = node.get(parent)
        if isinstance(child, str) and parent in SHORT:
            child = {SHORT[parent]: child}
        if child is not None and not isinstance(child, dict):
            name = ".".join(parents[: i + 1])
            raise GridError([f"{where}: {name} is {child!r}, which has no keys; set {name}=..."])
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
