"""``--json``: documents that every parser accepts and no terminal obeys."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_documents import strict

from kdbench.cli.json_output import document

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def finite(value: Any) -> Any:
    """Return a value with None for numbers that are not finite."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, list):
        return list(map(finite, value))
    return {k: finite(v) for k, v in value.items()} if isinstance(value, dict) else value


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES))
def test_documents_hold_all_values_and_no_control_characters(content: dict[str, Any]) -> None:
    text = document("x", content)
    assert json.loads(text) == {"schema": 1, "command": "x"} | finite(content)
    assert strict(text)["schema"] == 1
    assert all(character.isprintable() for line in text.split("\n") for character in line)


def test_keys_keep_their_order() -> None:
    values = json.loads(document("x", {"b": 1, "a": {2: 0, 1: 0}, "c": [3, 1, 2]}))
    assert list(values) == ["schema", "command", "b", "a", "c"]
    assert list(values["a"]) == ["2", "1"] and values["c"] == [3, 1, 2]


def test_numbers_of_numpy_are_numbers() -> None:
    values = {"f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True), "n": np.float64("nan")}
    assert document("x", values) == document("x", {"f": 0.5, "i": 3, "b": True, "n": None})


def test_half_surrogate_pairs_are_shown_as_text() -> None:
    text = document("x", {"a\udcff": Path("b\udcff")})
    assert strict(text)["a\\udcff"] == "b\\udcff"


@pytest.mark.parametrize("value", [{1, 2}, object(), {None: 1}, {1.5: 1}, b"x"])
def test_values_without_order_or_meaning_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no JSON"):
        document("x", {"value": value})


def test_output_is_utf8_in_every_locale() -> None:
    code = 'from kdbench.cli.json_output import print_json; print_json("x", {"name": "é 漢"})'
    environment = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment, timeout=60, check=True
    )
    assert json.loads(done.stdout.decode())["name"] == "é 漢" and "é".encode() in done.stdout
