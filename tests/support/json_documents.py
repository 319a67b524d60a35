"""Documents that commands print with ``--json``, parsed as strictly as any script may."""

import json
from typing import Any

from pydantic_core import from_json
from small_grids import kdbench


def strict(text: str) -> Any:
    """Parse JSON; refuse NaN, infinity and half surrogate pairs."""
    return from_json(text, allow_inf_nan=False)


def answer(*args: object) -> Any:
    """Run a command with --json; it must print one document and no control characters."""
    result = kdbench(*args, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(c.isprintable() or c == "\n" for c in result.stdout)
    values = strict(result.stdout)
    assert list(values)[:2] == ["schema", "command"]
    assert (values["schema"], values["command"]) == (1, args[0])
    assert json.loads(result.stdout) == values
    return values
