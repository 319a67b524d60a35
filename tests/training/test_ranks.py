"""A run on several ranks gives the same losses, gradients, curves and records."""

import signal
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import rank_processes
import torch
from method_variants import ALL
from rank_processes import DIGITS, ENDS, LOST, RAISES, together
from tiny_runs import TRAINING, alone, numbers, taught
from torch import Tensor

from kdbench.execution import local
from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.grid.optimizers import Dot, Optimizer
from kdbench.grid.run import Run
from kdbench.registry import lookup
from kdbench.runs import records
from kdbench.runs.records import Record
from kdbench.training import checkpoint
from kdbench.training.ranks import ALONE, RanksError, World, join_ranks

# --- steps --------------------------------------------------------------------------------------


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in nested lists and dicts, with their paths."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(part, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from flat(part, f"{name}/{i}")
    else:
        yield name, value


def agree(expected: Any, actual: Any, name: str) -> None:
    """Check that all but the last digits agree, relative to a tensor's largest entry.

    The gradient of a bias before a batch norm is 0 but for rounding, hence the 1e-10.
    """
    expected_parts, actual_parts = dict(flat(expected)), dict(flat(actual))
    assert expected_parts.keys() == actual_parts.keys(), name
    for key, a in expected_parts.items():
        b = actual_parts[key]
        if isinstance(a, Tensor) and a.is_floating_point():
            digits = 1e-9 if a.dtype == torch.float64 else 1e-6
            scale = float(a.detach().abs().max()) if a.numel() else 0.0
            atol = digits * scale + 1e-10
            torch.testing.assert_close(
                b, a, rtol=0, atol=atol, msg=partial("{}{}: {}".format, name, key)
            )
        elif isinstance(a, float):
            assert b == pytest.approx(a, rel=1e-6), (name, key)
        else:
            assert bool(torch.as_tensor(a == b).all()) if isinstance(a, Tensor) else a == b, key


def load(path: Path) -> dict[str, Any]:
    """Load the results of ``rank_processes.lessons``."""
    results: dict[str, Any] = torch.load(path, weights_only=False)
    return results


ON_RANKS = [name for name in lookup.names() if not lookup.describe(name).one_rank]
QUICK = [*((0, name, {}) for name in ON_RANKS), (0, "fitnets", {"stages": "two"})]
QUICK += [(1, name, {}) for name in ("semckd", "crd", "simkd", "ft")]
THOROUGH = [
    (pair, name, hyper)
    for pair in (0, 1)
    for name, hyper in ALL
    if name in ON_RANKS and (pair, name, hyper) not in QUICK
]


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param(THOROUGH, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(1500)]),
    ],
)
def test_every_method_takes_the_same_steps_on_one_rank_and_on_two(
    tmp_path: Path, chosen: list[tuple[int, str, dict[str, Any]]]
) -> None:
    rank_processes.lessons(ALONE, tmp_path, chosen)
    together(2, rank_processes.lessons, tmp_path, chosen)
    single, first, second = (load(tmp_path / f"{stem}.pt") for stem in ("1-0", "2-0", "2-1"))
    assert {key.split()[0].split("-")[0] for key in single} >= {name for _, name, _ in chosen}
    for key in single:
        agree(single[key], first[key], key)
        # Ranks never drift apart: their results are the same bit for bit.
        for (where, a), (_, b) in zip(flat(first[key]), flat(second[key]), strict=True):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, (key, where)
    trained = [value for value in single.values() if isinstance(value, dict)]
    assert len(trained) >= 30


def test_dot_takes_the_same_steps_on_one_rank_and_on_two(tmp_path: Path) -> None:
    chosen: list[tuple[int, str, dict[str, Any]]] = [(0, name, {}) for name in ("kd", "fitnets")]
    training = TRAINING.model_copy(update={"optimizer": Optimizer(dot=Dot(delta=0.05))})
    rank_processes.lessons(ALONE, tmp_path, chosen, training)
    together(2, rank_processes.lessons, tmp_path, chosen, training)
    single, first, second = (load(tmp_path / f"{stem}.pt") for stem in ("1-0", "2-0", "2-1"))
    for key in single:
        agree(single[key], first[key], key)
        agree(first[key], second[key], key)
    lengths = [len(value["losses"]) for value in single.values() if "losses" in value]
    assert lengths == [3, 3, 3]


def test_omitted_step_of_the_ranks_is_noticed(tmp_path: Path) -> None:
    """The comparison above fails by far if a gather, a common norm or a sum is missing."""
    chosen: rank_processes.Chosen = [(1, name, {}) for name in ("kd", "semckd")]
    for mistake in rank_processes.MISTAKES:
        (tmp_path / mistake).mkdir()
    rank_processes.lessons(ALONE, tmp_path, chosen)
    together(2, rank_processes.mistaken_lessons, tmp_path, chosen)
    for mistake, (title, right) in product(
        rank_processes.MISTAKES, load(tmp_path / "1-0.pt").items()
    ):
        if not title.startswith(("kd", "semckd")):
            continue
        wrong = load(tmp_path / mistake / "2-0.pt")[title]
        for part in ("gradients", "model"):
            apart = [
                float((a - b).abs().max() / a.abs().max())
                for (_, a), (_, b) in zip(flat(right[part]), flat(wrong[part]), strict=True)
                if a.is_floating_point() and a.abs().max() > 1e-6
            ]
            assert max(apart) > 1e-3, (mistake, title, part)
        with pytest.raises(AssertionError):
            agree(right, wrong, title)


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Return a folder with a trained teacher."""
    folder = tmp_path_factory.mktemp("school")
    teacher = alone(student="r8w4")
    rank_processes.train(ALONE, [teacher], folder)
    return folder, teacher


def copied(school: tuple[Path, Run], folder: Path) -> Path:
    """Copy the trained teacher into a separate folder of runs."""
    source, teacher = school
    target = folder / teacher.id
    target.mkdir(parents=True)
    for file in (source / teacher.id).iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return folder


def plugin(folder: Path, name: str, text: str) -> str:
    """Write a method's file, and return its path."""
    path = folder / f"{name}.py"
    path.write_text(text.lstrip())
    return str(path)


def record(folder: Path, run: Run) -> Record:
    """Read a run's record."""
    result = records.read(folder, run.id)
    assert result is not None, run.method
    return result


def same_curve(folder: Path, other_folder: Path, run: Run) -> None:
    """Check that two runs in float64 agree in nine digits; rounding may change the others.

    Accuracies are equal. The curve stores losses with seven digits.
    """
    (a, rows), (b, other_rows) = numbers(folder, run), numbers(other_folder, run)
    assert (a.steps, a.epoch, a.data, a.teacher_weights) == (
        b.steps, b.epoch, b.data, b.teacher_weights,
    )  # fmt: skip
    assert rows[0] == other_rows[0]
    for row, other_row in zip(rows[1:], other_rows[1:], strict=True):
        for column, x, y in zip(
            *(line.split(",") for line in (rows[0], row, other_row)), strict=True
        ):
            assert float(y) == pytest.approx(float(x), rel=1e-6 * ("loss" in column), abs=0), column
    weights, moved = (
        checkpoint.read(f / run.id / "checkpoint.pt")["model"] for f in (folder, other_folder)
    )
    for name, value in weights.items():
        assert value.dtype in (torch.float64, torch.int64)
        atol = DIGITS * float(value.abs().max())
        torch.testing.assert_close(moved[name], value, rtol=0, atol=atol, msg=name)


def test_runs_on_two_ranks_equal_runs_on_one(school: tuple[Path, Run], tmp_path: Path) -> None:
    _, teacher = school
    names = ("semckd", "at")
    runs = [taught(teacher, name) for name in names]
    runs.append(taught(teacher, "fitnets", hyper={"stages": "two"}))
    raises = plugin(tmp_path, "raises", RAISES)
    bad = [taught(teacher, raises, hyper={"ranks": ranks}) for ranks in ("01", "0", "1")]
    unfit = taught(teacher, "fsp")
    odd = taught(teacher, "kd", training=TRAINING.model_copy(update={"batch_size": 15}))
    folders = {
        name: copied(school, tmp_path / name) for name in ("one", "two", "down", "up", "bad", "odd")
    }
    rank_processes.train(ALONE, runs, folders["one"])
    rank_processes.train(ALONE, runs, folders["up"], stop_at=19)
    jobs = [
        (runs, folders["two"], 0),
        (runs, folders["down"], 19),
        (runs, folders["up"], 0),
        ([*bad, unfit, runs[1]], folders["bad"], 0),
        ([odd], folders["odd"], 0),
    ]
    together(2, rank_processes.train_each, jobs)

    for run in runs:
        same_curve(folders["one"], folders["two"], run)
        assert record(folders["two"], run).environment["ranks"] == 2
        assert "ranks" not in record(folders["one"], run).environment

    # The last rank asked to stop: both stopped at the same step, and a single rank resumes there.
    stopped = [checkpoint.load(folders["down"] / run.id) for run in runs]
    assert {state and (state["phase"], state["epoch"], state["step"]) for state in stopped} == {
        ("train", 2, 2)
    }
    assert not any(records.read(folders["down"], run.id) for run in runs)
    rank_processes.train(ALONE, runs, folders["down"])
    for run in runs:
        same_curve(folders["one"], folders["down"], run)
        same_curve(folders["one"], folders["up"], run)
        (attempt,) = record(folders["up"], run).attempts
        assert attempt.startswith("resumed at")

    # If any rank raises, the run ends on all ranks with one record; the other run continues.
    both, first, second = (record(folders["bad"], run) for run in bad)
    for failed in (both, first):
        assert (failed.status, failed.reason) == ("failed", "RuntimeError: a bug in step 5")
    assert second.status == "failed"
    assert second.reason == "PeerFailed: rank 1: RuntimeError: a bug in step 5"
    for failed in (both, first, second):
        assert 'raise RuntimeError("a bug in step 5")' in failed.traceback
        assert failed.result is not None
        assert failed.result.epoch == 1
    same_curve(folders["one"], folders["bad"], runs[1])
    assert record(folders["bad"], unfit).status == "skipped"
    assert len((folders["bad"] / "reported.txt").read_text().splitlines()) == 5

    for rank in (0, 1):
        error = (folders["odd"] / f"error-{rank}.txt").read_text()
        assert error.startswith("executor.ranks: 2: cannot share a batch of 15 evenly")
    assert not (folders["odd"] / odd.id / "record.json").exists()


@pytest.mark.parametrize(
    ("rank", "how"),
    [(0, "kill"), *(pytest.param(1, how, marks=pytest.mark.slow) for how in ("kill", "hang"))],
)
def test_losing_one_rank_ends_the_other_and_run_resumes(
    school: tuple[Path, Run], tmp_path: Path, rank: int, how: str
) -> None:
    ends = plugin(tmp_path, "ends", ENDS)
    run = taught(school[1], ends, hyper={"rank": str(rank), "how": how})
    folder = copied(school, tmp_path / "runs")
    undisturbed = copied(school, tmp_path / "whole")
    seconds = (
        15.0 if how == "hang" else 600.0
    )  # long, since a busy machine can look like a hanging rank
    started = rank_processes.start(2, rank_processes.train, [run], folder, 0, 0.0, seconds=seconds)
    lost, other = started[rank], started[1 - rank]
    try:
        other.join(120)
        assert other.exitcode == LOST
        if how == "kill":
            lost.join()
    finally:
        for process in started:
            process.kill()
            process.join()
    assert lost.exitcode == -signal.SIGKILL
    assert records.read(folder, run.id) is None
    state = checkpoint.load(folder / run.id)
    assert state is not None
    assert state["steps_done"] == 6
    rank_processes.train(ALONE, [run], folder)
    rank_processes.train(ALONE, [run], undisturbed)
    same_curve(undisturbed, folder, run)


# --- invalid ranks -----------------------------------------------------------------------------


def test_ranks_have_equal_shares() -> None:
    assert ALONE.rows(7) == slice(0, 7)
    assert World(1, 3).rows(6) == slice(2, 4)
    with pytest.raises(RanksError, match=r"^executor\.ranks: 3: cannot share a batch of 16 evenly"):
        World(0, 3).rows(16)
    with pytest.raises(RanksError, match="batch of 2 evenly"):
        World(0, 3).rows(2)


def test_single_rank_starts_no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with join_ranks("cpu") as world:
        assert world is ALONE
    assert not torch.distributed.is_initialized()


def test_one_machine_refuses_ranks(tmp_path: Path) -> None:
    executor = Executor(kind="debug", ranks=2)
    with pytest.raises(JobError, match=r"^executor\.ranks: 2: "):
        list(local.run_all([alone()], tmp_path, tmp_path, executor))
