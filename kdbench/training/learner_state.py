"""The state of a learner in a checkpoint: everything needed to resume."""

import json
from typing import Any

from kdbench.training.learner import Learner


def state_of(learner: Learner) -> dict[str, Any]:
    """Return everything needed to resume; waits for the device."""
    return {
        "run": _text(learner),
        "phase": learner.phase,
        "epoch": learner.epoch,
        "step": learner.step,
        "steps_done": learner.steps_done,
        "model": learner.student.state_dict(),
        "methods": learner.methods.state_dict(),
        "optimizer": learner.rate.as_number(learner.optimizer.state_dict()),
        "meta_optimizer": learner.meta_training.state(),
        "sums": learner.sums.state(),
        "last_finite_loss": learner.last_finite_loss,
        "history": learner.history,
        "traced": learner.traced,
        "seconds": learner.seconds_before + learner.clock.settle(),
        "teacher_seconds": learner.teacher_seconds,
        "attempts": learner.attempts,
    }


def restore(learner: Learner, state: dict[str, Any]) -> None:
    """Resume from ``state``.

    Raises:
        ValueError: the state belongs to another run.
        RuntimeError: the state does not fit the student or the methods.
    """
    if state.get("run") != _text(learner):
        raise ValueError("the checkpoint belongs to another run")
    learner.phase, learner.epoch, learner.step = state["phase"], state["epoch"], state["step"]
    learner.steps_done = state["steps_done"]
    learner.optimizer = learner.phases.optimizer(learner.phase, learner.run.training)
    learner.student.load_state_dict(state["model"])
    learner.methods.load_state_dict(state["methods"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.meta_training.load(state.get("meta_optimizer", []))  # not in older checkpoints
    learner.sums.load(state["sums"])
    learner.last_finite_loss = state["last_finite_loss"]
    learner.history, learner.traced = list(state["history"]), state.get("traced", {})
    learner.seconds_before = state["seconds"]
    learner.teacher_seconds = state["teacher_seconds"]
    learner.attempts = list(state["attempts"])
    learner.phases.set_modes(learner.phase)


def _text(learner: Learner) -> str:
    return json.dumps(learner.run.canonical, sort_keys=True)
