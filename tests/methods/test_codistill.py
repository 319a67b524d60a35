"""Codistillation: when copies are made and used, and the loss with them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from random_features import Toy, batch, build, features_for, setup
from tiny_runs import alone, numbers, stop_after, taught, train
from torch import Tensor

from kdbench.grid.run import Run
from kdbench.method import Group, Incompatible
from kdbench.models.peers import Peers, networks
from kdbench.registry import lookup
from kdbench.training.cohort import Stopped


class Steps:
    """A method and its networks; ``step`` ends a step."""

    def __init__(self, **hyper: Any) -> None:
        size = hyper.get("peers", 2)
        torch.manual_seed(3)
        self.student = Peers([Toy() for _ in range(size)], Group(size))
        s = features_for("codistill", hyper)
        self.method: Any = build("codistill", s, s, **hyper)
        self.batch = batch()  # 40 labels: 10 steps an epoch

    def step(self, *, change: bool = True) -> None:
        with torch.no_grad():
            for p in self.student.parameters() if change else ():
                p.add_(0.1 * torch.randn_like(p))
        inner = SimpleNamespace(peers=networks(self.student), batch=self.batch)
        self.method.adapt(inner)

    def copied(self) -> bool:
        """Whether the copies are the networks of now."""
        return all(
            torch.equal(x, y)
            for copy, network in zip(self.method.copies, networks(self.student), strict=True)
            for x, y in zip(copy.state_dict().values(), network.state_dict().values(), strict=True)
        )

    def distils(self) -> bool:
        """Whether the copies are part of the loss."""
        s = self.student(self.batch.images)
        labels = self.batch.labels
        labelled = torch.stack([F.cross_entropy(p.logits, labels) for p in s.peers[1:]]).sum()
        return not torch.equal(self.method.loss(s, s, self.batch), labelled)


def test_copies_are_made_after_the_burn_in_and_then_every_interval() -> None:
    steps = Steps(burn_in=0.35, interval=3)  # of one epoch: 4 steps
    found = []
    for _ in range(11):
        steps.step()
        found.append((steps.copied(), steps.distils()))
    assert [i for i, (copied, _) in enumerate(found, 1) if copied] == [4, 7, 10]
    assert [i for i, (_, used) in enumerate(found, 1) if used] == [*range(4, 12)]


def test_without_burn_in_the_first_step_has_no_copies_yet() -> None:
    steps = Steps(burn_in=0.0, interval=2)
    assert not steps.distils()
    steps.step()
    assert steps.copied()
    assert steps.distils()


def test_epochs_of_a_long_burn_in_do_not_run_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(burn_in=2.0)
    monkeypatch.setattr(type(steps.method), "distillation", lambda *_: pytest.fail("ran"))
    for epoch in (1, 2):
        steps.batch = replace(steps.batch, epoch=epoch, epochs=5)
        assert not steps.distils()


def test_fresh_copies_give_the_gradient_of_mutual_learning_with_cross_entropy() -> None:
    """With interval 1 and no burn-in: the partners' predictions of now, in eval mode, at T = 1."""
    steps = Steps(burn_in=0.0, interval=1)
    steps.step()
    steps.student.eval()
    targets = [p.logits.softmax(1) for p in steps.student(steps.batch.images).peers]
    s = steps.student.train()(steps.batch.images)
    labels = steps.batch.labels
    loss = steps.method.loss(s, s, steps.batch)
    grads = torch.autograd.grad(loss, [p.logits for p in s.peers])
    for i, (peer, grad) in enumerate(zip(s.peers, grads, strict=True)):
        right = F.one_hot(labels, 5) if i else torch.zeros(4, 5)
        own = peer.logits.softmax(1)
        expected = (own - targets[1 - i]) / 4 + (own * bool(i) - right) / 4
        torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 1000))
def test_target_is_the_mean_of_the_others_probabilities(seed: int) -> None:
    torch.manual_seed(seed)
    steps = Steps(peers=3)
    images = torch.randn(4, 3, 8, 8)
    logits = torch.randn(3, 4, 5)
    p = [copy(images).logits.softmax(1) for copy in steps.method.copies]
    expected = sum(
        -((p[(i + 1) % 3] + p[(i + 2) % 3]) / 2 * logits[i].log_softmax(1)).sum(1).mean()
        for i in range(3)
    )
    assert isinstance(expected, Tensor)
    found = steps.method.distillation(logits, images)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_copies_are_constants_in_eval_mode() -> None:
    method: Any = Steps().method
    method.train()
    assert method.training
    assert not any(module.training for module in method.copies.modules())
    assert not any(p.requires_grad for p in method.copies.parameters())


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"interval": 0}, "interval: 0: expected at least 1"),
        ({"burn_in": -1.0}, "burn_in: -1: expected at least 0"),
        ({"peers": 3}, "codistill needs 3 networks"),
    ],
)
def test_impossible_settings_are_refused(hyper: dict[str, Any], message: str) -> None:
    s = features_for("codistill", {})
    with pytest.raises(Incompatible, match=message):
        build("codistill", s, s, **hyper)


def test_needs_networks_to_copy_to() -> None:
    s = features_for("codistill", {})
    with pytest.raises(Incompatible, match="networks to copy"):
        lookup.load("codistill")(setup(s, s, new_student=None))


# --- runs -----------------------------------------------------------------------------------------


def online(**hyper: Any) -> Run:
    return replace(taught(alone(), "codistill", hyper=hyper), teacher=None, alpha=0.0)


def test_same_alone_in_a_cohort_and_resumed(tmp_path: Path) -> None:
    """Three epochs of four steps: copies after steps 2, 5, 8 and 11."""
    run = online(burn_in=0.1, interval=3)
    together, apart, resumed = (tmp_path / name for name in ("together", "apart", "resumed"))
    found = train([run, alone()], together)
    assert found[run.id].status == "done", found[run.id].reason
    train([run], apart)
    assert numbers(together, run) == numbers(apart, run)
    for steps in (1, 2, 3, 9):
        folder = resumed / str(steps)
        folder.mkdir(parents=True)
        with pytest.raises(Stopped):
            train([run], folder, stop=stop_after(steps))
        train([run], folder)
        assert numbers(together, run) == numbers(folder, run)
    plain = train([online(burn_in=1.0)], apart)
    assert [r.result.weights for r in plain.values() if r.result] != [
        r.result.weights for r in found.values() if r.result
    ]
