"""Every method has the same loss and gradients in the forms for CPUs and GPUs, in float64."""

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from method_variants import ALL, label
from random_features import batch, build, features, features_for
from step_operations import Recorder
from torch import Tensor

from kdbench.device_forms import gpu_forms
from kdbench.method import Incompatible

WITHIN = 1e-12


@pytest.mark.parametrize("sizes", [((8, 4, 2), (8, 4, 2)), ((9, 4, 1), (7, 6, 3))], ids=str)
@pytest.mark.parametrize(("name", "hyper"), [pytest.param(*case, id=label(*case)) for case in ALL])
def test_forms_agree(name: str, hyper: dict[str, Any], sizes: Any) -> None:
    """Of the second sizes, most do not divide."""
    s, t = (
        features_for(
            name, hyper, 8, (4, 8, 8), sizes[i], seed=i, width=8, dtype=torch.float64, views=1
        )
        for i in (0, 1)
    )
    try:
        method = build(name, s, t, **hyper)
    except Incompatible as reason:
        pytest.skip(str(reason))
    results = []
    for gpu in (False, True):
        own = copy.deepcopy(method)
        leaves = s.map(lambda x: x.detach().clone().requires_grad_())
        with gpu_forms() if gpu else torch.enable_grad():
            losses = [own.loss(leaves, t, batch(8, seed=i)) for i in range(2)]
        reached: list[Tensor] = [x for _, x in leaves.named() if x.requires_grad]
        reached += [x for x in own.parameters() if x.requires_grad]
        total = torch.stack(losses).sum()
        grads: Any = [None] * len(reached)
        if total.requires_grad:
            grads = torch.autograd.grad(total, reached, allow_unused=True)
        results.append([*losses, *grads, *own.buffers()])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.double() - b.double()).abs().max() <= WITHIN * max(1, b.double().abs().max())


@pytest.mark.parametrize(
    ("name", "share"), [("hkd", 0.4), ("rkd", 0.8), ("irg", 0.95), ("pkt", 0.95)]
)
def test_the_form_for_gpus_issues_fewer_operations(name: str, share: float) -> None:
    s, t = (features(8, seed=i, grad=not i) for i in (0, 1))
    method, numbers = build(name, s, t), []
    for context in (nullcontext, gpu_forms):
        with context(), Recorder() as recorder:
            method.loss(s, t, batch(8)).backward()
        numbers.append(len(recorder.operations))
    assert numbers[1] < share * numbers[0]


def test_crd_scores_its_bank_at_once_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    s, t = features(seed=0), features(seed=1)
    method = build("crd", s, t, k=10)
    monkeypatch.setattr(f"{type(method).__module__}.CHUNK", 4)  # of 40 entries
    method.loss(s, t, batch())
    products = []
    for context in (nullcontext, gpu_forms):
        with context(), Recorder() as recorder:
            method.loss(s, t, batch(seed=1))
        products.append(sum(o.name.startswith("aten.addmm") for o in recorder.operations))
    assert products[0] - products[1] == 2 * 9  # both networks' anchors, a chunk rather than ten
