"""Checkpoints that a kill, a full disk or a flipped bit cannot turn into a wrong number.

A checkpoint is written to a temporary file, synced, and renamed; the one before is kept as the
previous checkpoint until the run's end. The file has torch's zip format. Its checksums are verified
before it is loaded, and loading never unpickles code.
"""

import copy
import hashlib
import io
import logging
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.files import Permission, keep_as, sync_folder, write_atomically
from kdbench.runs.records import Record

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
NEW = "checkpoint.new.pt"
"""Earlier versions wrote this file first; after a kill it may be the newest checkpoint."""

log = logging.getLogger(__name__)


class CheckpointDamaged(ValueError):
    """The file is not a complete checkpoint."""


class OtherWeights(CheckpointDamaged):
    """The checkpoint is complete, but its weights are not those of the run's record."""


def save(
    folder: Path,
    state: dict[str, Any],
    *,
    final: bool = False,
    permission: Permission = nullcontext,
) -> None:
    """Write ``folder/checkpoint.pt``, and keep the previous checkpoint.

    Args:
        folder: the run's folder.
        state: tensors, numbers, strings, and lists and dicts of them.
        final: training has ended; the previous checkpoint is deleted.
        permission: entered before the existing checkpoint is replaced.

    Raises:
        OSError: the file cannot be written; the existing checkpoints are unchanged.
        Exception: what ``permission`` raises; likewise.
    """
    buffer = io.BytesIO()
    torch.save(to_host(state), buffer)
    current = folder / NAME

    @contextmanager
    def keeping_previous() -> Iterator[None]:
        with permission():
            if current.exists() and not final:
                keep_as(current, folder / PREVIOUS)
            yield

    write_atomically(current, buffer.getvalue(), permission=keeping_previous)
    sync_folder(folder)
    if final:
        remove_previous(folder)


def remove_previous(folder: Path) -> None:
    """Delete the checkpoints that a final checkpoint replaces."""
    for name in (PREVIOUS, NEW):
        (folder / name).unlink(missing_ok=True)


def to_host(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state with all its tensors on the CPU.

    Those on a GPU are copied one after the other without waiting in between. Without any, this
    returns ``state`` itself.
    """
    gpus: set[torch.device] = set()
    copied: dict[str, Any] = _to_host(state, gpus)
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
    return copied if gpus else state


def _to_host(value: Any, gpus: set[torch.device]) -> Any:
    """Begin to copy tensors, and add their devices to ``gpus``."""
    if isinstance(value, Tensor) and value.is_cuda:
        gpus.add(value.device)
        return value.detach().to("cpu", non_blocking=True)  # keeps strides; memory is pinned
    if isinstance(value, dict):
        copied = copy.copy(value)  # keeps what ``state_dict`` attaches to its result
        copied.update({name: _to_host(item, gpus) for name, item in value.items()})
        return copied
    if isinstance(value, list | tuple):
        return type(value)(_to_host(item, gpus) for item in value)
    return value


def read(path: Path) -> dict[str, Any]:
    """Load a checkpoint file onto the CPU.

    Raises:
        CheckpointDamaged: the file is truncated, corrupt or no checkpoint; the message names it.
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
    """Load a run's final checkpoint, and verify its weights against the run's record.

    Raises:
        CheckpointDamaged: the file cannot be read, or contains no network.
        OtherWeights: the weights differ from those in the record.
    """
    state = read(path)
    if "model" not in state:
        raise CheckpointDamaged(f"{path}: holds no network")
    if record.result is None or digest(state["model"]) != record.result.weights:
        raise OtherWeights(f"{path}: these are not the weights that {record.run}'s record names")
    return state


def load(folder: Path) -> dict[str, Any] | None:
    """Load the newest complete checkpoint of a run; None if it has none.

    A damaged checkpoint is reported in the log, and the previous checkpoint is loaded.
    """
    for name in (NAME, NEW, PREVIOUS):
        path = folder / name
        if path.exists():
            try:
                return read(path)
            except CheckpointDamaged as damage:
                log.warning("damaged checkpoint, using the previous one: %s", damage)
    return None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors: names, types, shapes and bits."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
