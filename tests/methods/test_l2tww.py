"""Tests of L2T-ww beyond its golden cases: options, limits, and wrong look-aheads."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_check import check
from golden_files import read_case
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right
from torch import Tensor

from kdbench.bilevel import State
from kdbench.look_ahead import LookAhead
from kdbench.method import Features, Incompatible

GOLDEN = Path(__file__).parents[1] / "golden" / "l2tww"
Of = Callable[[Features], Tensor]


def pair(*, dtype: torch.dtype = torch.float64) -> tuple[Features, Features]:
    """Return features of a student with two stages and a teacher with three."""
    s = features(4, (2, 3), (8, 4), seed=0, dtype=dtype)
    return s, features(4, (3, 2, 4), (8, 4, 2), seed=1, dtype=dtype)


def randomise(method: torch.nn.Module) -> None:
    """Give the weights values with which no pair is dead and channels differ."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in method.parameters():
            p.copy_(torch.rand_like(p))


@pytest.mark.parametrize("where", ["relu6", "relu", "relu-avg", "const"])
def test_term_by_loops(where: str) -> None:
    s, t = pair()
    method: Any = build("l2tww", s, t, where=where, pairs="2-1,0-1")
    randomise(method)
    total = 0.0
    for number, (i, j) in enumerate(((2, 1), (0, 1))):
        ours = torch.nn.functional.conv2d(
            s.stages[j], method.branch[number].weight, method.branch[number].bias
        )
        theirs = resized(t.stages[i], ours.shape[2])
        for b in range(4):
            mean = t.stages[i][b].mean((1, 2))
            net = method.what_nets[number]
            what = (net.weight @ mean + net.bias).exp()
            if where == "const":
                weight = math.log1p(math.exp(10 * method.where_nets.theta[number].item()))
            else:
                line = method.where_nets.nets[number]
                given_mean = mean / len(mean) if where == "relu-avg" else mean
                weight = max(0.0, (line.weight[0] @ given_mean + line.bias[0]).item())
                weight = min(6.0, weight) if where == "relu6" else weight
            gaps = (theirs[b] - ours[b]).square().mean((1, 2))
            total += 0.5 * weight * (what / what.sum() @ gaps).item() / 4
    assert method.loss(s, t, batch()).item() == pytest.approx(total, rel=1e-12)


def resized(maps: Tensor, size: int) -> Tensor:
    """Resize square maps by a factor of 2 or 1/2 by the definition, with half-pixel centres."""
    old = maps.shape[2]
    rows = torch.zeros(size, old, dtype=maps.dtype)
    for i in range(size):
        place = min(max((i + 0.5) * old / size - 0.5, 0), old - 1)
        low = math.floor(place)
        rows[i, low] += 1 - (place - low)
        rows[i, min(low + 1, old - 1)] += place - low
    return rows @ maps @ rows.T


def test_initial_weights_are_uniform_over_channels_and_near_one() -> None:
    s, t = pair()
    method: Any = build("l2tww", s, t)
    assert len(method.pairs) == 6
    for number, (i, _) in enumerate(method.pairs):
        what, where = method.weights(t, number)
        assert torch.equal(what, torch.full_like(what, 1 / t.stages[i].shape[1]))
        assert where.shape == (4,) and (where > 0).all()


def test_gradients_of_the_term() -> None:
    s, t = pair()
    method = build("l2tww", s, t)
    randomise(method)
    assert gradient_is_right(method, s, t)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.floats(0.1, 10))
def test_term_ignores_the_order_of_samples_and_scales(order: list[int], scale: float) -> None:
    s, t = pair()
    method: Any = build("l2tww", s, t, where="const")
    expected = method.loss(s, t, batch()).item()
    mixed = (f.map(lambda x: x[order]) for f in (s, t))
    assert method.loss(*mixed, batch()).item() == pytest.approx(expected, rel=1e-12)
    with torch.no_grad():
        for net in method.branch:
            net.bias.zero_()
    expected = method.loss(s, t, batch()).item()
    larger = (f.map(lambda x: scale * x) for f in (s, t))
    assert method.loss(*larger, batch()).item() == pytest.approx(scale**2 * expected, rel=1e-9)


def test_dead_pairs_have_gradients_of_zero() -> None:
    s, t = pair()
    method: Any = build("l2tww", s, t)
    with torch.no_grad():
        for net in method.where_nets.nets:
            net.bias.fill_(-100)
    leaves = s.map(lambda x: x.detach().requires_grad_())
    loss = method.loss(leaves, t, batch())
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in method.parameters())


def test_trace_is_the_mean_weight_of_each_pair() -> None:
    s, t = pair()
    method: Any = build("l2tww", s, t, pairs="2-0,1-1")
    attention = method.trace(s, t)["attention"]
    assert attention.shape == (2, 3)
    assert attention[0, 2] == method.weights(t, 0)[1].mean()
    assert attention[1, 1] == method.weights(t, 1)[1].mean()
    assert attention.count_nonzero() == 2


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"looks": 0}, "looks is 0, expected at least 1"),
        ({"order": 3}, "order is 3, expected 1 or 2"),
        ({"where": "tanh"}, "where is 'tanh', expected 'relu6' or 'relu' or 'relu-avg' or 'const'"),
        ({"pairs": "0:1"}, "pairs is '0:1', expected 'all' or stages such as '2-1,0-0'"),
        ({"pairs": ""}, "pairs is '', expected 'all'"),
    ],
)
def test_wrong_values_are_refused(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("l2tww", *pair(), **hyper)


def test_missing_stages_are_refused() -> None:
    expected = "pairs has 1-2, but the teacher has 3 stages, the student 2"
    with pytest.raises(Incompatible, match=expected):
        build("l2tww", *pair(), pairs="0-0,1-2")


# -- wrong look-aheads, which the golden iterations find -------------------------------------------


def first_order(self: LookAhead, state: State, of: Of, *, second_order: bool) -> State:
    return STEP(self, state, of, second_order=False)


def without_momenta(self: LookAhead) -> State:
    params, momenta = START(self)
    return State(params, {name: torch.zeros_like(x) for name, x in momenta.items()})


def without_zero_gradients(self: LookAhead, state: State, of: Of, *, second_order: bool) -> State:
    """Leave parameters as they are that the loss does not touch, as torch's optimisers do."""
    loss = self.loss(state, of)
    grads: tuple[Tensor | None, ...] = torch.autograd.grad(
        loss, [*state.params.values()], allow_unused=True, retain_graph=True
    )
    after = STEP(self, state, of, second_order=second_order)
    for name, grad in zip(state.params, grads, strict=True):
        if grad is None:
            after.params[name], after.momenta[name] = state.params[name], state.momenta[name]
    return after


def on_real_buffers(self: LookAhead, state: State, of: Of) -> Tensor:
    self.whole.student(self.batch.images)  # moves running statistics
    return LOSS(self, state, of)


START, STEP, LOSS = LookAhead.start, LookAhead.step, LookAhead.loss


@pytest.mark.parametrize(
    ("name", "wrong", "found"),
    [
        ("step", first_order, "meta_grad0/lwnet"),
        ("start", without_momenta, "meta_grad0/lwnet"),
        ("step", without_zero_gradients, "out/losses0"),
        ("loss", on_real_buffers, "after0/target.blocks.0.1.running_mean"),
    ],
    ids=["first order", "no momenta", "None for zero", "real buffers"],
)
def test_golden_iterations_find_wrong_look_aheads(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: object, found: str
) -> None:
    monkeypatch.setattr(LookAhead, name, wrong)
    with pytest.raises(AssertionError, match=found):
        check(read_case(GOLDEN / "step_b4.npz"))


def test_golden_iterations_find_weight_decay_of_meta_parameters() -> None:
    case = read_case(GOLDEN / "step_b4.npz")
    case.hyper["meta_wd"] = 0.0
    with pytest.raises(AssertionError, match="after0/wnet"):
        check(case)


def test_golden_iterations_find_another_number_of_looks() -> None:
    case = read_case(GOLDEN / "step_b4.npz")
    case.hyper["T"] = 1
    with pytest.raises((AssertionError, RuntimeError), match=r"out/losses0|must match"):
        check(case)
