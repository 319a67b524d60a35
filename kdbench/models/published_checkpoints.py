"""Weights in published checkpoints, such as those of RepDistiller, SemCKD, SimKD and mdistiller.

The weights may be in any dict of the file, such as ``model``, ``state_dict`` or ``net``, and their
names may have prefixes, such as ``module.``, ``module.student.`` or ``_orig_mod.``.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.models import zoo
from kdbench.models.checkpoint_files import ONLY_WEIGHTS, CheckpointError, read_checkpoint, shown

__all__ = ["CheckpointError", "arch_of", "fit", "read_checkpoint"]

COUNTER = "num_batches_tracked"  # absent in files of PyTorch 0.4.0
WRAPPERS = ("model", "state_dict", "net", "model_state_dict", "module", "student")
"""Where weights usually are, for messages about weights that do not fit."""
COPIES = 20
"""Largest number of places in a file that are tried."""


def arch_of(path: Path | str) -> str | None:
    """Guess the network from the name of the folder (``wrn_40_2_vanilla``), else of the file.

    The result is the longest prefix of ``_``-separated parts that is the name of a network.
    """
    path = Path(path)
    for label in (path.parent.name, path.stem):
        parts = label.split("_")
        for n in range(len(parts), 0, -1):
            name = "_".join(parts[:n])
            if zoo.known(name):
                return name
    return None


def fit(network: nn.Module, state: Mapping[str, Tensor], *, name: str) -> None:
    """Load weights with exactly the network's keys and shapes; only counters may be absent.

    Weights of any floating-point type are converted to the network's.

    Args:
        network: network that receives the weights.
        state: tensors from ``read_checkpoint``. If the weights are there under a prefix, that is
            removed; other tensors without this prefix are ignored.
        name: name of the network, for the message.

    Raises:
        CheckpointError: weights differ, several sets of weights fit, or they are no usable numbers;
            the message gives the first difference and, if known, the network that the weights
            belong to.
    """
    expected = network.state_dict()
    weights = _converted(name, _chosen(name, expected, state), expected)
    absent = {key: torch.zeros_like(value) for key, value in expected.items() if key not in weights}
    network.load_state_dict({**absent, **weights})


def _chosen(
    name: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return the tensors of the only prefix under which the network's weights are."""
    anchor = next(key for key in expected if not key.endswith(COUNTER))
    prefixes = [
        key.removesuffix(anchor) for key in state if key == anchor or key.endswith(f".{anchor}")
    ]
    if len(prefixes) > COPIES:
        raise CheckpointError(f"{name}: the file has weights of many networks; {ONLY_WEIGHTS}")
    groups = {prefix: _under(state, prefix) for prefix in prefixes}
    fitting = {
        prefix: group for prefix, group in groups.items() if not _difference(expected, group)
    }
    if not fitting:
        likely = next(iter(groups.values())) if len(groups) == 1 else _likely(state)
        raise CheckpointError(f"{name}: {_misfit(expected, likely)}")
    first, *others = fitting.values()
    if any(not _equal(first, other) for other in others):
        places = ", ".join(shown(prefix.rstrip(".") or "the file itself") for prefix in fitting)
        raise CheckpointError(
            f"{name}: the file has several different weights of this network, in {places}; save "
            "one of them to a separate file by torch.save"
        )
    return first


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _likely(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return what are probably the weights, although they do not fit."""
    while True:
        outer = {key.partition(".")[0] for key in state if "." in key}
        several = len(outer) > 1 or any("." not in key for key in state)
        wrapper = next((name for name in WRAPPERS if name in outer), None)
        inner = wrapper if several else next(iter(outer), None)
        group = _under(state, f"{inner}.") if inner else {}
        if not group:
            return state
        state = group


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Check whether two sets of weights of the same shapes are the same numbers."""
    try:
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    except (RuntimeError, NotImplementedError):
        return False  # tensors without numbers


def _converted(
    name: str, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights in the network's types.

    Raises:
        CheckpointError: a tensor is not of usable, finite numbers.
    """
    converted = {}
    for key, value in weights.items():
        wanted = expected[key].dtype
        problem = _problem(value, wanted)
        if not problem:
            converted[key] = value.detach().to(wanted)
            if wanted.is_floating_point and not converted[key].isfinite().all():
                problem = "holds values that are not finite"
        if problem:
            raise CheckpointError(f"{name}: {key} {problem}")
    return converted


def _problem(value: Tensor, wanted: torch.dtype) -> str:
    """Describe why a tensor cannot be a weight; "" if it can."""
    if value.is_meta:
        return "has a shape but no numbers (a meta tensor); save the checkpoint with its weights"
    if value.layout != torch.strided:
        return f"is sparse ({value.layout}); save it as a dense tensor, by to_dense()"
    if value.is_quantized:
        return f"is quantized ({value.dtype}); save the weights before quantization"
    if value.is_complex() or value.is_floating_point() != wanted.is_floating_point:
        return f"holds numbers of {value.dtype}, not of {wanted}"
    return ""


def _misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Describe the first difference and whose weights these are."""
    owner = _owner(state)
    if owner:
        return f"{_difference(expected, state)}; these are weights of {owner}"
    ours, theirs = _classifier(expected), _classifier(state)
    if ours and theirs and ours[1] == theirs[1] and ours[0] != theirs[0]:
        return (
            f"{_difference(expected, state)}; the checkpoint was trained on {theirs[0]} classes, "
            f"the data set has {ours[0]}: give its own by --dataset"
        )
    return _difference(expected, state)


def _classifier(tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Return the classifier's shape, [K, D], which is the only matrix; None if there is none."""
    shapes = [shape for value in tensors.values() if len(shape := _shape(value)) == 2]
    return (shapes[0][0], shapes[0][1]) if len(shapes) == 1 else None


def _shape(value: Tensor) -> list[int]:
    return [-1] if value.is_nested else list(value.shape)


def _difference(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Describe the first key that is missing, has another shape or is unexpected; "" if none."""
    for key, value in expected.items():
        if key not in state:
            if key.endswith(COUNTER):
                continue
            return f"the checkpoint has no {key} {list(value.shape)}"
        if _shape(state[key]) != list(value.shape):
            found, wanted = _shape(state[key]), list(value.shape)
            return f"{key} is {found} in the checkpoint, {wanted} in the network"
    extra = next((key for key in state if key not in expected), None)
    if extra is None:
        return ""
    return f"the checkpoint's {shown(extra)} {_shape(state[extra])} is unexpected"


def _owner(state: Mapping[str, Tensor]) -> str | None:
    """Find the network that the weights belong to: one of the zoo, or torchvision's ResNet."""
    stem = next((shape for value in state.values() if len(shape := _shape(value)) == 4), None)
    head = _classifier(state)
    if stem is None or head is None or not 0 < head[0] <= 100_000 or not 0 < stem[1] <= 64:
        return None
    classes, in_channels = head[0], stem[1]
    for name in zoo.names():
        if not _difference(_on_meta(name, classes, in_channels), state):
            return f"{name} with {classes} classes and {in_channels} input channels"
    if "fc.weight" in state and "layer4.0.conv1.weight" in state:
        return (
            "an ImageNet ResNet as in torchvision (fc.weight), not of a CIFAR one (linear.weight)"
        )
    return None


@lru_cache(maxsize=400)
def _on_meta(name: str, classes: int, in_channels: int) -> Mapping[str, Tensor]:
    """Return the shapes of a network's weights."""
    with torch.device("meta"):
        network = zoo.create(name, num_classes=classes, in_channels=in_channels)
    weights: Mapping[str, Tensor] = network.state_dict()
    return weights
