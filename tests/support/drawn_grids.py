"""Hypothesis strategies for damaged and invented grids."""

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from kdbench.grid.grid import Executor, Grid, Report, TeacherSpec
from kdbench.grid.resources import Slurm
from kdbench.grid.settings import Dataset, MethodOptions, Protocol, Schedule
from kdbench.grid.yaml_tree import ROOT, presets
from kdbench.models import zoo
from kdbench.registry import lookup

EXPERIMENTS = {path: path.read_bytes() for path in sorted((ROOT / "experiments").glob("*.yaml"))}
"""The shipped grids and their content."""

KEYS = sorted(
    {"extends", "preset", "<<"}.union(
        *(model.model_fields for model in (Grid, Dataset, Protocol, Schedule, TeacherSpec)),
        *(model.model_fields for model in (MethodOptions, Executor, Report, Slurm)),
    )
)
NAMES = [*lookup.names(), *zoo.names(), *presets(), "r8w4 -> r8w3", "kd+at", "./mine.py", "digits"]

ODD = [
    "", ".", "..", "index.html", "con", "~nobody/x.py", "\0", "\x1b[31m", "\u202e", "\udcff",
    "[red]",
    "a\nb", "9" * 5000, 10**400, 2**63, -1, 0, 1e308, float("inf"), float("nan"), True, None,
    [], {},
    "x" * 3000, "a/" * 500, ["kd"] * 300, list(range(3000)), {"a": {"b": {"c": 1}}}, "2020-01-01",
    "1:30", "010", "0x10", "yes", "+", "->", "{", "=", "100000000000000000000",
]  # fmt: skip

scalars = st.one_of(
    st.sampled_from(ODD),
    st.sampled_from(NAMES),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
)
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(NAMES), st.text(max_size=10), scalars)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=10)), inner, max_size=5),
    ),
    max_leaves=25,
)
grids = st.dictionaries(st.sampled_from(KEYS), trees, max_size=10)
"""Mappings with a grid's keys and values of any kind."""


def written(tree: Any) -> bytes:
    """Write a tree as YAML; lone surrogates become bytes that are not UTF-8."""
    text = yaml.dump(tree, allow_unicode=True, sort_keys=False)
    return text.encode("utf-8", "surrogateescape")


@st.composite
def changed_experiments(draw: st.DrawFn) -> tuple[Path, dict[str, Any]]:
    """Draw a shipped grid with some values replaced, removed or moved: its path, its tree."""
    path = draw(st.sampled_from(list(EXPERIMENTS)))
    tree = copy.deepcopy(yaml.safe_load(EXPERIMENTS[path]))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = tree
        while True:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not places or draw(st.booleans()):
                break
            inner = node[draw(st.sampled_from(places))]
            if not isinstance(inner, dict | list):
                break
            node = inner
        if isinstance(node, dict):
            key = draw(st.one_of(st.sampled_from(list(node) or KEYS), keys))
            if isinstance(key, list | dict):
                key = str(key)
            node[key] = draw(trees)
            if draw(st.integers(0, 4)) == 0:
                del node[key]
        elif node:
            node[draw(st.integers(0, len(node) - 1))] = draw(trees)
        else:
            node.append(draw(trees))
    return path, tree


@st.composite
def changed_bytes(draw: st.DrawFn) -> tuple[Path, bytes]:
    """Draw a shipped grid with some bytes replaced, removed, repeated or inserted."""
    path = draw(st.sampled_from(list(EXPERIMENTS)))
    content = EXPERIMENTS[path]
    pieces = st.one_of(
        st.binary(max_size=8),
        st.sampled_from([
            b"&a [*a]", b"*a", b"&a", b"<<: *a", b"!!python/object:os.system ", b"!!int ", b"\t",
            b"\0",
            b"\xef\xbb\xbf", b"---\n", b"...\n", b"? ", b": ", b"- ", b"[" * 2000, b"{a: " * 500,
            b"%YAML 1.2\n", b"|\n", b">-\n", b"'", b'"', b"\\x1b", b"\r", b"9" * 5000, b"1" * 500,
            b"!!set ",
            b"!!binary ", b"!!timestamp ", b"= ", b"~", b".inf", b"0o17", b"010", b"12:30:45",
        ]),
    )  # fmt: skip
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 20)))
        content = content[:start] + draw(pieces) + content[end:]
        if draw(st.integers(0, 9)) == 0:
            content = content[:end]
    return path, content
