"""No method or model uses an operation that has no deterministic implementation on a GPU."""

import re
from typing import Any

import pytest
import torch
from method_variants import ALL, label
from step_operations import Operation, learner, steps

from kdbench.method import Incompatible

REFUSED: dict[str, set[str]] = {
    "torch.nn.AvgPool3d": {"avg_pool3d_backward"},
    "torch.nn.AdaptiveAvgPool2d": {"_adaptive_avg_pool2d_backward"},
    "torch.nn.AdaptiveAvgPool3d": {"_adaptive_avg_pool3d_backward"},
    "torch.nn.AdaptiveMaxPool2d": {"adaptive_max_pool2d_backward"},
    "torch.nn.FractionalMaxPool2d": {"fractional_max_pool2d_backward"},
    "torch.nn.FractionalMaxPool3d": {"fractional_max_pool3d_backward"},
    "torch.nn.MaxPool3d": {"max_pool3d_with_indices_backward"},
    "torch.nn.MaxUnpool1d": {"max_unpool2d"},
    "torch.nn.MaxUnpool2d": {"max_unpool2d"},
    "torch.nn.MaxUnpool3d": {"max_unpool3d"},
    "torch.nn.functional.interpolate": {
        "upsample_linear1d_backward",
        "upsample_bilinear2d_backward",
        "_upsample_bilinear2d_aa_backward",
        "upsample_bicubic2d_backward",
        "_upsample_bicubic2d_aa_backward",
        "upsample_trilinear3d_backward",
    },
    "torch.nn.ReflectionPad1d": {"reflection_pad1d_backward"},
    "torch.nn.ReflectionPad2d": {"reflection_pad2d_backward"},
    "torch.nn.ReflectionPad3d": {"reflection_pad3d_backward"},
    "torch.nn.ReplicationPad1d": {"replication_pad1d_backward"},
    "torch.nn.ReplicationPad2d": {"replication_pad2d_backward"},
    "torch.nn.ReplicationPad3d": {"replication_pad3d_backward"},
    "torch.nn.NLLLoss": {"nll_loss2d_forward"},
    "torch.nn.CTCLoss": {"_ctc_loss_backward", "_cudnn_ctc_loss"},
    "torch.nn.EmbeddingBag": {"_embedding_bag_backward", "_embedding_bag_dense_backward"},
    "torch.Tensor.put_": {"put_"},
    "torch.histc": {"histc"},
    "torch.bincount": {"bincount"},
    "torch.median": {"median", "nanmedian"},
    "torch.kthvalue": {"kthvalue"},
    "torch.nn.functional.grid_sample": {"grid_sampler_2d_backward", "grid_sampler_3d_backward"},
    "torch.cumsum": {"cumsum"},
    "torch.Tensor.scatter_reduce": {"scatter_reduce", "scatter_reduce_"},
    "torch.Tensor.resize_": set(),  # of quantised tensors only
}
"""What torch refuses, or refused in releases since 2.4 -> names of operations on a GPU."""

FLOATS_ONLY = {"cumsum"}
"""Operations that are deterministic for integers."""

PAIRS = (("r14w8", "r8w8"), ("v8w8", "r8w8"))
"""In the second pair the maps differ in size."""


def refused(operations: list[Operation]) -> set[str]:
    """Return the names of operations that torch refuses if they have to be deterministic."""
    names = set()
    for operation in operations:
        name = operation.name.split(".")[1]
        exempt = name in FLOATS_ONLY and not any(x.is_floating_point for x in operation.dtypes)
        if not exempt and any(name in known for known in REFUSED.values()):
            names.add(name)
    return names


def test_torch_refuses_nothing_else() -> None:
    text = torch.use_deterministic_algorithms.__doc__ or ""
    text = text.partition("operations will throw a")[2].partition("In addition")[0]
    documented = set(re.findall(r"\* :(?:class|func):`([\w.]+)`", text))
    assert len(documented) > 15
    assert documented <= set(REFUSED)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize(("name", "hyper"), [pytest.param(*case, id=label(*case)) for case in ALL])
def test_method(name: str, hyper: dict[str, Any], pair: tuple[str, str]) -> None:
    try:
        one = learner(name, hyper, *pair)
    except Incompatible as reason:
        pytest.skip(str(reason))
    for _ in dict.fromkeys((str(one.phase), "train")):
        [operations] = steps(one, pair[0], 1)
        assert refused(operations) == set()
        one.next_epoch()


@pytest.mark.parametrize(
    "arch", ["ResNet18", "wrn_16_1", "v5w8", "MobileNetV2", "ShuffleV1", "ShuffleV2"]
)
def test_model(arch: str) -> None:
    [operations] = steps(learner("kd", {}, "r14w8", arch), "r14w8", 1)
    assert refused(operations) == set()


def test_a_refused_operation_is_found() -> None:
    one = learner("at", {}, *PAIRS[0])
    [term] = one.terms
    given = term.loss

    def loss(s: Any, t: Any, batch: Any) -> torch.Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(s.stem, 3)
        return given(s, t, batch) + pooled.sum() + s.logits.cumsum(0).sum()

    vars(term)["loss"] = loss
    [operations] = steps(one, PAIRS[0][0], 1)
    assert refused(operations) == {"_adaptive_avg_pool2d_backward", "cumsum"}
