"""A job on its node: trains what it was submitted for, and ends so that nothing is lost."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import files
from kdbench.execution import work as jobs
from kdbench.execution import worker
from kdbench.execution.slurm import code_snapshot, submissions
from kdbench.execution.slurm.stop_signals import StopSignals
from kdbench.execution.slurm.submissions import Submission
from kdbench.execution.work import JobError, Work
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.runs import attempts, heartbeat, records
from kdbench.runs.lease import Owner

if TYPE_CHECKING:
    from kdbench.training.ranks import World

WAIT_SECONDS = 300.0
"""How long to wait for a teacher's record, or for somebody else who trains the same runs."""
REQUEUED_SECONDS = 90.0
"""How long Slurm may take to end a job that it was asked to start again."""


def train(folder: Path, index: int, flags: StopSignals) -> int:
    """Train an element of a submission.

    Returns:
        The exit code: 0 when every run has a record and none has failed, so that jobs that depend
        on this one start; 1 when something is left or has failed; 2 with a line in
        ``<index>.error`` when training cannot go on; 143 when told to end.
    """
    submission = submissions.read(folder)
    task = int(os.environ.get("SLURM_PROCID", "0"))
    _clear(folder)
    together = submission.ranks > 1
    ids = submission.elements[index][0 if together else task]
    runs = Path(submission.runs)
    cohort = tuple(
        code_snapshot.mapped(records.read_run(runs, run_id), Path(submission.code))
        for run_id in ids
    )
    executor = Executor(**submission.executor)
    side = 1 if together else int(os.environ.get("SLURM_NTASKS", "1"))
    work = Work((cohort,), runs, Path(submission.data), executor, side)
    owner = Owner.me(max(submission.attempts.get(run_id, 0) for run_id in ids))
    try:
        moved, code = _work(work, cohort, owner, flags)
    except JobError as error:
        sys.stderr.write(f"kdbench: {error}\n")
        files.write_atomically(folder / f"{index}.error", f"{error}\n")
        return 2
    left = jobs.missing(cohort, runs)
    if flags.stop and left:
        return _stopped(submission, task, left, flags, moved=moved)
    _marker(submission, "ended", task).touch()
    return code


def _work(
    work: Work, cohort: tuple[Run, ...], owner: Owner, flags: StopSignals
) -> tuple[bool, int]:
    """Train until all is done or a signal has come: whether anything was trained, exit code."""
    from kdbench.training import ranks  # imports torch

    if work.executor.ranks > 1:
        from submitit.helpers import TorchDistributedEnvironment

        # Which GPUs a process sees is Slurm's to say: two jobs on a node must not share one.
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    try:
        with ranks.joined(work.executor.device) as world:
            moved = _together(work, cohort, owner, flags, world)
            return moved, world.first_rank_runs(lambda: _code(work, cohort))
    except ranks.RankLost as lost:
        sys.stderr.write(f"kdbench: another rank was lost: {lost}\n")
        sys.stderr.flush()
        os._exit(3)  # what still waits for the lost one would keep the process


def _together(
    work: Work, cohort: tuple[Run, ...], owner: Owner, flags: StopSignals, world: "World"
) -> bool:
    from kdbench.execution.worker import Trainer  # imports torch

    number = int(os.environ.get("SLURM_LOCALID", "0"))
    trainer = Trainer(work, number, lambda: flags.stop, lambda beats, line: _say(line), world)
    moved, since = False, time.monotonic()
    while not world.any_rank(flags.stop)[0]:
        state = worker.attempt(cohort, work, trainer, owner)
        if state == "ended":
            break
        if state == "trained":
            moved, since = True, time.monotonic()
        elif world.any_rank(time.monotonic() - since > WAIT_SECONDS)[0]:
            break
        else:
            time.sleep(1.0)
    return moved


def _code(work: Work, cohort: tuple[Run, ...]) -> int:
    found = records.load(work.runs, (run.id for run in cohort))
    bad = any(record.status in ("failed", "diverged") for record in found.values())
    return 1 if bad or len(found) < len(cohort) else 0


def _say(line: str) -> None:
    if line:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _stopped(
    submission: Submission, task: int, left: list[Run], flags: StopSignals, *, moved: bool
) -> int:
    """Told to stop: have Slurm start the job again where that is what the signal means."""
    runs, job = Path(submission.runs), Owner.me().job
    how = "told to stop (USR2)" if flags.requeue else "told to end (TERM)"
    for run in left if submission.ranks == 1 or not task else ():
        beat = heartbeat.read(runs, run.id, fresh=False)
        where = f" at {beat.phase} epoch {beat.epoch}, step {beat.step}" if beat else ""
        attempts.note(runs, run.id, f"job {job}: {how}{where}")
    # Without a step in between, the time limit is too short, and starting again is no help.
    if not (flags.requeue and moved):
        _marker(submission, "ended", task).touch()
        return 143
    _marker(submission, "stopped", task).touch()
    if _first_of_the_stopped(submission) == task:
        try:
            command = ["scontrol", "requeue", job]
            subprocess.run(command, check=True, timeout=60, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            _say(f"scontrol requeue {job}: {error}; the runner will submit these runs again")
            return 143
    _wait_to_be_ended()
    return 143


def _marker(submission: Submission, how: str, task: int | str) -> Path:
    """What a task of a job leaves when it has stopped with its checkpoints written, or ended."""
    me = Owner.me()
    return submission.folder / f"{how}-{me.job}-{me.restart}-{task}"


def _first_of_the_stopped(submission: Submission) -> int:
    """Which task asks for the requeue, once all have stopped or ended: it ends them all."""
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    until = time.monotonic() + 0.5 * submission.executor["slurm"]["signal_seconds"]
    while True:
        stopped, ended = (
            list(submission.folder.glob(_marker(submission, how, "*").name))
            for how in ("stopped", "ended")
        )
        if len(stopped) + len(ended) >= tasks or time.monotonic() > until:
            return min(int(path.name.rpartition("-")[2]) for path in stopped)
        time.sleep(0.5)


def _wait_to_be_ended() -> None:
    time.sleep(REQUEUED_SECONDS)


def _clear(folder: Path) -> None:
    """What an attempt that was killed while submitit wrote its result would trip over."""
    for path in (folder / "log").glob("*.save_tmp"):
        with contextlib.suppress(OSError):
            path.unlink()
