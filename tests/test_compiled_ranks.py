"""``compile: true`` together with ``executor.ranks``: batch norm over all ranks' rows, compiled."""

from pathlib import Path

import pytest
import ranked
import torch
from lines import TRAINING, alone, taught
from test_compiled import COMPILED, needs_compiler
from test_ranks import agree, copied, same_curve

from kdbench import records
from kdbench.ranks import ALONE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_compiler]


def test_two_ranks_take_the_steps_of_a_plain_one(tmp_path: Path) -> None:
    """In float64, where compiling leaves nothing but the last digits."""
    ranked.compiled_lessons(ALONE, tmp_path, TRAINING)
    ranked.together(2, ranked.compiled_lessons, tmp_path, COMPILED)
    plain, *both = (
        torch.load(tmp_path / f"{who}.pt", weights_only=False) for who in ("1-0", "2-0", "2-1")
    )
    assert len(plain) == 4
    for key, seen in plain.items():
        assert isinstance(seen, dict), seen
        for there in both:
            agree(seen, there[key], key)


def test_a_run_of_two_ranks(tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    ranked.train(ALONE, [teacher], tmp_path / "school")
    run = taught(teacher, "kd", training=COMPILED)
    one, two = (copied((tmp_path / "school", teacher), tmp_path / name) for name in ("one", "two"))
    ranked.train(ALONE, [run], one)
    ranked.together(2, ranked.train, [run], two)
    found = records.read(two, run.id)
    assert found and found.status == "done" and found.environment["ranks"] == 2
    same_curve(one, two, run)
