"""A Slurm job on its node: trains the runs of one array element, and stops without losing work."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from kdbench import files
from kdbench.errors import one_line
from kdbench.execution import crashes, work
from kdbench.execution.slurm import code_snapshot, submissions
from kdbench.execution.slurm.stop_signals import StopSignals
from kdbench.execution.slurm.submissions import Submission
from kdbench.execution.stopping_reason import stopping_reason
from kdbench.execution.waiting import Waiting
from kdbench.execution.work import JobError, Work
from kdbench.execution.worker import Worker
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.runs import attempts, heartbeat, records
from kdbench.runs.owner import Owner
from kdbench.training import device, ranks
from kdbench.training.ranks import World

WAIT_SECONDS = 300.0
"""How long to wait for a teacher's record, or for another process that trains the same runs."""
REQUEUED_SECONDS = 90.0
"""How long Slurm may take to end a job that it was asked to requeue."""


def train(folder: Path, index: int, signals: StopSignals) -> int:
    """Train an element of a submission.

    Returns:
        The exit code. 0: every run has a record and none failed, so dependent jobs start. 1: some
        run has no record or failed. 2: training cannot continue, and ``<index>.error`` has the
        reason. 143: stopped by a signal. If the GPU refuses all further work, the process ends at
        once, with ``crashes.DEVICE_LOST``.
    """
    try:
        return _train(folder, index, signals)
    except BaseException as error:
        reason = stopping_reason(error)
        if reason is None:
            raise
        sys.stderr.write("".join(f"kdbench: {line}\n" for line in reason.splitlines()))
        # If this disk is the reason, the job's log has it.
        with contextlib.suppress(OSError):
            files.write_atomically(folder / f"{index}.error", f"{reason}\n")
        return 2


def _train(folder: Path, index: int, signals: StopSignals) -> int:
    """Train an element of a submission, and return its exit code, as ``train`` does."""
    submission = _submission(folder)
    process = int(os.environ.get("SLURM_PROCID", "0"))
    _remove_partial_results(folder)
    together = submission.ranks > 1
    ids = submission.elements[index][0 if together else process]
    runs = Path(submission.runs)
    cohort = tuple(
        code_snapshot.with_plugins_of(records.read_run(runs, run_id), Path(submission.code))
        for run_id in ids
    )
    executor = Executor(**submission.executor)
    workers = 1 if together else int(os.environ.get("SLURM_NTASKS", "1"))
    made_of = submission.recorded_data()
    task = Work((cohort,), runs, Path(submission.data), executor, workers, made_of=made_of)
    owner = Owner.me(max(submission.attempts.get(run_id, 0) for run_id in ids))
    progressed, code = _train_with_ranks(task, owner, signals)
    left = work.missing(cohort, runs)
    if signals.stop and left:
        return _stopped(submission, process, left, signals, progressed=progressed)
    with contextlib.suppress(OSError):  # all runs have their records
        _marker(submission, "ended", process).touch()
    return code


def _submission(folder: Path) -> Submission:
    """Read the submission that this job belongs to."""
    try:
        return submissions.read(folder)
    except OSError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        path = folder / "submission.json"
        raise JobError(f"{path}: not a submission: {one_line(error)}") from error


def _train_with_ranks(task: Work, owner: Owner, signals: StopSignals) -> tuple[bool, int]:
    """Join the other ranks, if any, and train until all is done or a signal has come.

    Returns:
        Whether anything was trained, and the exit code.
    """
    if task.executor.ranks > 1:
        from submitit.helpers import TorchDistributedEnvironment

        # Slurm decides which GPUs a process sees: two jobs on a node must not share one.
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    try:
        with ranks.join_ranks(task.executor.device) as world:
            progressed = _train_or_leave(task, owner, signals, world)
            return progressed, world.first_rank_runs(lambda: _exit_code(task))
    except ranks.RankLost as lost:
        sys.stderr.write(f"kdbench: another rank was lost: {lost}\n")
        sys.stderr.flush()
        os._exit(3)  # threads that still wait for the lost rank would keep the process alive


def _train_or_leave(task: Work, owner: Owner, signals: StopSignals, world: World) -> bool:
    """Call ``_train_cohort``; end the process if its GPU refuses all further work."""
    try:
        return _train_cohort(task, owner, signals, world)
    except BaseException as error:
        if not device.lost(error):
            raise
        sys.stderr.write(f"kdbench: {crashes.gpu_refuses(error)}\n")
        sys.stderr.flush()
        os._exit(crashes.DEVICE_LOST)  # leaving nccl and the interpreter would wait for the GPU


def _train_cohort(task: Work, owner: Owner, signals: StopSignals, world: World) -> bool:
    number = int(os.environ.get("SLURM_LOCALID", "0"))
    worker = Worker(task, number, lambda: signals.stop, lambda beats, line: _print(line), world)
    progressed, since, waiting = False, time.monotonic(), Waiting(task.runs)
    while not world.any_rank(signals.stop)[0]:
        state = worker.attempt(task.cohorts[0], owner)
        if state == "ended":
            break
        if state == "trained":
            progressed, since = True, time.monotonic()
        elif world.any_rank(time.monotonic() - since > WAIT_SECONDS)[0]:
            break
        else:
            if world.first:
                _print(waiting.line(task.cohorts[0]))
            time.sleep(1.0)
    return progressed


def _exit_code(task: Work) -> int:
    (cohort,) = task.cohorts
    written = records.load(task.runs, (run.id for run in cohort))
    bad = any(record.status in ("failed", "diverged") for record in written.values())
    return 1 if bad or len(written) < len(cohort) else 0


def _print(line: str) -> None:
    if line:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _stopped(
    submission: Submission,
    process: int,
    left: list[Run],
    signals: StopSignals,
    *,
    progressed: bool,
) -> int:
    """Note where the runs stopped, and have Slurm requeue the job if the signal asks for it."""
    runs, job = Path(submission.runs), Owner.me().job
    how = "stopped by USR2" if signals.requeue else "stopped by TERM"
    for run in left if submission.ranks == 1 or not process else ():
        beat = heartbeat.read(runs, run.id, fresh=False)
        where = f" at {beat.phase} epoch {beat.epoch}, step {beat.step}" if beat else ""
        attempts.note(runs, run.id, f"job {job}: {how}{where}")
    # If not a single step was trained, the time limit is too short; requeueing would not help.
    if not (signals.requeue and progressed):
        _marker(submission, "ended", process).touch()
        return 143
    _marker(submission, "stopped", process).touch()
    if _first_stopped(submission) == process:
        try:
            command = ["scontrol", "requeue", job]
            subprocess.run(command, check=True, timeout=60, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            _print(f"scontrol requeue {job}: {error}; the runner will submit these runs again")
            return 143
    _wait_to_be_killed()
    return 143


def _marker(submission: Submission, how: str, process: int | str) -> Path:
    """Return the file that a process of a job creates when it has ended, or checkpointed."""
    me = Owner.me()
    return submission.folder / f"{how}-{me.job}-{me.restart}-{process}"


def _first_stopped(submission: Submission) -> int:
    """Wait until every process has stopped or ended; return the first one that has stopped.

    That process asks for the requeue, which kills all processes of the job.
    """
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


def _wait_to_be_killed() -> None:
    time.sleep(REQUEUED_SECONDS)


def _remove_partial_results(folder: Path) -> None:
    """Remove what submitit was writing when an earlier attempt was killed; it would fail on it."""
    for path in (folder / "log").glob("*.save_tmp"):
        with contextlib.suppress(OSError):
            path.unlink()
