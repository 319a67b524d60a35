"""Fuzzing of files of weights: whatever a file holds, its import works or is refused in a line."""

import io
import json
import pickle
import struct
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kdbench.models import zoo
from kdbench.models.published_checkpoints import fit, read_checkpoint

Change = tuple[float, int, bytes]
"""Where to change bytes, as a share of the file, how many to remove, and what to put there."""


@cache
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(zoo.create("r8w4", num_classes=10, in_channels=1).state_dict())


def check_import(path: Path) -> str:
    """Import a file, check that a network that accepts it is whole, and return the refusal."""
    network = zoo.create("r8w4", num_classes=10, in_channels=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    message = answer(lambda: fit(network, read_checkpoint(path), name=f"{path} as r8w4"))
    after = network.state_dict()
    if message:
        assert message.startswith(str(path)) and "\n" not in message
        assert all(torch.equal(before[key], after[key]) for key in before)
    else:
        assert all(value.isfinite().all() for value in after.values())
    return message


# Damaged files


@cache
def saved(form: str) -> bytes:
    """Return a valid file of weights."""
    if form == "safetensors":
        return safetensors()
    buffer = io.BytesIO()
    content = {"epoch": 3, "model": weights(), "name": "x"}
    torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
    return buffer.getvalue()


def safetensors() -> bytes:
    header, data = {}, b""
    for key, value in weights().items():
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        name = "F32" if value.is_floating_point() else "I64"
        offsets = [len(data), len(data) + len(content)]
        header[key] = {"dtype": name, "shape": list(value.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def changed(content: bytes, changes: list[Change], kept: float) -> bytes:
    for where, removed, added in changes:
        i = int(where * len(content))
        content = content[:i] + added + content[i + removed :]
    return content[: int(kept * len(content))]


shares = st.floats(0, 1)
changes = st.lists(
    st.tuples(shares, st.sampled_from([0, 1, 1, 4, 100]), st.binary(max_size=4)), max_size=4
)
kept = st.one_of(st.just(1.0), st.just(1.0), shares)


@fuzzed
@given(form=st.sampled_from(["zip", "legacy", "safetensors"]), changes=changes, kept=kept)
def test_damaged_files(tmp_path: Path, form: str, changes: list[Change], kept: float) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(changed(saved(form), changes, kept))
    check_import(path)


@fuzzed
@given(changes=changes, start=st.booleans())
def test_damaged_headers_of_safetensors(tmp_path: Path, changes: list[Change], start: bool) -> None:
    """The header alone, with its right length: most of a file is numbers."""
    content = saved("safetensors")
    (length,) = struct.unpack_from("<Q", content)
    header = changed(content[8 : 8 + length], changes, 1.0)
    size = struct.pack("<Q", len(header) if start else length)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(size + header + content[8 + length :])
    check_import(path)


@fuzzed
@given(changes=changes, kept=kept)
def test_damaged_pickles_with_right_checksums(
    tmp_path: Path, changes: list[Change], kept: float
) -> None:
    path = tmp_path / "weights.pth"
    with (
        zipfile.ZipFile(io.BytesIO(saved("zip"))) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = changed(content, changes, kept)
            new.writestr(name, content)
    check_import(path)


@fuzzed
@given(st.binary(max_size=200), st.sampled_from(["pth", "safetensors"]))
def test_any_bytes(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    assert check_import(path)


# Odd contents


def quantized() -> Tensor:
    with warnings.catch_warnings(action="ignore"):
        return torch.quantize_per_tensor(torch.ones(4, 1, 3, 3), 0.1, 0, torch.qint8)


def nested() -> Tensor:
    with warnings.catch_warnings(action="ignore"):
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


STEM = (4, 1, 3, 3)
ODD = {
    "meta": lambda: torch.ones(STEM, device="meta"),
    "sparse": lambda: torch.ones(STEM).to_sparse(),
    "csr": lambda: torch.ones(10, 16).to_sparse_csr(),
    "quantized": quantized,
    "nested": nested,
    "complex": lambda: torch.ones(STEM, dtype=torch.complex64),
    "empty": lambda: torch.ones(4, 0, 3, 3),
    "scalar": lambda: torch.tensor(1.0),
    "nan": lambda: torch.full(STEM, torch.nan),
    "inf": lambda: torch.full(STEM, torch.inf),
    "large": lambda: torch.full(STEM, 1e300, dtype=torch.float64),
    "whole": lambda: torch.ones(STEM, dtype=torch.int64),
    "bool": lambda: torch.ones(STEM, dtype=torch.bool),
    "float8": lambda: torch.ones(STEM).to(torch.float8_e4m3fn),
    "half": lambda: torch.ones(STEM, dtype=torch.float16),
    "huge": lambda: torch.ones(1).expand(10**6, 10**6),
    "strided": lambda: torch.ones(3, 3, 1, 4).permute(3, 2, 0, 1),
    "parameter": lambda: nn.Parameter(torch.ones(STEM)),
    "transposed": lambda: torch.ones(16, 10).t(),
}  # fmt: skip
PREFIXES = ["", "module.", "_orig_mod.", "module.student.", "\x1b[31m."]
names = st.one_of(
    st.sampled_from(["model", "state_dict", "module", "student", "conv1.weight", "fc.bias", ""]),
    st.text(max_size=8),
)
plain = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans())
leaves = st.one_of(
    st.tuples(st.just("weights"), st.sampled_from(PREFIXES)),
    st.tuples(st.just("odd"), st.sampled_from(list(ODD))),
    plain,
)
contents: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.one_of(names, st.integers()), inner, max_size=4),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)


def built(drawn: Any) -> Any:
    """Replace what was drawn for tensors by tensors."""
    if isinstance(drawn, tuple):
        kind, name = drawn
        return ODD[name]() if kind == "odd" else prefixed(name)
    if isinstance(drawn, dict):
        return {key: built(value) for key, value in drawn.items()}
    return [built(value) for value in drawn] if isinstance(drawn, list) else drawn


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in weights().items()}


@fuzzed
@given(contents, st.booleans())
def test_odd_contents(tmp_path: Path, content: Any, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    try:
        with warnings.catch_warnings(action="ignore"):
            torch.save(built(content), path, _use_new_zipfile_serialization=zipped)
    except (RuntimeError, NotImplementedError, pickle.PicklingError, UnicodeEncodeError):
        return  # torch itself cannot save it in this format
    check_import(path)


USABLE = {("conv1.weight", odd) for odd in ("float8", "half", "strided", "parameter")}
USABLE |= {("fc.weight", "transposed")}


@fuzzed
@given(
    prefix=st.sampled_from(PREFIXES),
    odd=st.sampled_from(list(ODD)),
    key=st.sampled_from(["conv1.weight", "fc.weight", "bn1.running_var", "layer1.0.bn1.bias"]),
)
def test_one_odd_tensor(tmp_path: Path, prefix: str, odd: str, key: str) -> None:
    path = tmp_path / "weights.pth"
    with warnings.catch_warnings(action="ignore"):
        torch.save({"model": prefixed(prefix) | {f"{prefix}{key}": ODD[odd]()}}, path)
    assert bool(check_import(path)) == ((key, odd) not in USABLE)
