import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted

from kdbench.method import Incompatible
from kdbench.registry.toy_networks import Toy


@pytest.mark.parametrize("relu", [True, False])
def test_value(relu: bool) -> None:
    s = features(3, (2, 3), (2, 2), seed=0, dtype=torch.float64)
    t = features(3, (4, 2), (2, 2), seed=1, dtype=torch.float64)
    method = build("fitnets", s, t, relu=relu)
    state = {name: x.clone() for name, x in method.state_dict().items()}
    weight, bias = state["regressor.conv.weight"].flatten(1), state["regressor.conv.bias"]
    total = 0.0
    for c in range(4):
        guesses, targets = [], []
        for n in range(3):
            for y in range(2):
                for x in range(2):
                    pixel = s.stages[0][n, :, y, x].tolist()
                    row = weight[c].tolist()
                    guess = sum(w * v for w, v in zip(row, pixel, strict=True)) + bias[c].item()
                    guesses.append(guess)
                    targets.append(t.stages[0][n, c, y, x].item())
        mean = sum(guesses) / len(guesses)
        variance = sum((g - mean) ** 2 for g in guesses) / len(guesses)
        for guess, target in zip(guesses, targets, strict=True):
            normal = (guess - mean) / (variance + 1e-5) ** 0.5
            normal = max(0.0, normal) if relu else normal
            total += (normal - target) ** 2
    assert method.loss(s, t, batch(3)).item() == pytest.approx(total / (3 * 4 * 4), rel=1e-10)


@pytest.mark.parametrize(("student", "teacher"), [(8, 8), (8, 4), (4, 8), (7, 4), (3, 8), (1, 2)])
def test_unequal_map_sizes_are_accepted(student: int, teacher: int) -> None:
    s, t = features(2, (2,), (student,)), features(2, (3,), (teacher,))
    assert build("fitnets", s, t).loss(s, t, batch(2)).isfinite()


@pytest.mark.parametrize(("layer", "used"), [(0, "stem"), (2, "stages"), (-1, "stages")])
def test_hint_layer(layer: int, used: str) -> None:
    s, t = features(seed=0, grad=True), features(seed=1)
    build("fitnets", s, t, hint_layer=layer).loss(s, t, batch()).backward()
    reached = s.stem if used == "stem" else s.stages[layer if layer < 0 else layer - 1]
    assert reached.grad is not None


def test_missing_hint_layer_is_refused_with_shapes() -> None:
    s, t = features(), features(channels=(4, 6), sizes=(8, 8))
    with pytest.raises(Incompatible, match=r"hint_layer 3 .*\[4, 8, 8\]"):
        build("fitnets", s, t, hint_layer=3)


def test_one_stage_is_the_default_and_has_no_first_phase() -> None:
    s = features()
    assert not build("fitnets", s, s).pretrain(Toy())
    with pytest.raises(ValueError, match="stages is 'three', expected 'one' or 'two'"):
        build("fitnets", s, s, stages="three")


def test_two_stages() -> None:
    s, t = features(seed=0, grad=True), features(seed=1)
    method = build("fitnets", s, t, stages="two", norm=False)
    one_stage = build("fitnets", s, t, norm=False)
    assert "regressor.bn.weight" not in method.state_dict()
    network = Toy()
    modules = [*method.pretrain(network)]
    assert modules == [*network.trunk(), *method.children()]
    assert torch.equal(method.pretrain_loss(s, t, batch()), one_stage.loss(s, t, batch()))
    nothing = method.loss(s, t, batch())
    nothing.backward()
    assert nothing.item() == 0
    assert s.logits.grad is not None
    assert not s.logits.grad.any()


def test_gradient() -> None:
    s, t = (features(3, (2, 2), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("fitnets", s, t), s, t)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_order_of_the_batch_does_not_matter(order: list[int]) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("fitnets", s, t)
    loss = method.loss(s, t, batch())
    moved = method.loss(permuted(s, order), permuted(t, order), batch())
    assert moved.item() == pytest.approx(loss.item(), rel=1e-9)
