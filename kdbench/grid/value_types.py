"""Types of the values in a grid file, for pydantic models: numbers within bounds, lines of text."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core import core_schema

LARGEST = 2**63 - 1
"""Largest whole number that every library accepts."""


def _refuse_bool(value: Any) -> Any:
    """Refuse True and False, which Python counts as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _small_enough(value: int) -> int:
    if abs(value) > LARGEST:
        raise ValueError(f"expected at most {LARGEST}")
    return value


def without_line_breaks(text: str) -> str:
    """Return text without line breaks, which tables cannot show."""
    return text if text.isprintable() else " ".join(text.split())


@dataclass(frozen=True)
class Form:
    """Validator of text of one form, with the pattern in the JSON Schema.

    Attributes:
        pattern: regular expression of the whole text.
        expected: what it accepts, in words.
    """

    pattern: str
    expected: str

    def check(self, text: str) -> str:
        """Return the text; raise ``ValueError`` if it has another form."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"expected {self.expected}")
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"pattern": f"^({self.pattern})$"}


Line = Annotated[str, AfterValidator(without_line_breaks)]
Whole = Annotated[int, BeforeValidator(_refuse_bool), AfterValidator(_small_enough)]
Real = Annotated[
    float,
    BeforeValidator(_refuse_bool),
    AfterValidator(lambda value: value + 0.0),  # turns -0.0 into 0.0
    Field(allow_inf_nan=False),
]
Positive = Annotated[Whole, Field(gt=0)]
Count = Annotated[Whole, Field(ge=0)]
Weight = Annotated[Real, Field(ge=0)]
Rate = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """Base of the models read from YAML: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
