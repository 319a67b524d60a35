"""The keys of a record in JSON, and which values they accept.

Checked in one pass with the parsing, by pydantic's core: there may be very many records.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import SchemaValidator, ValidationError, core_schema

from kdbench.errors import one_line

SCHEMA = 1
MOST_AVERAGED = 16
"""Most accuracies of which an answer in a record without a checksum may be the mean."""
_SHOWN = 40
"""Characters of a wrong value in a message."""


class FormatError(ValueError):
    """The text is no record; one line that names the key."""


def parse(text: str | bytes) -> dict[str, Any]:
    """Parse a record, and check the type and the range of every value.

    Raises:
        FormatError: it is not JSON, or a value is missing, unknown or not possible.
    """
    try:
        values = _parsed(text)
    except ValidationError as error:
        raise FormatError(_other_schema(text) or _line(error)) from None
    problem = _contradiction(values)
    if problem:
        raise FormatError(problem)
    return values


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        values: dict[str, Any] = _RECORD.validate_json(text)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] != "json_invalid":
            raise
        # Python's parser accepts half a surrogate pair, which a method's message may contain.
        try:
            loose = json.loads(text)
        except (ValueError, RecursionError):
            raise error from None
        values = _RECORD.validate_python(loose)
    return values


def _contradiction(values: Mapping[str, Any]) -> str:
    """Return how values contradict each other; "" if they do not."""
    status, result = values["status"], values["result"]
    if status == "failed" and not values.get("reason"):
        return "status: failed: without a reason"
    if result is None:
        return "status: done: without a result" if status == "done" else ""
    if status == "skipped":
        return "status: skipped: with a result"
    if not 0 <= result["train_acc"] <= 100 and not math.isnan(result["train_acc"]):
        return f"result.train_acc: {result['train_acc']}: expected 0 to 100"
    if result["best_acc"] < result["test_acc"]:
        return f"result.best_acc: {result['best_acc']}: less than test_acc"
    if result["test_top5"] < result["test_acc"]:
        return f"result.test_top5: {result['test_top5']}: less than test_acc"
    if result["best_epoch"] > result["epoch"]:
        return f"result.best_epoch: {result['best_epoch']}: after the last epoch"
    return ""


def fractional(result: Mapping[str, Any]) -> str:
    """Return which test accuracy is not that of a whole number of images; "" if none.

    An answer may be the mean of up to ``MOST_AVERAGED`` accuracies.

    This detects most damage in a record without a checksum.
    """
    images = result["n_test"]
    for key in ("test_acc", "test_top5", "best_acc", "selected_acc"):
        accuracy = result.get(key)
        if accuracy is not None and not _whole(accuracy, images):
            return f"result.{key}: {accuracy}: not a whole number of {images} test images"
    for name, accuracy in (result.get("answers") or {}).items():
        if not any(_whole(accuracy, images * count) for count in range(1, MOST_AVERAGED + 1)):
            what = f"not a mean of whole numbers of {images} test images"
            return f"result.answers.{name}: {accuracy}: {what}"
    return ""


def _whole(accuracy: float, images: int) -> bool:
    # The formula of the evaluation, so equality is exact.
    return 100 * round(accuracy / 100 * images) / images == accuracy


def _other_schema(text: str | bytes) -> str:
    """Return that the record is of another version; "" if it is not."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    schema = values.get("schema", SCHEMA) if isinstance(values, dict) else SCHEMA
    if not isinstance(schema, int) or schema == SCHEMA:
        return ""
    return f"schema {_short(schema)}, this kdbench reads {SCHEMA}"


def _short(value: object) -> str:
    return one_line(repr(value), _SHOWN)


def _line(error: ValidationError) -> str:
    """Return the first problem: the key, the value and what is expected."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    problem = first["msg"][:1].lower() + first["msg"][1:]
    value = first["input"]
    if not where or isinstance(value, dict | list | bytes) or first["type"] == "json_invalid":
        return one_line(f"{where}: {problem}" if where else problem)
    return one_line(f"{where}: {_short(value)}: {problem}")


# --- the format ---

_accuracy = core_schema.float_schema(strict=True, allow_inf_nan=False, ge=0, le=100)
_loss = core_schema.float_schema(strict=True)
_amount = core_schema.float_schema(strict=True, allow_inf_nan=False, ge=0)
_count = core_schema.int_schema(strict=True, ge=0)
_text = core_schema.str_schema(strict=True)
_maybe = core_schema.nullable_schema


def _keys(
    schemas: Mapping[str, core_schema.CoreSchema], optional: Iterable[str] = ()
) -> core_schema.CoreSchema:
    """Accept exactly these keys; those in ``optional`` may be absent."""
    optional = set(optional)
    return core_schema.typed_dict_schema(
        {
            key: core_schema.typed_dict_field(schema, required=key not in optional)
            for key, schema in schemas.items()
        },
        extra_behavior="forbid",
    )


# In the order of the dataclasses, which is that of their keys in JSON. An imported teacher has a
# training loss and accuracy of NaN, and a diverged run may have a test loss that is not finite.
_RESULT = _keys(
    {
        "epoch": _count,
        "steps": _count,
        "train_loss": _loss,
        "train_acc": _loss,
        "test_loss": _loss,
        "test_acc": _accuracy,
        "test_top5": _accuracy,
        "best_acc": _accuracy,
        "best_epoch": _count,
        "weights": _text,
        "data": _text,
        "n_train": _count,
        "n_test": core_schema.int_schema(strict=True, ge=1),
        "teacher_acc": _maybe(_accuracy),
        "teacher_weights": _maybe(_text),
        "val_acc": _maybe(_accuracy),
        "selected_acc": _maybe(_accuracy),
        "last_finite_loss": _maybe(_loss),
        "answers": _maybe(core_schema.dict_schema(_text, _accuracy, strict=True, min_length=1)),
    },
    optional=(
        *("teacher_acc", "teacher_weights", "val_acc", "selected_acc", "last_finite_loss"),
        "answers",
    ),
)
_COST = _keys(
    {
        "seconds": _amount,
        "teacher_seconds": _amount,
        "step_ms": _amount,
        "params": _count,
        "params_deployed": _count,
        "params_extra": _count,
        "macs": _count,
        "peak_mb": _amount,
        "peak_reserved_mb": _maybe(_amount),
    },
    optional=["peak_reserved_mb"],
)
_RECORD = SchemaValidator(
    _keys(
        {
            "run": _text,
            "status": core_schema.literal_schema(["done", "diverged", "failed", "skipped"]),
            "reason": _text,
            "result": _maybe(_RESULT),
            "cost": _maybe(_COST),
            "traceback": _text,
            "environment": core_schema.dict_schema(_text),
            "attempts": core_schema.list_schema(_text, strict=True),
            "schema": core_schema.literal_schema([SCHEMA]),
            "checksum": _text,
        },
        optional=["reason", "traceback", "environment", "checksum"],
    )
)
