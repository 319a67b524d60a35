"""Tests of weights that change from epoch to epoch."""

import math

import pytest

from kdbench import schedules


def test_length_of_at_most_one_is_a_share_of_the_training() -> None:
    assert schedules.in_epochs(0.25, 240) == 60
    assert schedules.in_epochs(1, 240) == 240
    assert schedules.in_epochs(20, 240) == 20


def test_warmup_is_linear_and_then_one() -> None:
    assert [schedules.warmup(e, 4, 10) for e in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert schedules.warmup(1, 0, 10) == 1.0


def test_rampup_counts_epochs_from_zero() -> None:
    assert schedules.rampup(1, 80, 300) == pytest.approx(math.exp(-5))
    assert schedules.rampup(41, 80, 300) == pytest.approx(math.exp(-1.25))
    assert schedules.rampup(81, 80, 300) == schedules.rampup(300, 80, 300) == 1.0
    assert schedules.rampup(1, 0, 300) == 1.0


def test_cosine_decay_starts_after_its_epoch_and_ends_at_zero() -> None:
    assert schedules.cosine_decay(150, 150, 240) == 1.0
    assert schedules.cosine_decay(195, 150, 240) == pytest.approx(0.5)
    assert schedules.cosine_decay(240, 0.625, 240) == pytest.approx(0.0)
