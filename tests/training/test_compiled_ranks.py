"""``compile: true`` together with ``executor.ranks``: batch norm over all ranks' rows, compiled."""

from pathlib import Path

import pytest
import rank_processes
import torch
from tiny_runs import alone, taught

from kdbench.runs import records
from kdbench.training.ranks import ALONE
from tests.training.test_compiled import COMPILED, needs_compiler
from tests.training.test_ranks import agree, copied, same_curve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_compiler]


def test_two_compiled_ranks_take_the_steps_of_one_plain_rank(tmp_path: Path) -> None:
    """Compare in float64, where compiling changes only the last digits."""
    chosen: rank_processes.Chosen = [
        (pair, method, {}) for method in ("semckd", "fitnets") for pair in (0, 1)
    ]
    rank_processes.lessons(ALONE, tmp_path, chosen)
    rank_processes.together(2, rank_processes.lessons, tmp_path, chosen, COMPILED)
    plain, *ranks = (
        torch.load(tmp_path / f"{name}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1")
    )
    assert sum(isinstance(value, dict) for value in plain.values()) == 5
    for rank in ranks:
        for key, value in plain.items():
            agree(value, rank[key], key)


def test_compiled_run_of_two_ranks_equals_run_of_one(tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    rank_processes.train(ALONE, [teacher], tmp_path / "school")
    run = taught(teacher, "kd", training=COMPILED)
    one_rank, two_ranks = (
        copied((tmp_path / "school", teacher), tmp_path / name) for name in ("one", "two")
    )
    rank_processes.train(ALONE, [run], one_rank)
    rank_processes.together(2, rank_processes.train, [run], two_ranks)
    record = records.read(two_ranks, run.id)
    assert record and record.status == "done" and record.environment["ranks"] == 2
    same_curve(one_rank, two_ranks, run)
