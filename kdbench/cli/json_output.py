"""``--json``: one JSON document on stdout, for scripts.

Every document begins with ``schema`` and ``command``. Keys are in the order in which the command
gives them. A number that is not finite is null, so strict parsers accept the document.
"""

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from kdbench.errors import INVISIBLE

if TYPE_CHECKING:
    from kdbench.grid.grid import Grid

SCHEMA = 1
"""Version of the documents; raised when a key changes its meaning or goes."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, for scripts."
)
"""--json, passed to the command as ``as_json``."""


def print_json(command: str, content: Mapping[str, object]) -> None:
    """Print ``document(command, content)`` in UTF-8, whatever the encoding of the terminal."""
    click.echo(document(command, content).encode())


def document(command: str, content: Mapping[str, object]) -> str:
    """Format the output of a command as JSON.

    Args:
        command: name of the command.
        content: what it has to say: mappings, lists, tuples, texts, paths, booleans, None and
            numbers, also of numpy. Keys are texts or integers. Sets are refused, since they have no
            order.

    Raises:
        TypeError: a value of another type.
    """
    values = {"schema": SCHEMA, "command": command} | _plain(content)
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    return INVISIBLE.sub(lambda match: _escaped(match[0]), text)


def grid_keys(grid: "Grid") -> dict[str, Any]:
    """Return the keys that name a grid, which all documents about a grid begin with."""
    return {"grid": grid.name, "title": grid.title, "file": grid.source}


def _plain(value: Any) -> Any:
    """Return a value made of types that ``json`` writes, without nan and infinity."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | PurePath):
        # Half a surrogate pair, as in a name that is not UTF-8, is not text for other parsers.
        return str(value).encode(errors="backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else None
    if hasattr(value, "item"):  # a boolean of numpy
        return _plain(value.item())
    raise TypeError(f"no JSON for {type(value).__name__}")


def _key(key: object) -> str:
    if not isinstance(key, str | int):
        raise TypeError(f"no JSON key for {type(key).__name__}")
    return str(_plain(str(key)))


def _escaped(character: str) -> str:
    """Return an invisible character as an escape of JSON, so that no terminal obeys it."""
    if character.isprintable() or character == "\n":
        return character
    return json.dumps(character)[1:-1]
