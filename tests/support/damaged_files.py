"""Strategies that damage the content of files: bytes, and the values of JSON."""

import json
from typing import Any

from hypothesis import strategies as st

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 1e9, -5.0, float("nan"), float("inf"), 10**30, "", "x", "\x00\x1b[31m",
     "\ud83c", [], {}, [[]], [None]]
)  # fmt: skip
"""Values that a key should not have."""
anything = st.recursive(
    ODD | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
"""Any value of JSON, and numbers that JSON has not."""
BOMBS = (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"\xef\xbb\xbf{}", b"", b"\x00" * 999)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the content with some bytes changed, cut off, repeated, zeroed, or nothing of it."""
    if draw(st.integers(0, 30)) == 0:
        return draw(st.sampled_from(BOMBS) | st.binary(max_size=50))
    changed = bytearray(content)
    place = st.integers(0, len(content) - 1)
    for at in draw(st.lists(place, max_size=4)):
        changed[at] = draw(st.sampled_from(b'\x00\xff",:{}[]0-9e.\n') | st.integers(0, 255))
    start, end = sorted((draw(place), draw(place)))
    action = draw(st.sampled_from(["keep", "keep", "cut", "remove", "repeat", "zero"]))
    if action == "cut":
        del changed[start:]
    elif action == "remove":
        del changed[start:end]
    elif action == "repeat":
        changed[start:start] = changed[start:end]
    elif action == "zero":
        changed[start:end] = bytes(end - start)
    return bytes(changed)


@st.composite
def damaged_json(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw JSON with values replaced, keys removed or added, at any depth."""
    values = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        values = draw(_changed(values))
    text = json.dumps(values, indent=draw(st.sampled_from([None, 1])))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def _changed(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value with one change in it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(list(value)))
        action = draw(st.sampled_from(["into", "into", "into", "drop", "add"]))
        if action == "drop":
            return {name: item for name, item in value.items() if name != key}
        if action == "add":
            return value | {draw(st.text(max_size=5)): draw(anything)}
        return value | {key: draw(_changed(value[key]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(_changed(value[at])), *value[at + 1 :]]
    return draw(ODD | anything)
