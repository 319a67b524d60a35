"""Getting runs trained by workers: nothing lost, nothing twice, whatever is killed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TRAINING, alone, numbers, taught, train

from kdbench import files
from kdbench.execution import crashes, local, work
from kdbench.execution.events import Event
from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs import heartbeat, lease, records
from kdbench.runs.lease import Lease, Owner
from kdbench.runs.records import Record
from kdbench.training.cohort import Cohort
from tests.whole.test_invariants import RAISES, plugin

DEBUG = Executor(kind="debug", device="cpu")


def school(seeds: int = 2) -> list[Run]:
    """A teacher and its students, in the order a grid gives."""
    teacher = alone(student="r8w4")
    students = [
        taught(teacher, name, seed=seed) for seed in range(seeds) for name in ("kd", "at", "semckd")
    ]
    return [teacher, *(alone(seed) for seed in range(seeds)), *students]


def finish(runs: list[Run], folder: Path, executor: Executor = DEBUG) -> list[Event]:
    return list(local.run_all(runs, folder, Path("data"), executor))


# --- planning ------------------------------------------------------------------------------------


def test_cohorts_share_teacher_and_seed_and_teachers_come_first() -> None:
    runs = school()
    groups = work.cohorts(runs, most=16, workers=1)
    assert groups[0] == (runs[0],)
    assert sorted(len(group) for group in groups[1:]) == [1, 1, 3, 3]
    assert all(len({run.shared for run in group}) == 1 for group in groups)
    assert Counter(run.id for group in groups for run in group) == Counter(r.id for r in runs)
    assert max(len(group) for group in work.cohorts(runs, most=2, workers=1)) == 2


def test_several_workers_get_enough_cohorts() -> None:
    teacher = alone(student="r8w4")
    runs = [teacher, *(taught(teacher, "kd", student=f"r8w{w}") for w in range(3, 19))]
    groups = work.cohorts(runs, most=16, workers=2)
    assert len(groups) - 1 >= 8


def test_what_has_a_record_is_not_missing(tmp_path: Path) -> None:
    runs = school()
    records.write_run(tmp_path, runs[1])
    records.write(tmp_path, Record(runs[1].id, "failed", "why not"))
    assert work.missing(runs, tmp_path) == [runs[0], *runs[2:]]


# --- training ------------------------------------------------------------------------------------


def test_a_grid_is_trained_once_and_only_what_is_missing(tmp_path: Path) -> None:
    runs = school()
    events = finish(runs, tmp_path)
    assert Counter(run.id for event in events for run, _ in event.ended) == Counter(
        run.id for run in runs
    )
    assert all(r.status == "done" for _, r in events[-1].ended)
    before = {run.id: (tmp_path / run.id / "record.json").stat().st_mtime_ns for run in runs}
    assert finish(runs, tmp_path) == []
    (tmp_path / runs[3].id / "record.json").unlink()
    finish(runs, tmp_path)
    after = {run.id: (tmp_path / run.id / "record.json").stat().st_mtime_ns for run in runs}
    assert [i for i in before if before[i] != after[i]] == [runs[3].id]
    assert not list(tmp_path.glob("*/progress.json"))


def test_a_raising_plugin_is_a_failed_record_and_the_rest_goes_on(tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    path = plugin(tmp_path, "raises", RAISES)
    runs = [teacher, taught(teacher, path), taught(teacher, "kd")]
    finish(runs, tmp_path / "runs")
    found = records.load(tmp_path / "runs", (run.id for run in runs))
    assert [found[run.id].status for run in runs] == ["done", "failed", "done"]


def test_students_of_a_failed_teacher_are_blocked(tmp_path: Path) -> None:
    runs = school(1)
    records.write_run(tmp_path, runs[0])
    records.write(tmp_path, Record(runs[0].id, "failed", "no luck"))
    finish(runs, tmp_path)
    assert [records.read(tmp_path, run.id) is None for run in runs] == [False, False] + [True] * 3


def test_a_chain_of_teachers_is_trained_in_its_order(tmp_path: Path) -> None:
    first = alone(student="r8w4")
    second = taught(first, "kd", student="r8w3")
    third = taught(second, "at", student="v5w4")
    runs = [first, second, third]
    finish(runs, tmp_path)
    assert work.missing(runs, tmp_path) == []


def test_missing_data_ends_all_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    run = alone(dataset=Dataset(name="cifar100"))
    with pytest.raises(JobError, match=r"cifar-100-python\.tar\.gz") as error:
        list(local.run_all([run], tmp_path / "runs", tmp_path / "data", DEBUG))
    assert "\n" not in str(error.value)
    assert records.read(tmp_path / "runs", run.id) is None


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(JobError, match="cannot be written"):
        finish(school(), tmp_path / "runs")


def test_a_full_disk_ends_with_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone()
    train([run], tmp_path / "whole")
    original = files.write_atomically
    calls = [0]

    def fails_later(path: Path, content: str | bytes) -> None:
        calls[0] += 1
        if calls[0] > 8:
            raise OSError(28, "No space left on device", str(path))
        original(path, content)

    monkeypatch.setattr(records, "write_atomically", fails_later)
    monkeypatch.setattr("kdbench.training.checkpoint.write_atomically", fails_later)
    often = DEBUG.model_copy(update={"checkpoint_seconds": 0.0})
    with pytest.raises(JobError, match=r"disk full; checkpoints and records so far are whole"):
        finish([run], tmp_path / "runs", often)
    assert records.read(tmp_path / "runs", run.id) is None
    monkeypatch.undo()
    finish([run], tmp_path / "runs")
    assert numbers(tmp_path / "whole", run) == numbers(tmp_path / "runs", run)


# --- kills ---------------------------------------------------------------------------------------


def _train_until(runs: list[Run], folder: Path, steps: int | None, seconds: float) -> None:
    """Train, but die ``seconds`` after a number of steps; None: train to the end."""
    torch.set_num_threads(1)
    original = Cohort._rest
    left = [steps]

    def rest(self: Cohort, *args: Any) -> None:
        original(self, *args)
        left[0] = None if left[0] is None else left[0] - 1
        if left[0] == 0:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    Cohort._rest = rest  # type: ignore[method-assign, assignment]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends a process as SIGKILL does: at once
    if steps == 0:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    finish(runs, folder, DEBUG.model_copy(update={"checkpoint_seconds": 0.0}))


def test_kills_at_random_moments_change_no_bit(tmp_path: Path) -> None:
    """Up to twelve kills, drawn from a seed; then the same runs undisturbed.

    The moments are counted in steps, of which the runs have 36, so a fast machine has to survive
    as many kills as a slow one.
    """
    runs = school(1)
    fork = multiprocessing.get_context("fork")  # has imported torch already
    rng = random.Random(7)
    kills = 0
    while work.missing(runs, tmp_path / "killed"):
        steps = rng.randint(0, 4) if kills < 12 else None
        when = steps, rng.uniform(0.0005, 0.005)
        child = fork.Process(target=_train_until, args=(runs, tmp_path / "killed", *when))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGALRM)
        kills += child.exitcode != 0
    assert kills >= 6
    finish(runs, tmp_path / "whole")
    for run in runs:
        assert numbers(tmp_path / "whole", run) == numbers(tmp_path / "killed", run)
    assert not list((tmp_path / "killed").glob("*/checkpoint.previous.pt"))


GRID = """
name: tiny
dataset: {name: digits, per_class: 7}
protocol: {preset: demo, epochs: 12, batch_size: 16}
seeds: [0, 1]
pairs: [r8w4 -> r8w3]
methods: [kd, at]
executor: {checkpoint_seconds: 0}
"""


def command(tmp_path: Path, name: str) -> list[str]:
    grid = tmp_path / "tiny.yaml"
    grid.write_text(GRID)
    folders = ["--runs", str(tmp_path / name), "--results", str(tmp_path / f"{name}-results")]
    line = [sys.executable, "-m", "kdbench", "run", "--grid", str(grid), *folders]
    return [*line, "--workers", "2"]


def bits(folder: Path) -> dict[str, object]:
    found = {p.parent.name for p in folder.glob("*/run.json")}
    return {i: r.result for i in found if (r := records.read(folder, i))}


@pytest.mark.slow
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_two_runners_killed_workers_and_ctrl_c(tmp_path: Path) -> None:
    """What users and machines do to a grid, on the command line; records stay single and equal."""
    done = subprocess.run(command(tmp_path, "whole"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "7 runs, 0 there, 7 to train" in done.stdout
    whole = bits(tmp_path / "whole")
    assert len(whole) == 7
    line = command(tmp_path, "hurt")
    stopped = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path / "hurt", stopped)
    stopped.send_signal(signal.SIGINT)
    _, stderr = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "the same command goes on" in stderr
    two = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    killed = _kill_a_worker(tmp_path / "hurt", two)
    out = [one.communicate(timeout=240)[0] for one in two]
    assert [one.returncode for one in two] == [0, 0], out
    assert not killed or any("died of signal 9" in text for text in out)
    assert bits(tmp_path / "hurt") == whole


def _wait_for(folder: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not list(folder.glob("*/progress.json")):
        time.sleep(0.02)


def _kill_a_worker(folder: Path, parents: list[subprocess.Popen[str]]) -> bool:
    """Kill whoever last sent a heartbeat; False where all was done before that."""
    while any(one.poll() is None for one in parents):
        for path in folder.glob("*/progress.json"):
            beat = heartbeat.read(folder, path.parent.name)
            if beat and beat.pid not in {one.pid for one in parents}:
                try:
                    os.kill(beat.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return True
        time.sleep(0.01)
    return False


def test_a_locked_run_is_left_to_its_holder(tmp_path: Path) -> None:
    """Two runners at once, in two processes: each run is trained once."""
    runs = school(2)
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_count, args=(runs, tmp_path, i)) for i in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0]
    trained = [p.read_text().split() for p in tmp_path.glob("trained-*")]
    assert Counter(i for part in trained for i in part) == Counter(run.id for run in runs)


def test_a_run_that_ends_while_its_lease_is_taken_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone()
    original = lease.acquire

    def acquire(folder: Path, owner: Owner) -> Lease | None:
        # The other runner ends it at this very moment.
        records.write_run(tmp_path, run)
        records.write(tmp_path, Record(run.id, "done"))
        return original(folder, owner)

    monkeypatch.setattr(lease, "acquire", acquire)
    monkeypatch.setattr(Cohort, "train", lambda self: pytest.fail("trained twice"))
    finish([run], tmp_path)


def _count(runs: list[Run], folder: Path, number: int) -> None:
    """Train, and write down what this process trained."""
    torch.set_num_threads(1)
    original = Cohort._start
    mine: list[str] = []

    def start(self: Cohort, run: Run, seen: object) -> None:
        mine.append(run.id)
        original(self, run, seen)  # type: ignore[arg-type]

    Cohort._start = start  # type: ignore[method-assign]
    finish(runs, folder)
    (folder / f"trained-{number}").write_text(" ".join(mine))


@pytest.mark.parametrize(
    ("death", "said"),
    [
        pytest.param("os._exit(9)", "last of exit code 9", marks=pytest.mark.slow),
        (
            "os.abort()",
            "last of signal 6: crash in native code (torch), not in the method; network: r8w3 "
            "taught by r8w4; try another version of torch",
        ),
    ],
)
def test_a_run_that_keeps_killing_its_worker_fails(tmp_path: Path, death: str, said: str) -> None:
    text = RAISES.replace('raise RuntimeError("a bug in step 5")', death).replace(
        "from kdbench.method", "import os\n\nfrom kdbench.method"
    )
    teacher = alone(student="r8w4", training=TRAINING.model_copy(update={"epochs": 1}))
    train([teacher], tmp_path / "runs")
    deadly = replace(taught(teacher, plugin(tmp_path, "deadly", text)), training=TRAINING)
    good = taught(teacher, "kd")
    executor = Executor(kind="local", workers=1, device="cpu", checkpoint_seconds=0)
    events = finish([teacher, deadly, good], tmp_path / "runs", executor)
    found = records.load(tmp_path / "runs", (deadly.id, good.id))
    assert found[deadly.id].status == "failed"
    assert found[deadly.id].reason.startswith(f"its worker died 3 times, {said}")
    assert found[good.id].status == "done"
    lines = [line for event in events for line in event.line.splitlines()]
    assert len(lines) == 3
    cause = said.removeprefix("last of ").partition(";")[0]
    assert all(f" died of {cause}; its runs go on in another" in line for line in lines)


@pytest.mark.parametrize("number", crashes.NATIVE)
def test_a_crash_in_native_code_is_distinguished_from_other_deaths(number: int) -> None:
    assert {4, 6, 11} <= set(crashes.NATIVE)
    assert "crash in native code (torch), not in the method" in crashes.cause(number)
    assert "network: r8w3; try" in crashes.remedy(number, alone())
    for other in (1, 9, 15):
        assert "native" not in crashes.cause(other) + crashes.remedy(other, alone())
    assert "out of memory?" in crashes.cause(9)
