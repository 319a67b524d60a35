"""Grid files to one tree of plain values: YAML, ``extends``, presets, ``--set``; no checks."""

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
"""Keys that may be a mere name, and the key that this name stands for."""

Tree = dict[str, Any]


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as people expect it: ``1e-3`` is a number, a day is text, no key is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping of distinct keys."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", mark)
            seen.add(key if isinstance(key, Hashable) else id(key_node))
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":float", ":timestamp"))]
    for first, known in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str, *, file: bool = False) -> Any:
    """Plain values of a YAML text.

    Raises:
        GridError: ``where``, in a file with line and column, and what is wrong there.
    """
    try:
        return yaml.load(text, Loader)
    except UnicodeEncodeError:  # an argument's bytes were no text
        raise GridError([f"{where}: not a text in UTF-8"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark and file:
            where = f"{where}:{mark.line + 1}:{mark.column + 1}"
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise GridError([f"{where}: not YAML: {problem}"]) from None


def read(path: Path) -> tuple[Tree, list[Path]]:
    """A grid file over those it extends: mappings merge, everything else replaces.

    An empty mapping replaces, too: ``sweep: {}`` (or ``sweep: null``) is none of those inherited.

    Returns:
        The tree, and the folders that relative paths in it may start from, the nearest first.

    Raises:
        GridError: a file is missing or no YAML mapping, or files extend each other in a circle.
    """
    return _read(path, ())


def _read(path: Path, seen: tuple[Path, ...]) -> tuple[Tree, list[Path]]:
    if path.resolve() in [one.resolve() for one in seen]:
        circle = " -> ".join(str(one) for one in (*seen, path))
        raise GridError([f"{seen[0]}: extends: goes in a circle: {circle}"])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GridError([f"{path}: no such file"]) from None
    except OSError as error:
        raise GridError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise GridError([f"{path}: cannot be read: not a text in UTF-8"]) from None
    tree = parse_yaml(text, str(path), file=True)
    if not isinstance(tree, dict):
        raise GridError([f"{path}: a grid is a mapping of keys to values"])
    other = tree.pop("extends", None)
    if other is None:
        return tree, [path.parent]
    if not isinstance(other, str):
        raise GridError([f"{path}: extends: expected the name of one file, not {other!r}"])
    found = [folder / other for folder in (path.parent, ROOT, Path())]
    target = next((file for file in found if file.is_file()), None)
    if target is None:
        raise GridError([f"{path}: extends: {other}: no such file beside it or in {ROOT}"])
    below, folders = _read(target, (*seen, path))
    return merged(below, tree, empties=True), [path.parent, *folders]


def merged(below: Tree, above: Tree, *, empties: bool = False) -> Tree:
    """``above`` over ``below``: mappings key by key, everything else, lists too, as a whole.

    A mapping over a mere name (``protocol: semckd``) changes what that name stands for.

    Args:
        empties: an empty mapping inside ``above`` replaces what it lies over; else it changes
            nothing.
    """
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if isinstance(old, str) and isinstance(value, dict) and key in SHORT:
            old = {SHORT[key]: old}
        if isinstance(old, dict) and isinstance(value, dict) and (value or not empties):
            value = merged(old, value, empties=empties)
        out[key] = value
    return out


def option_tree(option: str, value: Any) -> Tree:
    """Return the options that set ``option`` to ``value``.

    ``{"at": {"beta": 5}}`` for ``at.beta``, an option of a part of a combination, and
    ``{"beta": 5}`` for ``beta``.
    """
    part, dot, key = option.partition(".")
    return {part: {key: value}} if dot else {option: value}


def set_value(tree: Tree, assignment: str, flag: str = "--set") -> None:
    """Put the value of ``key.key=value`` into a tree; the value is YAML.

    Raises:
        GridError: it has no such form, or leads into something that has no keys.
    """
    where = f"{flag} {assignment}"
    key, equals, text = assignment.partition("=")
    *parents, last = key.strip().split(".")
    if parents[:1] == ["sweep"]:  # its keys hold dots themselves
        parents, last = ["sweep"], ".".join([*parents[1:], last])
    if not equals or not last or not all(parents):
        raise GridError([f"{where}: expected KEY=VALUE, e.g. protocol.epochs=2"])
    value = parse_yaml(text, where)
    node = tree
    for i, parent in enumerate(parents):
        child = node.get(parent)
        if isinstance(child, str) and parent in SHORT:
            child = {SHORT[parent]: child}
        if child is not None and not isinstance(child, dict):
            whole = ".".join(parents[: i + 1])
            raise GridError([f"{where}: {whole} is {child!r}; set it as a whole: {whole}=..."])
        node[parent] = child = dict(child or {})
        node = child
    node[last] = value


def presets() -> list[str]:
    """Names of the protocols that ship with kdbench."""
    files = resources.files("kdbench.grid.presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def preset(name: str) -> Tree:
    """The tree of a protocol that ships with kdbench."""
    return copy.deepcopy(_shipped(name))  # callers may change what they get


@cache
def _shipped(name: str) -> Tree:
    text = (
        resources.files("kdbench.grid.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    )
    tree: Tree = parse_yaml(text, f"presets/{name}.yaml", file=True)
    return tree
