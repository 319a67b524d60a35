"""``compile: true`` together with ``executor.ranks``: batch norm over all ranks' rows, compiled."""

from pathlib import Path

import pytest
import ranked
import torch
from lines import alone, taught
from test_compiled import COMPILED, needs_compiler
from test_ranks import agree, copied, same_curve

from kdbench import records
from kdbench.ranks import ALONE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_compiler]


def test_two_ranks_take_the_steps_of_a_plain_one(tmp_path: Path) -> None:
    """In float64, where compiling leaves nothing but the last digits."""
    chosen: ranked.Chosen = [(pair, name, {}) for name in ("semckd", "fitnets") for pair in (0, 1)]
    ranked.lessons(ALONE, tmp_path, chosen)
    ranked.together(2, ranked.lessons, tmp_path, chosen, COMPILED)
    plain, *both = (
        torch.load(tmp_path / f"{who}.pt", weights_only=False) for who in ("1-0", "2-0", "2-1")
    )
    assert sum(isinstance(seen, dict) for seen in plain.values()) == 5
    for there in both:
        for key, seen in plain.items():
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
