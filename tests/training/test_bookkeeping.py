"""Heartbeats of a cohort: epoch seconds, images per second and time left, on a fake clock."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import CPU, alone, data, stop_after, train

from kdbench.runs import records
from kdbench.runs.heartbeat import Beat
from kdbench.training import bookkeeping
from kdbench.training.bookkeeping import Bookkeeper
from kdbench.training.cohort import Stopped
from kdbench.training.context import TrainingContext
from kdbench.training.learner import Learner


class FakeClock:
    """A stand-in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(bookkeeping, "time", fake)
    return fake


def learner(seed: int = 0) -> Learner:
    """A learner of 4 steps an epoch and 3 epochs."""
    return Learner(
        alone(seed),
        num_classes=10,
        in_channels=1,
        size=8,
        train_labels=data().train_labels,
        teacher=None,
        teacher_head=None,
        device=CPU,
    )


def test_heartbeats_follow_the_clock_and_the_steps(clock: FakeClock, tmp_path: Path) -> None:
    group = [learner(0), learner(1)]
    for x in group:
        records.folder(tmp_path, x.run.id).mkdir()
    reported: list[list[Beat]] = []
    context = TrainingContext(
        tmp_path, CPU, beat_seconds=1.0, report=lambda beats, line: reported.append(list(beats))
    )
    bookkeeper = Bookkeeper(context, [x.run for x in group])

    bookkeeper.beat(group)  # before the first step: no speed, no ETA
    assert [(beat.images_per_s, beat.eta) for beat in reported[-1]] == [(0.0, None)] * 2

    clock.now += 50  # between epochs: does not count
    bookkeeper.begin_epoch(0)
    for x in group:
        x.step += 1
    clock.now += 2
    assert bookkeeper.beat_due()
    bookkeeper.step_done(group, 16)
    bookkeeper.beat(group)
    assert not bookkeeper.beat_due()
    # 32 images in 2 s; 11 of 3 x 4 steps of 2 s are left
    assert [(beat.images_per_s, beat.eta) for beat in reported[-1]] == [(16.0, 22.0)] * 2
    assert {beat.at for beat in reported[-1]} == {1e9 + clock.now}

    for steps in range(2, 5):
        group[0].step = steps  # the second learner has failed
        group[1].status = "failed"
        bookkeeper.step_done(group[:1], 16)
    clock.now += 8
    for x in group:
        x.next_epoch()
    bookkeeper.end_epoch(group)
    assert bookkeeper.epoch_seconds == 10.0
    [beat] = reported[-1]
    assert (beat.epoch, beat.step) == (2, 0)
    assert beat.images_per_s == (32 + 3 * 16) / 10
    assert beat.eta == 20.0  # two epochs as long as the last one

    bookkeeper.begin_epoch(2)  # resumed: this process did not take the epoch's first steps
    group[0].step = 3
    bookkeeper.step_done(group[:1], 16)
    clock.now += 4
    bookkeeper.beat(group)
    [beat] = reported[-1]
    assert (beat.images_per_s, beat.eta) == (4.0, 12.5)  # 1.25 epochs of 10 s


def test_cohort_counts_every_step_and_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two runs was stopped at step 2 and is resumed together with the other."""
    ends: list[tuple[int, int]] = []
    end_epoch = Bookkeeper.end_epoch

    def spy(self: Bookkeeper, group: list[Learner]) -> None:
        ends.append((self.step, self.images))
        end_epoch(self, group)

    monkeypatch.setattr(Bookkeeper, "end_epoch", spy)
    first, second = alone(student="r8w3"), alone(student="r8w4")
    with pytest.raises(Stopped):
        train([first], tmp_path, stop=stop_after(2))
    train([first, second], tmp_path)
    assert ends == [(4, (2 + 4) * 16), (4, 2 * 4 * 16), (4, 2 * 4 * 16)]


# --- checkpoints ----------------------------------------------------------------------------------


def _saving(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, every: float, takes: float
) -> Bookkeeper:
    """Return a bookkeeper that has just written checkpoints, which took ``takes`` seconds."""

    def save(folder: Path, state: Any, **options: Any) -> None:
        clock.now += takes

    monkeypatch.setattr(bookkeeping.checkpoint, "save", save)
    monkeypatch.setattr(bookkeeping.history, "write", lambda folder, rows, **options: None)
    one = learner()
    keeper = Bookkeeper(TrainingContext(tmp_path, CPU, checkpoint_seconds=every), [one.run])
    keeper.save([one])
    return keeper


@pytest.mark.parametrize(
    ("every", "takes", "interval"),
    [
        (60.0, 0.1, 60.0),
        (60.0, 0.6, 60.0),  # 1 %
        (60.0, 3.0, 300.0),
        (2.0, 0.4, 2.0),  # what the grid asks for
        (2.0, 0.75, 75.0),
    ],
)
def test_slow_checkpoints_are_written_less_often(
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: float,
    takes: float,
    interval: float,
) -> None:
    keeper = _saving(clock, tmp_path, monkeypatch, every=every, takes=takes)
    clock.now += interval - 0.01
    assert not keeper.save_due()
    clock.now += 0.02
    assert keeper.save_due()


def test_checkpoints_after_every_step_are_not_reduced(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _saving(clock, tmp_path, monkeypatch, every=0.0, takes=30.0).save_due()


# --- on a GPU -------------------------------------------------------------------------------------


def test_gpu_has_done_its_steps_before_their_speed_is_computed(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is 10 s ahead; waiting for the GPU makes that time pass."""
    resets: list[torch.device] = []

    def synchronize(device: torch.device) -> None:
        clock.now += 10

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    gpu = torch.device("cuda", 1)
    group = [learner()]
    records.folder(tmp_path, group[0].run.id).mkdir()
    reported: list[list[Beat]] = []
    context = TrainingContext(
        tmp_path, gpu, report=lambda beats, line: reported.append(list(beats))
    )
    keeper = Bookkeeper(context, [group[0].run])
    assert resets == [gpu]  # peaks are those of this cohort
    keeper.begin_epoch(0)
    keeper.step_done(group, 16)
    keeper.beat(group)
    assert reported[-1][0].images_per_s == 1.6
    keeper.end_epoch(group)
    assert keeper.epoch_seconds == 20.0


def test_waiting_for_the_gpu_does_not_count_as_writing_checkpoints(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is 10 s behind when writing begins, which takes a quarter of a second."""
    left = [10.0]

    def synchronize(device: torch.device) -> None:
        clock.now += left.pop() if left else 0.0

    def save(folder: Path, state: Any, **options: Any) -> None:
        synchronize(CPU)  # copying to the host waits
        clock.now += 0.25

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(bookkeeping.checkpoint, "save", save)
    monkeypatch.setattr(bookkeeping.history, "write", lambda folder, rows, **options: None)
    keeper = Bookkeeper(TrainingContext(tmp_path, CPU), [alone()])
    keeper.context = replace(keeper.context, device=torch.device("cuda", 0))
    keeper.save([learner()])
    assert keeper.save_seconds == 0.25
