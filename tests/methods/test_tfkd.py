import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features, gradient_is_right, setup

from kdbench.grid.expand import expand
from kdbench.grid.parsing import parse
from kdbench.method import Incompatible
from kdbench.registry import lookup
from kdbench.tensors import kl


def soften(p: list[float], temperature: float) -> list[float]:
    power = [x ** (1 / temperature) for x in p]
    return [x / sum(power) for x in power]


def test_value() -> None:
    s = features(3, dtype=torch.float64)
    expected = 0.0
    for z, y in zip(s.logits.tolist(), batch(3).labels.tolist(), strict=True):
        p = [math.exp(x) / sum(map(math.exp, z)) for x in z]
        q = [0.9 if k == y else 0.1 / 4 for k in range(5)]
        p_soft, q_soft = soften(p, 8), soften(q, 8)
        divergence = sum(a * math.log(a / b) for a, b in zip(q_soft, p_soft, strict=True))
        expected += 0.3 * (64 * divergence + math.log(p[y])) / 3
    method = build("tfkd", s, s, mix=0.3, tau=8.0, correct=0.9)
    assert method.loss(s, s, batch(3)).item() == pytest.approx(expected, rel=1e-9)
    assert not method.has_teacher


def test_form_self_with_cross_entropy_is_a_mixture() -> None:
    s, t = (features(4, seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("tfkd", s, t, form="self", mix=0.95, tau=6.0)
    assert method.has_teacher
    ce = F.cross_entropy(s.logits, batch().labels).item()
    expected = 0.05 * ce + 0.95 * kl(s.logits, t.logits, 6.0).item()
    assert ce + method.loss(s, t, batch()).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["reg", "self"])
def test_gradient(form: str) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("tfkd", s, t, form=form), s, t)


def test_incompatible_setups_are_refused() -> None:
    s = features()
    cls: Any = lookup.load("tfkd")
    with pytest.raises(Incompatible, match="needs a teacher"):
        cls(replace(setup(s, s), teacher_head=None), form="self")
    with pytest.raises(ValueError, match="'reg' or 'self'"):
        build("tfkd", s, s, form="regular")
    with pytest.raises(ValueError, match=r"correct is 1\.5"):
        build("tfkd", s, s, correct=1.5)


def test_only_form_self_has_teacher_in_a_grid() -> None:
    tree = {"name": "x", "dataset": "digits", "protocol": "demo", "seeds": [0]}
    forms = [{"tfkd": {"form": "self", "mix": 0.95, "tau": 6, "label": "self"}}, "tfkd"]
    pair = {"pairs": ["r8w3 -> r8w3"], "methods": forms}
    cells = {c.method: c.runs[0] for c in expand(parse(tree | pair, source="x.yaml")).cells}
    assert cells["self"].teacher is not None
    assert cells["self"].teacher.run == cells["teacher"].id
    assert cells["self"].alpha == 0
    assert cells["tfkd"].teacher is None
