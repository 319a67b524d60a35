"""Results of a learner: those of the last epoch, and the best epoch in addition."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import CPU, TRAINING, alone, data

from kdbench.grid.settings import Schedule
from kdbench.training import learner_results
from kdbench.training.learner import Learner
from kdbench.training.schedule import learning_rate


def row(epoch: int, test: float, val: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "train_loss": 1.0,
        "train_acc": 50.0,
        "test_loss": 1.0,
        "test_acc": test,
        "test_top5": 99.0,
        "val_acc": val,
        "seconds": 1.0,
    }


def learner(history: list[dict[str, float]]) -> Any:
    return SimpleNamespace(
        history=history, steps_done=12, status="running", last_finite_loss=1.5, run=alone()
    )


def test_headline_is_from_the_last_epoch_not_the_best() -> None:
    history = [row(1, 70.0, 60.0), row(2, 90.0, 70.0), row(3, 80.0, 65.0)]
    result = learner_results.result(learner(history), "w", data(), None)
    assert result is not None
    assert (result.epoch, result.test_acc) == (3, 80.0)
    assert (result.best_epoch, result.best_acc) == (2, 90.0)
    assert (result.val_acc, result.selected_acc) == (65.0, 90.0)
    assert result.last_finite_loss is None


def test_no_epoch_gives_no_result() -> None:
    assert learner_results.result(learner([]), "w", data(), None) is None


def test_earlier_epoch_wins_a_tie() -> None:
    history = [row(1, 90.0, 70.0), row(2, 90.0, 70.0)]
    result = learner_results.result(learner(history), "w", data(), None)
    assert result is not None
    assert result.best_epoch == 1


def test_peaks_of_a_gpu_are_what_is_allocated_and_what_is_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Learner(
        alone(),
        num_classes=10,
        in_channels=1,
        size=8,
        train_labels=data().train_labels,
        teacher=None,
        teacher_head=None,
        device=CPU,
    )
    assert learner_results.cost(made, data()).peak_reserved_mb is None
    gpu = made.device = torch.device("cuda", 1)
    megabytes = {("allocated", gpu): 3 << 20, ("reserved", gpu): 5 << 20}
    for name in ("allocated", "reserved"):
        monkeypatch.setattr(
            torch.cuda, f"max_memory_{name}", lambda device, name=name: megabytes[name, device]
        )
    cost = learner_results.cost(made, data())
    assert (cost.peak_mb, cost.peak_reserved_mb) == (3.0, 5.0)


# --- the learning rate ----------------------------------------------------------------------------


def test_step_schedule_drops_after_its_milestones() -> None:
    training = TRAINING.model_copy(
        update={"schedule": Schedule(kind="step", milestones=(150, 180, 210)), "lr": 0.05}
    )
    rates = [learning_rate(training, epoch, 5, 10) for epoch in (1, 150, 151, 180, 181, 211, 240)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 5e-4, 5e-5, 5e-5])


def test_cosine_schedule_warms_up_and_ends_near_zero() -> None:
    schedule = Schedule(kind="cosine", warmup=0.1)
    training = TRAINING.model_copy(update={"schedule": schedule, "epochs": 10, "lr": 1.0})
    rates = [learning_rate(training, 1 + i // 10, i % 10, 10) for i in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3


def test_constant_schedule() -> None:
    training = TRAINING.model_copy(update={"schedule": Schedule(kind="constant"), "lr": 0.3})
    assert learning_rate(training, 99, 3, 10) == 0.3


def test_learner_uses_the_schedule() -> None:
    loaded = data()
    made = Learner(
        alone(),
        num_classes=10,
        in_channels=1,
        size=8,
        train_labels=loaded.train_labels,
        teacher=None,
        teacher_head=None,
        device=CPU,
    )
    images = torch.zeros(16, 1, 8, 8)
    made.train_step(images, torch.zeros(16, dtype=torch.int64), torch.arange(16), None)
    assert made.optimizer.param_groups[0]["lr"] == learning_rate(made.run.training, 1, 0, 4)
