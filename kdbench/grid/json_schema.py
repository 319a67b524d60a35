"""JSON Schema of grid files, for editors that complete keys and check values.

It lists the installed methods. ``kdbench plan`` makes the checks that a schema cannot express, such
as whether a sweep's method is in the grid or a file exists.
"""

from typing import Any

from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.grid import Grid
from kdbench.grid.settings import MethodOptions
from kdbench.grid.yaml_tree import presets
from kdbench.models import zoo
from kdbench.registry import lookup

Schema = dict[str, Any]

BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""pydantic's keys for bounds, which it leaves in fields with a validator -> JSON Schema's."""

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", tuple: "array"}
"""Type of a hyper-parameter's default -> type in JSON Schema; a default of None allows any."""

OPEN_NAME = r"\+|\.py$"
"""Pattern of names that cannot be listed: combinations and plugin files."""


def schema() -> Schema:
    """Return the schema of a grid file, short forms included (draft 7, which most editors know)."""
    grid = _simplified(Grid.model_json_schema())
    keys, parts = grid["properties"], grid["$defs"]
    options = _simplified(MethodOptions.model_json_schema())
    parts |= {f"of-{name}": _options(name, options["properties"]) for name in lookup.names()}
    methods = {name: {"$ref": f"#/$defs/of-{name}"} for name in lookup.names()}
    named = {
        "type": "object",
        "properties": methods,
        "patternProperties": {OPEN_NAME: {"type": ["object", "null"]}},
        "additionalProperties": False,
    }
    parts["Dataset"] = _either({"enum": list(DATASETS)}, parts["Dataset"])
    preset = {"enum": presets(), "description": "Protocol that the other keys change."}
    parts["Protocol"]["properties"] |= {"preset": preset, "methods": named}
    parts["Protocol"] = _either({"enum": presets()}, parts["Protocol"])
    arch = _either({"enum": zoo.names()}, {"type": "string"})
    of_row = {"type": "object", "properties": methods, "additionalProperties": {"type": "object"}}
    of_row["description"] = "Row -> its options on this pair."
    parts["Pair"]["properties"] |= {"teacher": arch, "student": arch, "options": of_row}
    arrow = {"type": "string", "pattern": "->", "description": "TEACHER -> STUDENT"}
    parts["Pair"] = _either(arrow, parts["Pair"])
    parts["Row"] = _either(
        {"enum": list(methods)},
        {"type": "string", "pattern": OPEN_NAME},
        named | {"minProperties": 1, "maxProperties": 1},
    )
    del keys["source"]
    required = [key for key in grid["required"] if key != "title"]
    for key in set(keys) - set(required):  # null stands for the default
        keys[key] = _either(keys[key], {"type": "null"})
    keys["extends"] = {
        "type": "string",
        "description": "Another grid file, whose values this file changes.",
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "kdbench grid",
        "type": "object",
        "properties": keys,
        "additionalProperties": False,
        "if": {"required": ["extends"]},
        "else": {"required": required},
        "$defs": parts | options["$defs"],
    }


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _options(method: str, general: Schema) -> Schema:
    """Return the schema of a method's options; null stands for its defaults."""
    about = lookup.describe(method)
    own = {
        key: ({"type": TYPES[type(default)]} if type(default) in TYPES else {})
        | ({} if default is None else {"default": default})
        for key, default in about.hyper.items()
    }
    return {
        "type": ["object", "null"],
        "description": about.doc,
        "properties": {**general, **own},
        "additionalProperties": False,
    }


def _simplified(node: Any) -> Any:
    """Return pydantic's schema with JSON Schema's bounds and without titles and empty defaults."""
    if isinstance(node, list):
        return [_simplified(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        BOUNDS.get(key, key): _simplified(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and (value is None or isinstance(value, dict)))
    }
