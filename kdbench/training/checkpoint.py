"""Checkpoints that a kill, a full disk or a flipped bit cannot turn into a wrong number.

A checkpoint is written whole to a temporary file, synced, and renamed; the one before it is kept
until then. The file is torch's own zip format, whose checksums are verified before it is read, and
reading never unpickles code.
"""

import hashlib
import io
import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.files import write_atomically
from kdbench.runs.records import Record

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"

log = logging.getLogger(__name__)


class CheckpointDamaged(ValueError):
    """The file is not a whole checkpoint."""


class OtherWeights(CheckpointDamaged):
    """The file is whole, and not what the run's record speaks of."""


def save(folder: Path, state: dict[str, Any], *, final: bool = False) -> None:
    """Write ``folder/checkpoint.pt``, keeping the one before it.

    Args:
        folder: of the run.
        state: tensors, numbers, strings, and lists and dicts of them.
        final: training has ended: the one before is dropped.

    Raises:
        OSError: nothing was changed.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    new = folder / "checkpoint.new.pt"
    write_atomically(new, buffer.getvalue())
    current, previous = folder / NAME, folder / PREVIOUS
    if current.exists() and not final:
        current.replace(previous)
    new.replace(current)
    if final:
        previous.unlink(missing_ok=True)
    _sync(folder)


def _sync(folder: Path) -> None:
    """Make the renames themselves outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """One checkpoint file, on the CPU.

    Raises:
        CheckpointDamaged: truncated, corrupt or something else; the message names the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointDamaged(f"{path}: checksum of {broken} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointDamaged(f"{path}: holds more than numbers, not read") from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointDamaged(f"{path}: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointDamaged(f"{path}: holds a {type(state).__name__}, not a checkpoint")
    return state


def trained(path: Path, record: Record) -> dict[str, Any]:
    """What a run left at its end, verified to be the weights that its record names.

    Raises:
        CheckpointDamaged: it cannot be read, or holds no network.
        OtherWeights: the network is another.
    """
    state = read(path)
    if "model" not in state:
        raise CheckpointDamaged(f"{path}: holds no network")
    if record.result is None or digest(state["model"]) != record.result.weights:
        raise OtherWeights(f"{path}: these are not the weights that {record.run}'s record names")
    return state


def load(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint of a run; None where there is none.

    A damaged one is reported in the log and the one before it is used.
    """
    # checkpoint.new.pt is whole, too, when a kill came between the two renames.
    for name in (NAME, "checkpoint.new.pt", PREVIOUS):
        path = folder / name
        if path.exists():
            try:
                return read(path)
            except CheckpointDamaged as damage:
                log.warning("damaged checkpoint, the one before it is used: %s", damage)
    return None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of named tensors: names, types, shapes and bits."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
