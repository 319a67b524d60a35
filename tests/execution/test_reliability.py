"""Every sentence of docs/reliability.md names a test; and a worker that is stopped."""

import ast
import multiprocessing
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from debug_runner import DEBUG, teacher_and_students, train_all
from tiny_runs import numbers

from kdbench.grid.run import Run
from kdbench.runs import lease, records
from kdbench.training.cohort import Cohort

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
LEASE, OWNER, POOL = "runs/test_lease.py", "runs/test_owner.py", "execution/test_pool.py"
HERE, RETRY = "execution/test_reliability.py", "execution/test_retry.py"
STOPPING = "execution/test_stopping_reason.py"
CHECKPOINT, LOCAL = "training/test_checkpoint.py", "execution/test_local.py"
WORKER, SILENCE = "execution/test_worker.py", "execution/test_slurm_silence.py"

TESTS = {
    # Leases
    "Of many processes that ask for a run at once, one gets its lease.":
        (LEASE, "test_only_one_of_many_processes_acquires_a_run"),
    "The owner renews its lease in the background, so a long step, evaluation or download does not "
    "lose it.":
        (LEASE, "test_lease_is_refreshed_in_the_background"),
    "A lease whose owner has ended is taken at once, if the owner ran on the same machine.":
        (LEASE, "test_dead_process_holds_no_lease"),
    "A later start of a Slurm job takes the leases of an earlier start of the same job at once.":
        (LEASE, "test_earlier_start_of_a_job_yields_to_a_later_one"),
    "A lease that was not renewed for two minutes is taken, whatever its owner does.":
        (LEASE, "test_stale_lease_is_taken_and_its_owner_notices"),
    "A process puts no file of a run in place after it has lost the lease of the run.":
        (LEASE, "test_lease_cannot_be_taken_while_its_owner_puts_a_file_in_place"),
    "A record is written once: the record of a second process is discarded.":
        (HERE, "test_second_record_is_discarded"),
    # Kills, power cuts and full disks
    "A killed process loses no more than the training since its last checkpoint.":
        (HERE, "test_killed_process_loses_only_the_steps_since_its_last_checkpoint"),
    "Runs that were killed and resumed have the same results, bit for bit, as runs that were not.":
        (WORKER, "test_kills_at_random_moments_change_no_bit"),
    "A file is replaced completely or not at all.":
        ("test_files.py", "test_failed_write_names_the_file_and_keeps_the_old_one"),
    "A damaged checkpoint is detected, and the one before it is used.":
        (CHECKPOINT, "test_training_resumes_from_before_a_damaged_checkpoint"),
    "A full disk ends training with one line that names the file; the same command resumes.":
        (WORKER, "test_full_disk_is_reported_in_one_line_and_loses_nothing"),
    "A run that kills its worker three times fails, and the other runs of its cohort finish.":
        (LOCAL, "test_run_that_keeps_killing_its_worker_fails"),
    # Stopped processes
    "A stopped worker blocks none of its runs for more than about two minutes.":
        (HERE, "test_stopped_worker_blocks_no_run_and_changes_none_when_it_continues"),
    "A stopped worker that continues after its runs were taken over changes none of their files.":
        (HERE, "test_stopped_worker_blocks_no_run_and_changes_none_when_it_continues"),
    "A process that was stopped while it held the lock of a run blocks no other process forever.":
        (LEASE, "test_process_stopped_with_the_lock_blocks_a_run_for_a_while_only"),
    "A machine that was suspended keeps its leases when it continues.":
        (LEASE, "test_machine_that_was_suspended_keeps_its_leases"),
    # Wrong clocks
    "A lease that is dated in the future by a wrong clock is taken after two minutes without "
    "renewal.":
        (LEASE, "test_wrong_clock_neither_keeps_nor_loses_a_lease"),
    "A lease that is renewed by a machine with a wrong clock is not taken.":
        (LEASE, "test_wrong_clock_neither_keeps_nor_loses_a_lease"),
    "A heartbeat that is dated in the future does not make a run look as if it were in training.":
        ("cli/test_status.py", "test_status_names_the_holder_of_a_run_without_heartbeat"),
    # Equal process ids
    "Processes with equal pids and equal host names in two containers are different owners.":
        (OWNER, "test_equal_pids_in_two_namespaces_are_two_owners"),
    "The death of a worker counts only for runs that this worker trained.":
        (POOL, "test_death_does_not_count_for_a_run_of_another_host_with_this_pid"),
    "A run that another process holds is not recorded as failed.":
        (POOL, "test_run_that_another_process_has_taken_over_is_not_recorded_as_failed"),
    # Several runners and lost nodes
    "Two runners that share a folder train each run once.":
        (WORKER, "test_two_workers_train_each_run_once"),
    "A runner that can only wait for other processes says which ones, and when they last gave a "
    "sign.":
        ("execution/test_waiting.py", "test_runner_says_whom_it_waits_for"),
    "The status of a run names the process that holds it.":
        ("cli/test_status.py", "test_status_names_the_holder_of_a_run_without_heartbeat"),
    "A run whose Slurm job is lost is submitted again, and its record lists the loss.":
        ("execution/test_slurm_losses.py",
         "test_lost_run_is_submitted_again_and_noted_in_its_attempts"),
    "Nothing is concluded about jobs while Slurm does not answer.":
        ("execution/test_slurm_outages.py",
         "test_nothing_is_concluded_while_squeue_does_not_answer"),
    "A runner that waits for a Slurm that never answered gives up after ten minutes, if it has "
    "submitted no job.":
        (SILENCE, "test_runner_gives_up_if_slurm_never_answered"),
    "A runner on a machine without Slurm's commands ends at once with one line.":
        (SILENCE, "test_run_without_slurm_ends_at_once_with_one_line"),
    # Damaged and foreign files
    "One flipped bit in a record, in `run.json` or in `records.parquet` is detected.":
        ("benchmarks/test_damage.py", "test_no_flipped_bit_is_read_silently"),
    "A record in the folder of another run is refused.":
        ("runs/test_records.py", "test_record_and_settings_of_another_run_are_refused"),
    "A record without a checksum, which an earlier version wrote, is read if its values are "
    "possible, and `kdbench show` says so.":
        ("cli/test_status.py", "test_show_tells_a_record_without_checksum"),
    "A damaged learning curve ends a report with one line that names the file.":
        (STOPPING, "test_damaged_curve_ends_a_report_in_one_line"),
    "A damaged log of attempts stops no run.":
        (STOPPING, "test_undecodable_log_of_attempts_ends_no_run"),
    "A damaged record of a teacher ends a worker, or a job, with one line that names the file.":
        (STOPPING, "test_damaged_record_of_a_teacher_ends_a_job_with_its_error_file"),
    "A damaged lease counts as none.":
        (LEASE, "test_damaged_lease_counts_as_none"),
    "A student is not trained by a teacher whose checkpoint is not the one that its record "
    "describes.":
        (RETRY, "test_teacher_whose_checkpoint_was_replaced_is_trained_again"),
    "`kdbench retry` marks such a teacher for training again.":
        (RETRY, "test_teacher_whose_checkpoint_was_replaced_is_trained_again"),
    # What is not guaranteed
    "Work since the last checkpoint of a stopped process is done again by the process that takes "
    "over.":
        (HERE, "test_stopped_worker_blocks_no_run_and_changes_none_when_it_continues"),
    "A lease of another machine that looks old is taken only after half a minute of watching it.":
        (LEASE, "test_stale_lease_is_taken_and_its_owner_notices"),
    "A dead process on another machine is not recognised as dead; its runs wait until its leases "
    "are stale.":
        (LEASE, "test_pid_of_another_host_is_not_judged"),
}  # fmt: skip
"""By sentence of the page, the file and the name of its test."""


def test_every_sentence_of_the_page_has_a_test() -> None:
    items = re.findall(r"^- (.*(?:\n  .*)*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [" ".join(item.split()) for item in items] == list(TESTS)


@pytest.mark.parametrize(("file", "name"), sorted(set(TESTS.values())))
def test_named_tests_exist(file: str, name: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# --- tests that belong to no other module ---------------------------------------------------------


def _steps_then(runs: list[Run], folder: Path, steps: int, number: int, seconds: float) -> None:
    """Train, and send this process a signal after a number of steps."""
    torch.set_num_threads(1)
    original = Cohort._between_steps
    left = [steps]

    def between_steps(self: Cohort, *args: Any) -> None:
        original(self, *args)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    Cohort._between_steps = between_steps  # type: ignore[method-assign, assignment]
    train_all(runs, folder, DEBUG.model_copy(update={"checkpoint_seconds": seconds}))


def _start(*args: Any) -> "multiprocessing.process.BaseProcess":
    fork = multiprocessing.get_context("fork")  # torch is imported already
    child = fork.Process(target=_steps_then, args=args)
    child.start()
    assert child.pid is not None
    return child


def _files(runs: list[Run], folder: Path) -> dict[Path, bytes]:
    """Read all files that training leaves of runs."""
    names = ("record.json", "history.csv", "checkpoint.pt")
    paths = [records.folder(folder, run.id) / name for run in runs for name in names]
    return {path: path.read_bytes() for path in paths}


def test_stopped_worker_blocks_no_run_and_changes_none_when_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is stopped in the middle of a cohort of students."""
    runs = teacher_and_students(1)
    train_all(runs, tmp_path / "expected")
    monkeypatch.setattr("kdbench.runs.signs_of_life.STALE_SECONDS", 3.0)
    stopped = _start(runs, tmp_path / "runs", 30, signal.SIGSTOP, 0.0)
    try:
        assert os.WIFSTOPPED(os.waitpid(stopped.pid or 0, os.WUNTRACED)[1])
        held = [run for run in runs if lease.holder(records.folder(tmp_path / "runs", run.id))]
        assert len(held) == 3
        train_all(runs, tmp_path / "runs")
        before = _files(runs, tmp_path / "runs")
        os.kill(stopped.pid or 0, signal.SIGCONT)
        stopped.join()
    finally:
        stopped.kill()
    assert stopped.exitcode == 0
    assert _files(runs, tmp_path / "runs") == before
    for run in runs:
        assert numbers(tmp_path / "expected", run) == numbers(tmp_path / "runs", run)


def test_killed_process_loses_only_the_steps_since_its_last_checkpoint(tmp_path: Path) -> None:
    runs = teacher_and_students(1)[:1]
    killed = _start(runs, tmp_path, 7, signal.SIGKILL, 0.0)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    train_all(runs, tmp_path)
    record = records.read(tmp_path, runs[0].id)
    # An epoch has 4 steps, and a checkpoint was written after each of the 7.
    assert record is not None and record.attempts == ("resumed at train epoch 2, step 3",)


def test_second_record_is_discarded(tmp_path: Path) -> None:
    runs = teacher_and_students(1)[:1]
    records.write_run(tmp_path, runs[0])
    first = records.Record(runs[0].id, "failed", "first")
    assert records.write(tmp_path, first)
    assert not records.write(tmp_path, records.Record(runs[0].id, "failed", "second"))
    assert records.read(tmp_path, runs[0].id) == first
