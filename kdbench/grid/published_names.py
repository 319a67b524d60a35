"""Names of published methods, and what kdbench calls them: ``reference/names.csv``."""

import csv
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

Terms = Mapping[str, Mapping[str, Any]]
"""Methods of a row -> their hyper-parameters."""


def stands_for(printed: str, label: str, terms: Terms) -> bool:
    """Check whether a row of a grid is what a published name stands for.

    A row's own label is the published name or kdbench's. A row with another label has a figure
    only if the published name stands for options, such as ``wkd: {form: feature}``.

    Args:
        printed: the published name.
        label: of the row.
        terms: of the row; a method or an option that is not in it is not checked.
    """
    ours, options = _ours(printed)
    for method, required in options.items():
        given = terms.get(method, {})
        if any(given.get(option, value) != value for option, value in required.items()):
            return False
    if key(label) in (ours, key(printed)):
        return True
    special = any(value for required in options.values() for value in required.values())
    return special and bool(terms) and key("+".join(terms)) == ours


@cache
def _ours(printed: str) -> tuple[str, Terms]:
    """Return the key of kdbench's name of a published method, and the options it stands for."""
    names = _names()
    if key(printed) in names:
        return names[key(printed)]
    parts = (names.get(part, (part, {}))[0] for part in key(printed).split("+"))
    return "+".join(sorted(parts)), {}


@cache
def _names() -> dict[str, tuple[str, Terms]]:
    names: dict[str, tuple[str, Terms]] = {}
    for row in rows("names.csv"):
        options: dict[str, dict[str, Any]] = {}
        for item in row["options"].split():
            where, _, value = item.partition("=")
            method, _, option = where.partition(".")
            options.setdefault(method, {})[option] = _value(value)
        names[key(row["method"])] = (key(row["ours"]), options)
    return names


def _value(text: str) -> Any:
    """Return an option's value: a number, true or false, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@cache
def key(method: str) -> str:
    """Return a method's name in lower case, without signs, and with its terms sorted."""
    return "+".join(sorted(map(plain, method.split("+"))))


def plain(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a file in ``reference/``."""
    text = resources.files("kdbench.grid.reference").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
