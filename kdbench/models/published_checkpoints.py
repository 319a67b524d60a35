"""Reader of the published checkpoints of RepDistiller, SemCKD, SimKD and mdistiller.

These are dicts written by ``torch.save``, with the weights under ``model``. Only tensors and plain
values are unpickled; a file that contains code is refused.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.errors import UserError
from kdbench.models import zoo

COUNTER = "num_batches_tracked"  # absent in files of PyTorch 0.4.0


class CheckpointError(UserError):
    """The file is not a checkpoint, or not of this network; the message is one line."""


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


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read the weights in a file to the CPU, and strip ``module.`` from their keys.

    Raises:
        CheckpointError: the file is missing, damaged, contains code, or is not a dict of tensors.
    """
    content = _load(Path(path))
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: expected a dict of weights, not {type(state).__name__}")
    if not state:
        raise CheckpointError(f"{path}: its dict of weights is empty")
    weights = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found = type(value).__name__
            raise CheckpointError(f"{path}: {key!r} should be a tensor, not {found}")
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: {key!r} holds values that are not finite")
        weights[key.removeprefix("module.")] = value
    return weights


def _load(path: Path) -> object:
    """Load a file of ``torch.save`` after verifying its checksums, which torch does not do."""
    try:
        if zipfile.is_zipfile(path):  # the format of 2019 has no checksums
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                raise CheckpointError(f"{path}: damaged: wrong checksum of {broken}")
        with warnings.catch_warnings(action="ignore"):  # torch warns, then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(error)}") from error
    except Exception as error:  # a damaged file can fail in any way
        reason = re.split(r"\n|\. ", str(error), maxsplit=1)[0]
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint: {type(error).__name__} {reason}"
        ) from error


def fit(network: nn.Module, state: Mapping[str, Tensor], *, name: str) -> None:
    """Load weights with exactly the network's keys and shapes; only counters may be absent.

    Args:
        network: network that receives the weights.
        state: weights from ``read_checkpoint``.
        name: name of the network, for the message.

    Raises:
        CheckpointError: weights differ; the message gives the first difference and, if known, the
            network that the weights belong to.
    """
    expected = network.state_dict()
    difference = _difference(expected, state)
    if difference:
        owner = _owner(state)
        hint = f"; these are weights of {owner}" if owner else ""
        raise CheckpointError(f"{name}: {difference}{hint}")
    absent = {key: torch.zeros_like(value) for key, value in expected.items() if key not in state}
    network.load_state_dict({**absent, **state})


def _difference(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Describe the first key that is missing, has another shape or is unexpected; "" if none."""
    for key, value in expected.items():
        if key not in state:
            if key.endswith(COUNTER):
                continue
            return f"the checkpoint has no {key} {list(value.shape)}"
        if state[key].shape != value.shape:
            found, wanted = list(state[key].shape), list(value.shape)
            return f"{key} is {found} in the checkpoint, {wanted} in the network"
    extra = next((key for key in state if key not in expected), None)
    return f"the checkpoint's {extra} {list(state[extra].shape)} is unexpected" if extra else ""


def _owner(state: Mapping[str, Tensor]) -> str | None:
    """Find the network that the weights belong to: one of the zoo, or torchvision's ResNet."""
    stems = [value for value in state.values() if value.dim() == 4]
    heads = [value for value in state.values() if value.dim() == 2]
    if not stems or len(heads) != 1:
        return None
    classes, in_channels = len(heads[0]), stems[0].shape[1]
    for name in zoo.names():
        with torch.device("meta"):
            candidate = zoo.create(name, num_classes=classes, in_channels=in_channels)
        if not _difference(candidate.state_dict(), state):
            return f"{name} with {classes} classes and {in_channels} input channels"
    if "fc.weight" in state and "layer4.0.conv1.weight" in state:
        return (
            "an ImageNet ResNet as in torchvision (fc.weight), not of a CIFAR one (linear.weight)"
        )
    return None


def _refusal(error: pickle.UnpicklingError) -> str:
    """Shorten torch's long message, which advises to run the file's code, to one line."""
    match = re.search(r"GLOBAL (\S+)", str(error))
    if match:
        return f"refused: it holds Python objects ({match[1]}), not only tensors"
    return "damaged or not a checkpoint: no tensors could be unpickled"
