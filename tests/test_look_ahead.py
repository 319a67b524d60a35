"""Tests of a look ahead: the optimiser's own steps, on copies, differentiable."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.bilevel import MetaOptimizer
from kdbench.features import Batch, Features
from kdbench.look_ahead import LookAhead, Whole, make_optimizer
from kdbench.method import ContractBroken, Group
from kdbench.models import zoo
from kdbench.models.peers import Peers
from kdbench.registry.toy_networks import Toy

RULES: list[dict[str, Any]] = [
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": True},
    {"lr": 0.1, "momentum": 0.0, "weight_decay": 1e-2},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0},
]


class Weight(nn.Module):
    """A method's modules: one trained by the optimiser, one by ``learn``."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(8, 8)
        self.weight = nn.Parameter(torch.ones(()))

    def matching(self, s: Features) -> Tensor:
        return self.weight * (self.own(s.embedding) - 1).square().mean()


class Scene:
    """A toy student after some steps, in float64, and a look ahead from there."""

    def __init__(self, steps: int = 2, kind: Any = "adam", **rule: Any) -> None:
        torch.manual_seed(0)
        self.student, self.method = Toy(), Weight()
        self.whole = Whole(self.student, nn.ModuleList([self.method])).double()
        trained = [*self.student.parameters(), *self.method.own.parameters()]
        self.optimizer = torch.optim.SGD(trained, **(rule or RULES[0]))
        images, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 5
        self.batch = Batch(images, labels, torch.arange(6))
        for _ in range(steps):
            self.real_step(self.task)
        self.watched: list[Tensor] = []
        meta = make_optimizer([self.method.weight], MetaOptimizer(kind, lr=0.1, weight_decay=0.01))
        self.inner = LookAhead(
            "Weight",
            self.whole,
            self.optimizer,
            [self.method.weight],
            meta,
            t=self.student(images).detached(),
            batch=self.batch,
            watch=self.watched.append,
        )

    def task(self, s: Features) -> Tensor:
        return F.cross_entropy(s.logits, self.batch.labels)

    def real_step(self, of: Any) -> None:
        of(self.student(self.batch.images)).backward()
        for p in self.whole.parameters():
            if p.grad is None:  # the optimiser would skip it
                p.grad = torch.zeros_like(p)
        self.optimizer.step()
        self.whole.zero_grad(set_to_none=True)

    def everything(self) -> dict[str, Tensor]:
        """Return copies of all that a look ahead must leave as it is."""
        found = dict(self.whole.state_dict())
        for i, state in enumerate(self.optimizer.state.values()):
            if state.get("momentum_buffer") is not None:
                found[f"momentum {i}"] = state["momentum_buffer"]
        return {name: x.clone() for name, x in found.items()}


@pytest.mark.parametrize("steps", [0, 2], ids=["no momentum yet", "with momenta"])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("second_order", [True, False])
def test_virtual_steps_equal_the_optimisers_steps(
    rule: dict[str, Any], steps: int, second_order: bool
) -> None:
    scene = Scene(steps, **rule)
    state = scene.inner.start()
    for of in (scene.method.matching, scene.task, scene.task):
        state = scene.inner.step(state, of, second_order=second_order)
        scene.real_step(of)
    parameters = dict(scene.whole.named_parameters())
    assert state.params.keys() == parameters.keys() - {"methods.0.weight"}
    for name, x in state.params.items():
        torch.testing.assert_close(x, parameters[name], rtol=1e-12, atol=1e-14)
        momentum = scene.optimizer.state[parameters[name]].get("momentum_buffer")
        if momentum is not None:
            torch.testing.assert_close(state.momenta[name], momentum, rtol=1e-12, atol=1e-14)


def test_look_ahead_leaves_everything_as_it_was() -> None:
    scene = Scene()
    before = scene.everything()
    state = scene.inner.step(scene.inner.start(), scene.method.matching)
    scene.inner.learn(scene.inner.loss(scene.inner.step(state, scene.task), scene.task))
    after = scene.everything()
    assert [name for name in before if not torch.equal(before[name], after[name])] == [
        "methods.0.weight"
    ]
    assert all(p.grad is None for p in scene.whole.parameters())
    assert len(scene.watched) == 1 and scene.watched[0].isfinite()


@pytest.mark.parametrize("second_order", [True, False])
def test_meta_gradient_agrees_with_differences(second_order: bool) -> None:
    """The second-order gradient is the derivative; the first-order one is not."""
    scene = Scene()

    def outcome() -> Tensor:
        state = scene.inner.start()
        for of in (scene.method.matching, scene.method.matching, scene.task):
            state = scene.inner.step(state, of, second_order=second_order)
        return scene.inner.loss(state, scene.task)

    weight = scene.method.weight
    [gradient] = torch.autograd.grad(outcome(), [weight])
    values = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            weight.fill_(1 + shift)
        values.append(outcome().item())
    expected = (values[0] - values[1]) / 2e-5
    assert gradient.item() != 0
    assert (gradient.item() == pytest.approx(expected, rel=1e-5)) == second_order


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_learning_is_one_step_of_the_meta_optimiser(kind: str) -> None:
    scene = Scene(kind=kind)
    state = scene.inner.step(scene.inner.start(), scene.method.matching)
    loss = scene.inner.loss(state, scene.task)
    twin = copy.deepcopy(scene.method.weight)
    [twin.grad] = torch.autograd.grad(loss, [scene.method.weight], retain_graph=True)
    optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[kind]
    optimizer([twin], lr=0.1, weight_decay=0.01).step()
    scene.inner.learn(loss)
    torch.testing.assert_close(scene.method.weight, twin, rtol=1e-12, atol=0)
    assert twin.item() != 1


def test_networks_of_a_student_and_of_a_group() -> None:
    scene = Scene()
    assert [*scene.inner.peers] == [scene.student]
    members = [zoo.create("r8w3", num_classes=5) for _ in range(3)]
    scene.whole.student = Peers(members, Group(3))
    assert [*scene.inner.peers] == members


@pytest.mark.parametrize("what", ["step", "learn", "nothing to train"])
def test_mistakes_are_named(what: str) -> None:
    scene = Scene()
    constant = torch.ones((), dtype=torch.float64)
    if what == "step":
        with pytest.raises(ContractBroken, match=r"Weight\.adapt takes a step on a loss without"):
            scene.inner.step(scene.inner.start(), lambda s: constant)
    elif what == "learn":
        with pytest.raises(ContractBroken, match=r"Weight\.adapt learns from a loss without a gra"):
            scene.inner.learn(constant)
    else:
        scene.inner.meta_optimizer = None
        with pytest.raises(ContractBroken, match="calls learn, but meta returns no modules"):
            scene.inner.learn(scene.method.weight * 2)
