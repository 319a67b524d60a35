"""``--set``, ``--option``, ``--dataset`` and ``--protocol``: any text is a value or a mistake."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from drawn_grids import KEYS, NAMES, trees
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from small_grids import write

from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.grid.train_command import TrainFlags, one_cell

arguments = st.text(max_size=40)
keys = st.lists(st.one_of(st.sampled_from(KEYS), st.sampled_from(NAMES), arguments), max_size=5)


def flow(tree: Any) -> str:
    """Write a tree as one line of YAML."""
    return str(yaml.dump(tree, default_flow_style=True, width=10**6, allow_unicode=True)).strip()


values = st.one_of(arguments, trees.map(flow))
assignments = st.one_of(
    arguments,
    st.builds(lambda path, value: f"{'.'.join(path)}={value}", keys, values),
    st.sampled_from(
        [
            "a" + ".a" * 60_000 + "=1", "seeds=" + "[" * 60_000, f"seeds={'9' * 5000}", "name==",
            "seeds=[" + "1, " * 40_000 + "1]", "name.=1", "methods=&a [*a]",
            "sweep.kd.beta=[1, 2]",
            f"sweep.kd.beta={list(range(5000))}", "title=\x1b[31m", "=" * 1000,
            "sweep=1", "\udcff=1",
        ]
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("grid"))


@fuzzed
@given(st.lists(assignments, max_size=3))
def test_values_of_a_grid(grid: Path, overrides: Sequence[str]) -> None:
    answer(lambda: expand(load(grid, overrides)))


@fuzzed
@given(values, values, st.lists(assignments, max_size=2), st.lists(assignments, max_size=2))
def test_flags_of_train(
    dataset: str, protocol: str, options: Sequence[str], overrides: Sequence[str]
) -> None:
    for flags in (
        TrainFlags("r8w3", dataset, overrides=tuple(overrides)),
        TrainFlags("r8w3", "digits", protocol, "kd", "r8w4", 0, tuple(options)),
    ):
        answer(partial(one_cell, flags))


@fuzzed
@given(arguments, arguments, arguments)
def test_names_of_train(student: str, method: str, teacher: str) -> None:
    answer(lambda: one_cell(TrainFlags(student, "digits", "demo", method, teacher)))
