"""Comparison of a network with a file of ``tests/golden/models``; see the README there.

The weights come from a counter-based hash, so that a file holds results only.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from kdbench.method import Features
from kdbench.models import zoo

Array = NDArray[np.float64]

TOLERANCE = 1e-10
IMAGES = 1_000_003  # the position that represents the images


def uniform(position: int, size: int, seed: int) -> Array:
    """Return ``size`` numbers in [0, 1), hashes of (position, index, seed)."""
    word = 2**32 - 1
    start = position * 2246822519 + seed * 3266489917 + 374761393
    x = np.arange(size, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(start & word)
    x &= np.uint64(word)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x ^= x >> np.uint64(shift)
        x = (x * np.uint64(factor)) & np.uint64(word)
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2.0**32


def fill(network: nn.Module, seed: int) -> list[str]:
    """Fill a float64 network by the README's formula; return its floating-point keys."""
    keys: list[str] = []
    for key, value in network.state_dict().items():
        if not value.is_floating_point():
            value.zero_()
            continue
        u = torch.from_numpy(uniform(len(keys), value.numel(), seed)).view(value.shape)
        keys.append(key)
        if value.dim() >= 2:
            value.copy_((2 * u - 1) * math.sqrt(3 * 1.5 / value[0].numel()))
        elif key.endswith("running_var"):
            value.copy_(0.5 + u)
        elif key.endswith(("running_mean", "bias")):
            value.copy_(0.2 * (2 * u - 1))
        else:
            value.copy_(0.75 + 0.5 * u)
    return keys


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    """Return images, [4, 3, 32, 32], and labels, [4]."""
    noise = torch.from_numpy(uniform(IMAGES, 4 * 3 * 32 * 32, seed)).view(4, 3, 32, 32)
    b = torch.arange(4)
    shift = ((5 * b[:, None] + 3 * torch.arange(3)) % 7 - 3) / 2  # [4, 3]
    return 4 * noise - 2 + shift[:, :, None, None].double(), (17 * b + 3) % 100


def stats(tensors: Sequence[Tensor]) -> Array:
    """Return mean, population standard deviation and L2 norm of each tensor."""
    rows = [(t.mean(), t.std(correction=0), torch.linalg.vector_norm(t)) for t in tensors]
    return np.array([[float(value) for value in row] for row in rows])


def entries(tensors: Sequence[Tensor]) -> Array:
    """Return sixteen entries of each tensor, evenly spread over its flat index."""
    rows = [t.flatten()[[j * (t.numel() - 1) // 15 for j in range(16)]] for t in tensors]
    return torch.stack(rows).numpy()


def check_case(path: Path) -> int:
    """Compare with every array of a file named after its model; return their number.

    Raises:
        AssertionError: names the array that differs.
    """
    worst = differences(path)
    for name, value in worst.items():
        assert value <= TOLERANCE, (
            f"{path.stem}: {name}: differs by {value:.1e} of its largest entry"
        )
    return len(worst)


def differences(path: Path, device: torch.device | str = "cpu") -> dict[str, float]:
    """Return the largest difference from every array of a file, relative to its largest entry.

    Raises:
        AssertionError: names an array that cannot be compared.
    """
    with np.load(path) as file:
        golden = dict(file)
    seed = int(golden.pop("seed"))
    network = zoo.create(path.stem, num_classes=golden["logits"].shape[1]).double()
    keys = fill(network, seed)
    network.to(device)
    images, labels = (x.to(device) for x in inputs(seed))
    ours = {"n_float_tensors": np.array(float(len(keys)))}
    ours |= _in_eval(network, images) | _in_training(network, keys, images, labels)
    worst = {}
    for name, expected in golden.items():
        assert name in ours, f"{path.stem}: {name} is in the file but not computed here"
        worst[name] = _difference(f"{path.stem}: {name}", ours[name], expected)
    missing = set(ours) - set(golden)
    assert not missing, f"{path.stem}: the file lacks {sorted(missing)}"
    return worst


def _in_eval(network: nn.Module, images: Tensor) -> dict[str, Array]:
    with torch.no_grad():
        features: Features = network.eval()(images).map(Tensor.cpu)
    maps = [features.stem, *features.stages, features.embedding]
    shapes = [[*m.shape[1:], 0, 0][:3] for m in maps]
    return {
        "logits": features.logits.numpy(),
        "feat_shapes": np.array(shapes, dtype=np.float64),
        "feat_stats": stats(maps),
        "feat_entries": entries(maps),
        "preact_stats": stats(features.preacts),
        "preact_entries": entries(features.preacts),
    }


def _in_training(
    network: nn.Module, keys: list[str], images: Tensor, labels: Tensor
) -> dict[str, Array]:
    logits = network.train()(images).logits
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    gradients = {k: p.grad.cpu() for k, p in network.named_parameters() if p.grad is not None}
    learnt = [k for k in keys if k in gradients]
    running = [k for k in keys if "running_" in k]
    state = network.state_dict()
    position = {key: i for i, key in enumerate(keys)}
    return {
        "train_logits": logits.detach().cpu().numpy(),
        "train_loss": loss.detach().cpu().numpy(),
        "grad_pos": np.array([float(position[k]) for k in learnt]),
        "grad_l2": np.array([float(torch.linalg.vector_norm(gradients[k])) for k in learnt]),
        "grad_sum": np.array([float(gradients[k].sum()) for k in learnt]),
        "running_pos": np.array([float(position[k]) for k in running]),
        "running_l2": np.array([float(torch.linalg.vector_norm(state[k])) for k in running]),
    }


def _difference(name: str, ours: Array, golden: NDArray[np.generic]) -> float:
    """Return the largest difference over the largest entry; per row of feature summaries.

    For gradients this is the absolute floor that entries need which are zero in theory.
    """
    expected = golden.astype(np.float64)
    assert ours.shape == expected.shape, f"{name}: {ours.shape}, expected {expected.shape}"
    by_row = name.endswith(("_stats", "_entries", "_shapes"))
    width = expected.shape[-1] if by_row else max(1, expected.size)
    difference = np.abs(ours - expected).reshape(-1, width).max(1)
    scale = np.abs(expected).reshape(-1, width).max(1)
    return float(np.max(difference / np.maximum(scale, np.finfo(np.float64).tiny)))
