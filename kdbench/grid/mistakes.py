"""Messages for mistakes in values from YAML, one line each, in terms of the YAML file."""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kdbench.errors import did_you_mean, short_text
from kdbench.grid.grid import GridError

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
    "string_too_long": "at most {max_length} characters",
}
"""pydantic's type of a mistake -> expected value."""


MOST = 100
"""Mistakes that are reported at once: checking more would take long, and nobody reads them."""
LISTED = 60
"""Accepted names that a message lists."""


class Mistakes(list[str]):
    """Lines on the mistakes in a grid; raises ``GridError`` as soon as there are too many.

    Args:
        source: the grid's file, for messages.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source

    def append(self, line: str) -> None:
        """Add a line.

        Raises:
            GridError: there are more than ``MOST``.
        """
        if len(self) == MOST:
            super().append(f"more than {MOST} mistakes; these are the first")
            raise self.error()
        super().append(line)

    def extend(self, lines: Iterable[str]) -> None:
        """Add lines; a generator ends at the first line too many."""
        for line in lines:
            self.append(line)

    def error(self) -> GridError:
        """Return the error with all lines, each once."""
        return GridError([f"{self.source}: {line}" for line in dict.fromkeys(self)])


def unknown(name: object, accepted: Iterable[str]) -> str:
    """Return ``unknown; accepted: ... (did you mean ...?)``."""
    names = sorted(set(accepted))
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    listed = ", ".join(names[:LISTED]) or "none"
    return f"unknown; accepted: {listed}{more}{did_you_mean(name, names)}"


def shorten(value: object) -> str:
    """Return a value as Python writes it, in at most 60 characters."""
    return short_text(repr(value))


def repetitions(values: Iterable[Any]) -> Iterator[Any]:
    """Yield each value that is equal to an earlier one."""
    seen: set[Hashable] = set()
    for value in values:
        key = _hashable(value)
        if key in seen:
            yield value
        seen.add(key)


def distinct(lines: Iterable[str]) -> Iterator[str]:
    """Yield each line once."""
    seen: set[str] = set()
    for line in lines:
        if line not in seen:
            seen.add(line)
            yield line


def _hashable(value: Any) -> Hashable:
    """Return a key that is equal for equal values of YAML."""
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return frozenset((key, _hashable(item)) for key, item in value.items())
    return value if isinstance(value, Hashable) else repr(value)


def validated(model: type[Model], values: Any, where: str, errors: list[str]) -> Model | None:
    """Return a ``model`` of these values; on mistakes None, with a line for each in ``errors``."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        inside = {mistake["loc"][:-1] for mistake in mistakes}
        for mistake in mistakes[: MOST + 1]:
            if mistake["type"] == "too_short" and mistake["loc"] in inside:
                continue  # pydantic does not count items that have mistakes themselves
            places = (short_text(str(part)) for part in mistake["loc"])
            key = ".".join([*([where] if where else []), *places])
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
