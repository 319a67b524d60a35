"""Reader of files of weights: those that ``torch.save`` wrote, and safetensors.

Only tensors and plain values are unpickled; a file that contains code is refused.
"""

import argparse
import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdbench.errors import UserError, short_text

ONLY_WEIGHTS = (
    "where it was made, save only the weights: torch.save(model.state_dict(), 'weights.pth')"
)
MOST = 100_000
"""Largest number of tensors in a file."""
DEPTH = 8
"""Largest depth of nested dicts."""
HEADER = 100 << 20
"""Largest header of a safetensors file in bytes, as the format says."""
DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip

# Besides weights, checkpoints have scalars of numpy and parsed arguments. Building them runs no
# code of the file. numpy 1 used another name for the same function.
_SCALAR = np.float64(0).__reduce__()[0]
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


class CheckpointError(UserError):
    """The file is not a checkpoint, or not of this network; the message is one line."""


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read all named tensors in a file to the CPU.

    Returns:
        Tensors by their names; those in nested dicts are named ``OUTER.INNER``. Whatever is not
        under a text key or not a tensor is left out.

    Raises:
        CheckpointError: the file is missing, damaged, contains code, or has no named tensors.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: damaged or not a checkpoint: not a regular file")
    content = _read_safetensors(path) if _is_safetensors(path) else _load(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: expected a dict of weights, not {type(content).__name__}; {ONLY_WEIGHTS}"
        )
    found: dict[str, Tensor] = {}
    _collect(path, content, "", found, set(), 0)
    if not found:
        entries = ", ".join(
            f"{shown(key)} ({type(value).__name__})" for key, value in list(content.items())[:5]
        )
        raise CheckpointError(
            f"{path}: has no named tensors, but {entries or 'is an empty dict'}; {ONLY_WEIGHTS}"
        )
    return found


def _collect(
    path: Path,
    content: Mapping[object, object],
    prefix: str,
    found: dict[str, Tensor],
    seen: set[int],
    depth: int,
) -> None:
    """Add the tensors of nested dicts to ``found``; a dict that occurs twice counts once."""
    if id(content) in seen or depth > DEPTH:
        return
    seen.add(id(content))
    for key, value in content.items():
        if not isinstance(key, str):
            continue  # an optimiser's state has numbers as keys
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            if name in found:
                raise CheckpointError(f"{path}: two tensors are named {shown(name)}")
            found[name] = value
        elif isinstance(value, Mapping):
            _collect(path, value, f"{name}.", found, seen, depth + 1)
        if len(found) > MOST:
            raise CheckpointError(f"{path}: has more than {MOST:,} tensors")


def shown(name: object) -> str:
    """Return a name from a file as it may be printed: short, without control characters."""
    return short_text(name if isinstance(name, str) and name else repr(name), 80)


# --- files of torch.save ---


def _load(path: Path) -> object:
    """Load a file of ``torch.save`` after verifying its checksums, which torch does not do."""
    try:
        if zipfile.is_zipfile(path):  # the format of 2019 has no checksums
            _verify(path)
        # torch warns, then refuses.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(error)}") from error
    except Exception as error:  # a damaged file can fail in any way
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path}: a TorchScript archive; {ONLY_WEIGHTS}") from error
        raise CheckpointError(f"{path}: {_damaged(error)}") from error


def _verify(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        # torch does not compress; a compressed file could be of any size once it is read.
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise CheckpointError(f"{path}: damaged: its content is larger than the file")
        broken = archive.testzip()
    if broken:
        raise CheckpointError(f"{path}: damaged: wrong checksum of {shown(broken)}")


def _refusal(error: pickle.UnpicklingError) -> str:
    """Shorten torch's long message, which advises to run the file's code, to one line."""
    match = re.search(r"GLOBAL (\S+)", str(error))
    if match:
        name = shown(match[1])
        return f"refused: it holds Python objects ({name}), not only tensors; {ONLY_WEIGHTS}"
    return "damaged or not a checkpoint: no tensors could be unpickled"


def _damaged(error: Exception) -> str:
    """Describe an error on a damaged file in one line."""
    reason = re.split(r"\n|\. ", str(error), maxsplit=1)[0]
    reason = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    return f"damaged or not a checkpoint: {type(error).__name__} {reason[:200]}".rstrip()


# --- safetensors ---


def _is_safetensors(path: Path) -> bool:
    if path.suffix.casefold() == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(9)
    size = path.stat().st_size
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= size - 8


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file: the length of a header, the header in JSON, and the numbers."""
    try:
        content = path.read_bytes()
        (length,) = struct.unpack_from("<Q", content)
        if length > min(HEADER, len(content) - 8):
            raise ValueError("the header is longer than the file")
        header = json.loads(content[8 : 8 + length])
        data = memoryview(content)[8 + length :]
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        if len(entries) > MOST:
            raise CheckpointError(f"{path}: has more than {MOST:,} tensors")
        return {name: _tensor(entry, data) for name, entry in entries}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise CheckpointError(f"{path}: {_damaged(error)}") from error


def _tensor(entry: dict[str, object], data: memoryview) -> Tensor:
    """Return the tensor that an entry of a safetensors header describes.

    Raises:
        KeyError, TypeError, ValueError: it does not fit the file.
    """
    name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if name not in DTYPES:
        raise ValueError(f"cannot read numbers of type {name}; save them as F32")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError("an entry without shape or data_offsets")
    if not all(type(n) is int and n >= 0 for n in (*shape, *offsets)):
        raise ValueError("an entry with a wrong shape or wrong data_offsets")
    dtype, (begin, end), numbers = DTYPES[str(name)], offsets, 1
    for n in shape:
        numbers *= n
    if end > len(data) or numbers * dtype.itemsize != end - begin:
        raise ValueError("an entry whose data_offsets do not fit its shape or the file")
    if not numbers:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
