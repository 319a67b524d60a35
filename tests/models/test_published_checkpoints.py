"""Weights in any wrapper, with any prefix, of any type, or refused with a way out."""

import argparse
import json
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdbench.models import checkpoint_files, zoo
from kdbench.models.network import Network
from kdbench.models.published_checkpoints import CheckpointError, fit, read_checkpoint

Weights = dict[str, Tensor]


def network(seed: int = 0, **settings: int) -> Network:
    torch.manual_seed(seed)
    return zoo.create("r8w4", **{"num_classes": 10, "in_channels": 1} | settings)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return network().state_dict()


def floats(weights: Weights, change: Callable[[Tensor], Tensor]) -> Weights:
    return {k: change(v) if v.is_floating_point() else v for k, v in weights.items()}


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {f"{prefix}{key}": value for key, value in weights.items()}


def imported(path: Path) -> Weights:
    made = network(1)
    fit(made, read_checkpoint(path), name=f"{path} as r8w4")
    return made.state_dict()


def refused(path: Path) -> str:
    """Return the reason that a file is refused, in one line that begins with its name."""
    with pytest.raises(CheckpointError) as error:
        imported(path)
    text = str(error.value)
    assert text.startswith(str(path)) and text.isprintable() and "weights_only" not in text
    return text.removeprefix(str(path))


ACCEPTED: dict[str, Callable[[Weights], object]] = {
    "bare": lambda w: w,
    "ordered": lambda w: {"model": OrderedDict(w)},
    "state_dict": lambda w: {"state_dict": prefixed(w, "module."), "epoch": 3},
    "net": lambda w: {"net": w, "acc": 71.2},
    "any name": lambda w: {"my_weights": {"inner": w}},
    "distiller": lambda w: {"model": prefixed(w, "module.student.")},
    "distiller with teacher": lambda w: {
        "model": prefixed(w, "module.student.")
        | prefixed(network(5, num_classes=7).state_dict(), "module.teacher.")
    },
    "compiled": lambda w: {"model": prefixed(w, "_orig_mod.module.")},
    "numpy scalars": lambda w: {"model": w, "acc": np.float64(7), "n": np.int64(3)},
    "arguments": lambda w: {"model": w, "opt": argparse.Namespace(lr=0.1, name="x")},
    "optimiser": lambda w: {
        "model": w,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{}]},
    },
    "double": lambda w: floats(w, Tensor.double),
    "parameters": lambda w: floats(w, nn.Parameter),
    "twice the same": lambda w: {"model": w, "ema": {k: v.clone() for k, v in w.items()}},
    "without counters": lambda w: {k: v for k, v in w.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_wrappers_and_prefixes_are_removed(tmp_path: Path, weights: Weights, name: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(ACCEPTED[name](weights), path)
    found = imported(path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)
    # What a file may hold is not trusted elsewhere in this process.
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_half_precision_is_converted(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "weights.pth"
    torch.save(floats(weights, Tensor.half), path)
    found = imported(path)
    assert torch.equal(found["conv1.weight"], weights["conv1.weight"].half().float())
    torch.save(floats(weights, lambda v: v.double() * 1e300), path)
    assert "conv1.weight holds values that are not finite" in refused(path)


def with_stem(change: Callable[[Tensor], Tensor]) -> Callable[[Weights], object]:
    return lambda w: {"model": {**w, "conv1.weight": change(w["conv1.weight"])}}


REFUSED: dict[str, tuple[Callable[[Weights], object], str]] = {
    "meta": (with_stem(lambda v: v.to("meta")), "has a shape but no numbers (a meta tensor)"),
    "sparse": (with_stem(Tensor.to_sparse), "conv1.weight is sparse (torch.sparse_coo)"),
    "complex": (with_stem(lambda v: v * 1j), "holds numbers of torch.complex64, not of"),
    "whole numbers": (with_stem(Tensor.int), "holds numbers of torch.int32, not of torch.float32"),
    "nan": (with_stem(lambda v: v / 0), "holds values that are not finite"),
    "other shape": (with_stem(lambda v: v[:, :0]), "conv1.weight is [4, 0, 3, 3]"),
    "nested": (
        with_stem(lambda v: torch.nested.nested_tensor([v, v[:1]])),
        "conv1.weight is [-1] in the checkpoint",
    ),
    "two networks": (
        lambda w: {"student": w, "teacher": network(7).state_dict()},
        "different weights of this network, in student, teacher; save one",
    ),
    "other classes": (
        lambda w: {"model": network(num_classes=100).state_dict()},
        "the checkpoint was trained on 100 classes, the data set has 10: give its own by --dataset",
    ),
    "control characters": (
        lambda w: w | {"a\x1b[31m\n": torch.zeros(2)},
        "the checkpoint's a\\x1b[31m\\n [2] is unexpected",
    ),
    "list": (lambda w: [w], "expected a dict of weights, not list; where it was made, save only"),
    "other key names": (
        lambda w: {"model": {f"stem_{key}": value for key, value in w.items()}},
        "the checkpoint has no conv1.weight [4, 1, 3, 3]",
    ),
    "same name twice": (
        lambda w: {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}},
        "two tensors are named a.b",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_unusable_weights_are_refused(tmp_path: Path, weights: Weights, name: str) -> None:
    path = tmp_path / "weights.pth"
    make, message = REFUSED[name]
    torch.save(make(weights), path)
    assert message in refused(path)


def test_quantized_weights_are_refused(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "weights.pth"
    stem = weights["conv1.weight"]
    with warnings.catch_warnings(action="ignore"):  # deprecated
        small = torch.quantize_per_tensor(stem, 0.1, 0, torch.qint8)
        torch.save({**weights, "conv1.weight": small}, path)
    assert "conv1.weight is quantized (torch.qint8)" in refused(path)


def test_whole_modules_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(network(), path)
    assert "where it was made, save only the weights: torch.save(" in refused(path)


def test_compressed_archive_is_not_unpacked(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": weights, "zeros": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert "its content is larger than the file" in refused(path)


# Safetensors


def safetensors(weights: Weights, **changes: Any) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    names = {dtype: name for name, dtype in checkpoint_files.DTYPES.items()}
    for key, value in weights.items():
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[key] = {"dtype": names[value.dtype], "shape": list(value.shape)}
        header[key] |= {"data_offsets": offsets} | changes
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_safetensors_are_read_without_their_package(
    tmp_path: Path, weights: Weights, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    for change in (Tensor.float, Tensor.bfloat16):
        path.write_bytes(safetensors(floats(weights, change)))
        found = imported(path)
        assert all(torch.equal(found[k], v) for k, v in floats(weights, change).items() if v.dim())
    path.write_bytes(safetensors(prefixed(weights, "module.")))
    assert torch.equal(imported(path)["fc.weight"], weights["fc.weight"])


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "F8_E4M3"}, {"shape": [10**12]}, {"shape": "x"}, {"shape": [-1]},
        {"data_offsets": [0, 10**12]}, {"data_offsets": [8, 0]}, {"data_offsets": None},
    ],
)  # fmt: skip
def test_damaged_safetensors_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors({"a": torch.ones(3)}, **changes))
    assert "damaged or not a checkpoint" in refused(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, struct.pack("<Q", 10**15) + b"{}", struct.pack("<Q", 2) + b"[]"]
)
def test_other_files_named_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert "damaged or not a checkpoint" in refused(path)
