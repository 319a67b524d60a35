"""A grid file's keys and values as JSON Schema, for editors that complete and check.

It knows the methods that are installed. What no schema can say (whether a sweep's method is in the
grid, whether a file exists) is for ``kdbench plan`` to say.
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
"""pydantic's words for bounds, which it leaves where a check stands before, to a schema's."""

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", tuple: "array"}
"""Of a hyper-parameter's default; None takes anything."""

SEVERAL = r"\+|\.py$"
"""Names that no list can hold: combinations and people's own files."""


def schema() -> Schema:
    """The schema of a grid file (draft 7, which most editors know), shorthands included."""
    found = _worded(Grid.model_json_schema())
    keys, parts = found["properties"], found["$defs"]
    options = _worded(MethodOptions.model_json_schema())
    parts |= {f"of-{name}": _options(name, options["properties"]) for name in lookup.names()}
    own = {name: {"$ref": f"#/$defs/of-{name}"} for name in lookup.names()}
    named = {
        "type": "object",
        "properties": own,
        "patternProperties": {SEVERAL: {"type": ["object", "null"]}},
        "additionalProperties": False,
    }
    parts["Dataset"] = _either({"enum": list(DATASETS)}, parts["Dataset"])
    preset = {"enum": presets(), "description": "What the other keys change."}
    parts["Protocol"]["properties"] |= {"preset": preset, "methods": named}
    parts["Protocol"] = _either({"enum": presets()}, parts["Protocol"])
    arch = _either({"enum": zoo.names()}, {"type": "string"})
    parts["Pair"]["properties"] |= {"teacher": arch, "student": arch}
    arrow = {"type": "string", "pattern": "->", "description": "TEACHER -> STUDENT"}
    parts["Pair"] = _either(arrow, parts["Pair"])
    parts["Row"] = _either(
        {"enum": list(own)},
        {"type": "string", "pattern": SEVERAL},
        named | {"minProperties": 1, "maxProperties": 1},
    )
    del keys["source"]
    needed = [key for key in found["required"] if key != "title"]
    for key in set(keys) - set(needed):  # nothing at all is the default
        keys[key] = _either(keys[key], {"type": "null"})
    keys["extends"] = {
        "type": "string",
        "description": "Another grid file, which this one changes.",
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "kdbench grid",
        "type": "object",
        "properties": keys,
        "additionalProperties": False,
        "if": {"required": ["extends"]},
        "else": {"required": needed},
        "$defs": parts | options["$defs"],
    }


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _options(method: str, general: Schema) -> Schema:
    """What may stand under a method's name; nothing at all stands for its defaults."""
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


def _worded(node: Any) -> Any:
    """What pydantic makes of a model, in words of JSON Schema and without what helps nobody."""
    if isinstance(node, list):
        return [_worded(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        BOUNDS.get(key, key): _worded(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and (value is None or isinstance(value, dict)))
    }
