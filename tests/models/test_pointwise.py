"""Strided 1x1 convolutions of few channels: replaced everywhere, right on every processor."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import TRAINING, alone, taught, train
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from benchmarks import convolutions
from benchmarks.convolutions import Case, errors
from benchmarks.shapes import Shape, square
from kdbench.cost import counting
from kdbench.grid.run import Term
from kdbench.models import zoo
from kdbench.models.pointwise import REGISTER, StridedPointwise, replace_strided_pointwise
from kdbench.registry import checks
from kdbench.runs import environment

PLUGIN = '''
"""A method whose adapter is a strided 1x1 convolution of few channels (2020)."""
from torch import nn
from kdbench.method import Method


class Thin(Method):
    def __init__(self, setup):
        super().__init__(setup)
        self.adapter = nn.Conv2d(setup.student.stages[0].shape[1], 6, 1, stride=2)
        assert type(self.adapter) is nn.Conv2d

    def loss(self, s, t, batch):
        assert type(self.adapter).__name__ == "StridedPointwise"
        return self.adapter(s.stages[0]).square().mean() * 1e-3
'''


def plain(**changes: Any) -> nn.Conv2d:
    """Return an affected layer of PyTorch."""
    return nn.Conv2d(
        **({"in_channels": 3, "out_channels": 6, "kernel_size": 1, "stride": 2} | changes)
    )


def replaced(layer: nn.Conv2d) -> bool:
    """Check whether kdbench replaces a layer."""
    return isinstance(replace_strided_pointwise(nn.Sequential(layer))[0], StridedPointwise)


# --- which layers -------------------------------------------------------------------------------


def test_only_affected_layers_are_replaced() -> None:
    assert replaced(plain())
    assert replaced(plain(in_channels=REGISTER - 1))
    assert replaced(plain(in_channels=32, out_channels=32, groups=32))
    assert replaced(plain(stride=(1, 2)))
    assert replaced(plain(padding="valid", stride=3, bias=False))
    assert not replaced(plain(in_channels=REGISTER))
    assert not replaced(plain(stride=1))
    assert not replaced(plain(kernel_size=3))
    assert not replaced(plain(padding=1))


class Own(nn.Conv2d):
    """A user's layer with another ``forward``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Other(nn.Conv2d):
    """A layer that changes the computation."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight, bias) + 1


@pytest.mark.parametrize("wrap", [Own, weight_norm, spectral_norm])
def test_subclasses_are_replaced_and_keep_their_methods(wrap: Any) -> None:
    made = Own(3, 6, 1, stride=2) if wrap is Own else wrap(plain()).eval()
    x = torch.randn(2, 3, 8, 8)
    expected = made(x)
    before = made.state_dict()
    assert replaced(made)
    for layer in (made, copy.deepcopy(made)):
        torch.testing.assert_close(layer(x), expected)
        assert layer.state_dict().keys() == before.keys()
        assert isinstance(layer, Own if wrap is Own else StridedPointwise)
    assert type(made).__name__ in ("Own", "ParametrizedConv2d")


def test_layer_with_custom_computation_is_not_replaced() -> None:
    assert not replaced(Other(3, 6, 1, stride=2))


def test_replaced_layer_can_be_scripted_traced_copied_and_pickled() -> None:
    layer = replace_strided_pointwise(nn.Sequential(plain()))
    x = torch.randn(2, 3, 8, 8)
    replicas = [
        torch.fx.symbolic_trace(layer),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
    ]
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        replicas += [torch.jit.script(layer), torch.jit.trace(layer, x)]
    for replica in replicas:
        assert torch.equal(replica(x), layer(x))


def test_replaced_layer_keeps_parameters_and_computation() -> None:
    for c, groups, stride, bias in product(
        (1, 2, 4, 15), (1, 2), ((2, 2), (1, 2), (3, 1)), (True, False)
    ):
        layer = plain(
            in_channels=c * groups, groups=groups, stride=stride, bias=bias, dtype=torch.float64
        )
        before = {name: p.clone() for name, p in layer.state_dict().items()}
        x = torch.randn(2, c * groups, 7, 8, dtype=torch.float64)
        expected = F.conv2d(x, layer.weight, layer.bias, stride, 0, 1, groups)
        assert replaced(layer)
        torch.testing.assert_close(layer(x), expected, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(layer(x[0]), expected[0], rtol=1e-14, atol=1e-14)
        assert layer.state_dict().keys() == before.keys()
        assert all(torch.equal(layer.state_dict()[name], p) for name, p in before.items())


@pytest.mark.parametrize("name", ["r8w3", "r8w15", "r14w7", "wrn_10_1", *zoo.names()])
def test_no_network_has_an_affected_layer(name: str) -> None:
    with torch.device("meta"):
        network = zoo.create(name, num_classes=10)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert any(isinstance(m, StridedPointwise) for m in layers) == (
        name in ("r8w3", "r8w15", "r14w7")
    )
    assert not any(replaced(m) for m in layers if type(m) is nn.Conv2d)


def test_layers_of_a_method_are_replaced(tmp_path: Path) -> None:
    """The loss asserts it in training, ``kdbench check`` and the counting of ``kdbench plan``."""
    path = tmp_path / "thin.py"
    path.write_text(PLUGIN.lstrip())
    teacher = alone(student="r8w4", training=TRAINING.model_copy(update={"epochs": 1}))
    run = taught(teacher, str(path), training=TRAINING.model_copy(update={"epochs": 1}))
    train([teacher], tmp_path / "runs")
    record = train([run], tmp_path / "runs")[run.id]
    assert (record.status, record.reason) == ("done", "")
    assert all(result.ok for result in checks.run(str(path)))
    shape = counting.DataShape(channels=1, size=8, classes=10, train=70, test=30)
    cost = counting.term_cost("r8w3", "r8w4", shape, 16, Term("thin", 1.0, {}, path=str(path)))
    assert not cost.incompatible and cost.macs > 0


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_agree_with_float64(precision: str, channels_last: bool) -> None:
    sizes = [(c, size) for c, size in product(range(1, 17), (8, 16, 32))]
    sizes += [(c, 64) for c in (1, 3, 7, 8, 12, 15, 16)] + [(3, 224), (8, 224), (15, 224)]
    for c, size in sizes:
        shape = Shape("1x1", c, 6, square(1), square(size), square(2), batch=4)
        case = Case(shape, precision, channels_last, 1, safe=True)
        by_part = errors(case)
        assert max(by_part.values()) < case.bound, (c, size, by_part)


FAILED = [
    Shape("1x1", c, c_out, square(1), square(size), square(2))
    for c, c_out, size in ((1, 3, 8), (2, 16, 32), (3, 3, 8), (4, 16, 8), (7, 3, 32), (8, 16, 64))
]
"""Shapes with which PyTorch's layer crashes or is wrong on some processors."""


@pytest.mark.parametrize("limit", ["none", "avx2", "sse41"])
def test_formerly_wrong_shapes_are_right_with_other_instructions(limit: str) -> None:
    """Emulate other processors, with one thread and two, under glibc's malloc check."""
    todo = [case for case in convolutions.cases(FAILED, (1, 2)) if case.safe]
    todo = [case for case in todo if case.channels_last and case.precision == "fp32"]
    assert len(todo) == 2 * len(FAILED)
    outcomes = convolutions.run(limit, todo)
    assert [(convolutions.describe(case), outcome) for case, outcome in outcomes if outcome] == []


BITS = """
import json, sys, torch
from benchmarks.convolutions import gradients
from kdbench.models.pointwise import replace_strided_pointwise

torch.set_num_threads(int(sys.argv[1]))
different = []
for c in range(1, 16):
    for size in (8, 16, 32):
        for last in (True, False):
            torch.manual_seed(c * size)
            layer = torch.nn.Sequential(torch.nn.Conv2d(c, 6, 1, stride=2, bias=False))
            order = torch.channels_last if last else torch.contiguous_format
            layer.to(memory_format=order)
            x = torch.randn(16, c, size, size).to(memory_format=order)
            dy = torch.randn(16, 6, size // 2, size // 2).to(memory_format=order)
            plain = gradients(layer, x, dy)
            safe = gradients(replace_strided_pointwise(layer), x, dy)
            if not all(map(torch.equal, plain, safe)):
                different.append((c, size, last))
print(json.dumps(different))
"""


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or environment.onednn_limit() is not None,
    reason="PyTorch's own layer is only right with AVX-512",
)
@pytest.mark.parametrize("threads", [1, 2])
def test_results_with_avx512_are_identical_to_pytorch(threads: int) -> None:
    """Results of runs at 8 to 32 pixels therefore do not change.

    The comparison runs in a separate process, because PyTorch's layer may crash.
    """
    command = [sys.executable, "-c", BITS, str(threads)]
    root = Path(__file__).parents[2]
    passive = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=root, env=passive, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


# --- the survey itself --------------------------------------------------------------------------


def wrong(case: Case) -> dict[str, float]:
    """Return an error just above the bound."""
    return {"output": 0.0, "gradient of the weight": 1.1 * case.bound}


def crashes(case: Case) -> dict[str, float]:
    """Die without a message."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def hangs(case: Case) -> dict[str, float]:
    """Hang like a deadlock."""
    time.sleep(60)
    return {}


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        (wrong, "wrong gradient of the weight: 1e-05"),
        (crashes, "crash: SIGKILL"),
        (hangs, "crash: SIGALRM"),
        (lambda case: {"output": 0.0}, ""),
    ],
)
def test_survey_reports_failures(how: Any, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "errors", how)
    if how is hangs:
        monkeypatch.setattr(convolutions, "SECONDS", 1)
    case = Case(FAILED[0], "fp32", True, 1, safe=True)
    assert convolutions.outcome(case) == outcome


def test_survey_compares_output_and_every_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose output or one of whose gradients is a little wrong is noticed."""
    case = Case(Shape("1x1", 3, 6, square(1), square(8), bias=True), "fp32", True, 1, safe=False)
    assert max(errors(case).values()) < case.bound
    original = convolutions.gradients
    for part in range(4):

        def spoiled(layer: nn.Module, x: Tensor, dy: Tensor, part: int = part) -> list[Tensor]:
            results = original(layer, x, dy)
            if results[0].dtype == torch.float32:
                results[part][(0,) * results[part].dim()] += 1e-2
            return results

        monkeypatch.setattr(convolutions, "gradients", spoiled)
        assert max(errors(case).values()) > case.bound
