"""Messages for mistakes in values from YAML, one line each, in terms of the YAML file."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kdbench.errors import did_you_mean

Model = TypeVar("Model", bound=BaseModel)

EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "string_pattern_mismatch": "the form {pattern}",
}
"""pydantic's type of a mistake -> expected value."""


def unknown(name: object, accepted: Iterable[str]) -> str:
    """Return ``unknown; accepted: ... (did you mean ...?)``."""
    names = sorted(set(accepted))
    return f"unknown; accepted: {', '.join(names) or 'none'}{did_you_mean(name, names)}"


def shorten(value: object) -> str:
    """Return a value as text of at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def validated(model: type[Model], values: Any, where: str, errors: list[str]) -> Model | None:
    """Return a ``model`` of these values; on mistakes None, with a line for each in ``errors``."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for mistake in error.errors():
            key = ".".join([*([where] if where else []), *map(str, mistake["loc"])])
            text = _explain(model, mistake)
            errors.append(f"{key}: {text}" if key else text)
        return None


def _explain(model: type[BaseModel], mistake: Mapping[str, Any]) -> str:
    """Return one line on a mistake that pydantic reports."""
    kind, given, context = mistake["type"], mistake["input"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(mistake["loc"][-1], _fields(model, mistake["loc"][:-1]))
    if kind == "literal_error":
        accepted = re.findall(r"'([^']*)'", context["expected"])
        return f"{shorten(given)}: {unknown(given, accepted)}"
    if kind == "missing":
        return "missing"
    if kind in ("too_short", "string_too_short"):
        return "empty; expected at least one"
    if kind in EXPECTED:
        return f"expected {EXPECTED[kind].format(**context)}, not {shorten(given)}"
    message: str = mistake["msg"].removeprefix("Value error, ")
    plain = isinstance(given, str | int | float)
    return (
        f"{message}, not {shorten(given)}" if plain and message.startswith("expected") else message
    )


def _fields(model: type[BaseModel], loc: Iterable[Any]) -> list[str]:
    """Return the keys that are accepted at a location inside a model."""
    for part in loc:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        for candidate in (inner, *getattr(inner, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
                break
    return list(model.model_fields)
