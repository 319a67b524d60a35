"""Heartbeats: the progress of a run in training, in ``runs/<id>/progress.json``.

The live view of a runner, ``kdbench status`` and other runners all read these files, so they show
the same state. This module does not import torch.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from kdbench.files import write_atomically
from kdbench.runs.records import folder

STALE_SECONDS = 120.0
"""Age at which a heartbeat is ignored, also if it is that far in the future."""


@dataclass(frozen=True)
class Beat:
    """Progress of a run.

    Attributes:
        run: id of the run.
        cohort: id of the cohort that trains the run.
        title: name of the cohort for people.
        phase: "pretrain" or "train".
        epoch: current epoch, from 1.
        epochs: number of epochs of the phase.
        step: finished steps of the epoch.
        steps: number of steps of an epoch.
        images_per_s: images per second of the cohort, summed over its learners.
        acc: last test accuracy in percent.
        eta: remaining seconds.
        pid: process id.
        host: name of the machine.
        at: time of the heartbeat in Unix seconds.
        process: identity of the process (``Owner.process``); others may have its pid and host name.
    """

    run: str
    cohort: str
    title: str
    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_s: float
    acc: float | None
    eta: float | None
    pid: int
    host: str
    at: float
    process: str = ""


_BEAT = TypeAdapter(Beat)


def write(runs: Path, beat: Beat) -> None:
    """Write a heartbeat, without syncing it to disk: losing one does no harm."""
    path = folder(runs, beat.run) / "progress.json"
    write_atomically(path, json.dumps(asdict(beat)), sync=False)


def clear(runs: Path, run_id: str) -> None:
    """Delete the heartbeat of a run that has ended."""
    (folder(runs, run_id) / "progress.json").unlink(missing_ok=True)


def read(runs: Path, run_id: str, *, fresh: bool = True) -> Beat | None:
    """Read the last heartbeat of a run; None if there is none, or if it is not fresh.

    A damaged one counts as none: the next one replaces it.
    """
    try:
        beat = _BEAT.validate_json((folder(runs, run_id) / "progress.json").read_bytes())
    except (OSError, ValueError):
        return None
    # The time of another host may be ahead; a heartbeat from the far future proves nothing.
    return beat if not fresh or abs(time.time() - beat.at) < STALE_SECONDS else None


def load(runs: Path, ids: Iterable[str]) -> dict[str, Beat]:
    """Read the fresh heartbeats of runs; runs without one are left out."""
    beats = {run_id: read(runs, run_id) for run_id in ids}
    return {run_id: beat for run_id, beat in beats.items() if beat is not None}
