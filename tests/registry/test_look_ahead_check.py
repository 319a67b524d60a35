"""Tests of the check of methods that look ahead."""

from pathlib import Path

import pytest

from kdbench.registry import checks

METHOD = '''
"""Mine (Somebody, 2024)."""
import torch
from torch import nn
from kdbench.method import Method


class Mine(Method):
    def __init__(self, setup):
        super().__init__(setup)
        self.net = nn.Linear(1, 1)
        {init}

    def meta(self):
        return {meta}

    def loss(self, s, t, batch):
        return self.net.weight.square().sum() * s.logits.square().mean()

    def task(self, s):
        return s.logits.exp().mean()

    def adapt(self, inner):
        matching = lambda s: self.loss(s, inner.t, inner.batch) * (1 + self.net.bias.sum())
        {adapt}
'''
GOOD = "inner.learn(inner.loss(inner.step(inner.start(), matching), self.task))"
BACKWARD = "inner.loss(inner.start(), matching).backward()"
FAULTS = [
    ("pass", "[self.net]", "pass", "no gradient reaches net.bias, net.weight: let the loss"),
    ("self.more = nn.Linear(1, 1)", "[self.net, self.more]", GOOD, "reaches more.bias, more.wei"),
    ("pass", "[nn.Linear(1, 1)]", GOOD, "meta returned what is not one of the method's own"),
    ("self.relu = nn.ReLU()", "[self.relu]", GOOD, "meta returned modules without anything to"),
    ("pass", "[]", GOOD, "Mine.adapt calls learn, but meta returns no modules"),
    ("pass", "[self.net]", "inner.peers[0].head.bias.data.zero_()", "adapt changes the student"),
    ("pass", "[self.net]", BACKWARD, "adapt leaves gradients: use inner.step and inner.learn"),
    (
        "pass",
        "[self.net]",
        "inner.learn(matching(inner.t) / 0)",
        "the loss given to inner.learn is",
    ),
]


def look_ahead(folder: Path, init: str, meta: str, adapt: str) -> checks.CheckResult:
    """Return the result of the check."""
    path = folder / "mine.py"
    path.write_text(METHOD.format(init=init, meta=meta, adapt=adapt).lstrip())
    [result] = [x for x in checks.run(str(path)) if x.name == "look ahead"]
    return result


@pytest.mark.parametrize(("init", "meta", "adapt", "message"), FAULTS, ids=[x[3] for x in FAULTS])
def test_fault_is_found(tmp_path: Path, init: str, meta: str, adapt: str, message: str) -> None:
    result = look_ahead(tmp_path, init, meta, adapt)
    assert not result.ok and message in result.message


def test_good_method_passes(tmp_path: Path) -> None:
    result = look_ahead(tmp_path, "pass", "[self.net]", GOOD)
    assert result.ok, result


def test_meta_parameters_need_no_gradient_of_the_loss(tmp_path: Path) -> None:
    """``net.bias`` is in the look ahead only."""
    look_ahead(tmp_path, "pass", "[self.net]", GOOD)
    results = {x.name: x for x in checks.run(str(tmp_path / "mine.py"))}
    assert results["gradient reaches what learns"].ok, results


def test_copies_of_networks_may_be_kept_without_meta(tmp_path: Path) -> None:
    keep = "self.kept.copy_(inner.peers[0].head.weight.detach().sum())"
    init = "self.register_buffer('kept', torch.zeros(()))"
    result = look_ahead(tmp_path, init, "[]", keep)
    assert result.ok, result
