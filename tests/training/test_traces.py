"""Traced values: they change no result, and no kill loses them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import alone, numbers, stop_after, taught, train

from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.training import traces
from kdbench.training.cohort import Stopped

KEEPS = '''
"""A method that keeps what it sees (2020)."""
from kdbench.method import Method


class Keeps(Method):
    def loss(self, s, t, batch):
        return (s.logits - t.logits).square().mean()
'''
KEPT = """
    def trace(self, s, t):
        assert not self.training and not (s.logits * 1).requires_grad
        return {"scale": s.logits.std(), "rows": s.embedding.new_ones(2, 3, 1)}
"""


@pytest.fixture
def teacher(tmp_path: Path) -> Run:
    run = alone(student="r8w4")
    train([run], tmp_path)
    return run


def plugin(path: Path, text: str) -> str:
    path.mkdir()
    (path / "keeps.py").write_text(text.lstrip())
    return str(path / "keeps.py")


def test_attention_is_traced_in_every_epoch(tmp_path: Path, teacher: Run) -> None:
    semckd, kd = taught(teacher, "semckd+kd"), taught(teacher, "kd")
    train([semckd, kd], tmp_path)
    traced = traces.read(records.folder(tmp_path, semckd.id))
    assert set(traced) == {"semckd.attention"}
    attention = traced["semckd.attention"]
    assert attention.shape == (3, 3, 3)  # epochs, student stages, teacher stages
    assert np.allclose(attention.sum(2), 1)
    assert len(np.unique(attention[:, 0, 0])) == 3  # it changes
    assert traces.read(records.folder(tmp_path, kd.id)) == {}
    assert not (records.folder(tmp_path, kd.id) / traces.NAME).exists()


def test_tracing_changes_no_result(tmp_path: Path, teacher: Run) -> None:
    """Two files that differ in their traces have different ids, but the same results."""
    quiet = taught(teacher, plugin(tmp_path / "quiet", KEEPS))
    loud = taught(teacher, plugin(tmp_path / "loud", KEEPS + KEPT))
    train([quiet, loud], tmp_path)
    assert numbers(tmp_path, quiet) == numbers(tmp_path, loud)
    traced = traces.read(records.folder(tmp_path, loud.id))
    name = loud.terms[0].method
    assert {key: value.shape for key, value in traced.items()} == {
        f"{name}.scale": (3,),
        f"{name}.rows": (3, 2, 3, 1),
    }


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_stopped_and_resumed_run_has_the_same_traces(
    tmp_path: Path, teacher: Run, steps: int
) -> None:
    run = taught(teacher, "semckd")
    file = records.folder(tmp_path, run.id) / traces.NAME
    stops = 0
    while records.read(tmp_path, run.id) is None:
        try:
            train([run], tmp_path, stop=stop_after(steps))
        except Stopped:
            stops += 1
        assert stops < 40
    broken = file.read_text()
    for old in file.parent.iterdir():
        old.unlink()
    train([run], tmp_path)
    assert stops and file.read_text() == broken


def test_damaged_trace_is_named(tmp_path: Path) -> None:
    (tmp_path / traces.NAME).write_text("epoch,a.b[0],a.b[0][1]\n1,2,3\n")
    with pytest.raises(records.RecordError, match=r"trace\.csv: not a trace"):
        traces.read(tmp_path)
    (tmp_path / traces.NAME).write_text("epoch,a.b[0]\n1,x\n")
    with pytest.raises(records.RecordError, match=r"trace\.csv: not a trace"):
        traces.read(tmp_path)


@given(
    shape=st.lists(st.integers(1, 3), max_size=3),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_written_traces_are_read(
    tmp_path_factory: Any, shape: list[int], epochs: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("trace")
    values = np.random.default_rng(seed).normal(size=(epochs, *shape))
    history = [
        {"epoch": e + 1, "test_acc": 1.0}
        | {
            "m.x" + "".join(f"[{i}]" for i in index): float(values[(e, *index)])
            for index in np.ndindex(*shape)
        }
        for e in range(epochs)
    ]
    traces.write(folder, history)
    assert np.array_equal(traces.read(folder)["m.x"], values)
