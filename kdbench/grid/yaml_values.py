"""Parse YAML text into plain values, within limits that any grid keeps and no input can exceed.

The values are text, numbers, booleans, None, lists and mappings with text as keys. They are built
from the parser's events. An alias counts as often as it is used, so a few lines cannot expand to a
million values.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from kdbench.errors import UserError, short_text, visible

DEPTH = 30
"""Levels of lists and mappings."""
SIZE = 1_000_000
"""Characters of all values, an alias as often as it is used."""
EACH = 4
"""Characters that a value counts in addition to its text."""
DIGITS = 300
"""Digits of a whole number: more fit into no float."""

TAG = "tag:yaml.org,2002:"
KINDS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"(?P<true>yes|Yes|YES|true|True|TRUE|on|On|ON)|no|No|NO|false|False|FALSE|off|Off|OFF",
    "int": r"[-+]?(0x[0-9a-fA-F_]+|0b[01_]+|\d[\d_]*)",
    "float": (
        r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
"""Kind of a plain scalar -> the pattern of its text. ``1e-3`` is a number, unlike in YAML 1.1;
dates and times of day are text."""
PATTERNS = {kind: re.compile(pattern, re.ASCII) for kind, pattern in KINDS.items()}
PLAIN = re.compile(r"[-+.~\d]|[yYnNtTfFoO][aefnorsuAEFLNORSU]|$")
"""Beginning of each text that is not simply text: most scalars need only this look."""
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters without a place in a grid: control characters, and those that reverse text."""
LOADER = getattr(yaml, "CLoader", yaml.Loader)  # only its parser is used, which constructs nothing


class Mistake(UserError):
    """Text that is not YAML, or has values that no grid has.

    Attributes:
        mark: the place, with ``line`` and ``column`` from 0; None if unknown.
    """

    def __init__(self, problem: str, mark: Any = None) -> None:
        super().__init__(problem)
        self.mark = mark


class Built(NamedTuple):
    """A value, and its characters with aliases written out."""

    value: Any
    size: int


def values(text: str) -> Any:
    """Return the value of a YAML text; None for an empty one.

    Raises:
        Mistake: the text is not YAML, or has values that no grid has.
    """
    try:
        events = yaml.parse(text, LOADER)
        return _Builder(events).document()
    except UnicodeEncodeError:  # an argument with bytes that are not text
        raise Mistake("not UTF-8 text") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise Mistake(f"not YAML: {problem}", getattr(error, "problem_mark", None)) from None


class _Builder:
    """Builds the value of a document from the parser's events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.anchors: dict[str, Built | None] = {}  # None while the value is being built

    def document(self) -> Any:
        """Return the value of the only document."""
        value = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise Mistake("not YAML: expected a single document", event.start_mark)
                value = self._node(next(self.events), 1).value
        return value

    def _node(self, event: Any, depth: int) -> Built:
        if isinstance(event, yaml.AliasEvent):
            built = self._alias(event)
        else:
            if event.anchor:
                self.anchors[event.anchor] = None
            if isinstance(event, yaml.ScalarEvent):
                built = Built(_scalar(event), len(event.value) + EACH)
            elif depth > DEPTH:
                raise Mistake(f"more than {DEPTH} levels of lists and mappings", event.start_mark)
            elif isinstance(event, yaml.SequenceStartEvent):
                built = self._sequence(event, depth)
            else:
                built = self._mapping(event, depth)
            if event.anchor:
                self.anchors[event.anchor] = built
        if built.size > SIZE:
            raise Mistake(
                f"larger than any grid: the values have more than {SIZE:,} characters, an alias as "
                "often as it is used",
                event.start_mark,
            )
        return built

    def _alias(self, event: Any) -> Built:
        if event.anchor not in self.anchors:
            raise Mistake(f"not YAML: no anchor &{event.anchor} before its alias", event.start_mark)
        built = self.anchors[event.anchor]
        if built is None:
            raise Mistake(f"the value of &{event.anchor} contains itself", event.start_mark)
        return built

    def _sequence(self, event: Any, depth: int) -> Built:
        _check_tag(event, "seq")
        items: list[Any] = []
        size = EACH
        while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
            value, more = self._node(inner, depth + 1)
            items.append(value)
            size += more
            if size > SIZE:
                break  # _node reports it
        return Built(items, size)

    def _mapping(self, event: Any, depth: int) -> Built:
        _check_tag(event, "map")
        own: dict[str, Any] = {}
        below: dict[str, Any] = {}
        size = EACH
        while not isinstance(inner := next(self.events), yaml.MappingEndEvent):
            merges = isinstance(inner, yaml.ScalarEvent) and _is_merge(inner)
            key, more = self._node(inner, depth + 1)
            value, most = self._node(next(self.events), depth + 1)
            size += more + most
            if size > SIZE:
                break  # _node reports it
            if merges:
                below = _merged(value, inner.start_mark) | below
                continue
            if not isinstance(key, str):
                raise Mistake(f"{short_text(key)}: a key must be text; quote it", inner.start_mark)
            if key in own:
                raise Mistake(f"not YAML: {short_text(key)} is given twice", inner.start_mark)
            own[key] = value
        return Built(below | own, size)


def _is_merge(event: Any) -> bool:
    """Tell whether a key is ``<<``, which takes over the keys of other mappings."""
    return bool(event.value == "<<" and event.implicit[0] and not event.tag)


def _merged(value: Any, mark: Any) -> dict[str, Any]:
    """Return the keys that ``<<`` takes over: the first mapping that has a key gives its value."""
    mappings = value if isinstance(value, list) else [value]
    keys: dict[str, Any] = {}
    for mapping in mappings:
        if not isinstance(mapping, dict):
            raise Mistake("not YAML: << expected a mapping or a list of mappings", mark)
        keys = mapping | keys
    return keys


def _check_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", TAG + kind):
        tag = short_text(event.tag.replace(TAG, "!!"))
        raise Mistake(f"the tag {tag} is not accepted: write the value alone", event.start_mark)


def _scalar(event: Any) -> Any:
    """Return the value of a scalar: plain text may be a number, true, false or null."""
    text, mark = event.value, event.start_mark
    control = CONTROL.search(text)
    if control:
        raise Mistake(f"the control character {visible(control[0])} in {short_text(text)}", mark)
    if event.tag == "!":
        return text
    if event.tag is None:
        if not event.implicit[0] or not PLAIN.match(text):
            return text
        kind = next((kind for kind in PATTERNS if PATTERNS[kind].fullmatch(text)), "str")
    else:
        kind = next((kind for kind in ("str", *KINDS) if event.tag == TAG + kind), "")
        if not kind:
            _check_tag(event, "str")
        elif kind != "str" and not PATTERNS[kind].fullmatch(text):
            raise Mistake(f"{short_text(text)}: not of the kind that its tag !!{kind} says", mark)
    return text if kind == "str" else _converted(kind, text, mark)


def _converted(kind: str, text: str, mark: Any) -> Any:
    if kind == "null":
        return None
    if kind == "bool":
        match = PATTERNS[kind].fullmatch(text)
        return bool(match and match["true"])
    if kind == "float":
        return float(text.replace(".", "") if text[-1].isalpha() else text)
    digits = text.lstrip("+-").replace("_", "")
    if len(digits) > DIGITS:
        raise Mistake(f"a number of {len(digits):,} digits; at most {DIGITS} are accepted", mark)
    if digits[:2] in ("0x", "0b"):
        try:
            value = int(digits[2:], 16 if digits[1] == "x" else 2)
        except ValueError:
            raise Mistake(f"{short_text(text)}: not a number", mark) from None
        return -value if text.startswith("-") else value
    if digits[0] == "0" and digits.strip("0"):
        raise Mistake(
            f"{short_text(text)}: octal for some programs and decimal for others; write a number "
            "without leading zeros, or text in quotes",
            mark,
        )
    return int(text.replace("_", ""))
