"""Heartbeats: what a run in training says of itself, in ``runs/<id>/progress.json``.

The runner's live view, ``kdbench status`` and a second runner all read the same files, so they see
the same whoever trains. No torch here.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from kdbench.runs.records import folder

STALE_SECONDS = 120.0
"""A heartbeat older than this says nothing any more."""


@dataclass(frozen=True)
class Beat:
    """Where a run is.

    Attributes:
        run: id. cohort: which cohort it trains in. title: of that cohort, for people.
        phase, epoch, epochs, step, steps: of the training.
        images_per_s: of the whole cohort, each learner's images counted.
        acc: last test accuracy in percent. eta: seconds to go. at: when, in Unix seconds.
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


def write(runs: Path, beat: Beat) -> None:
    """Say where a run is; not synced to disk, a lost heartbeat costs nothing."""
    path = folder(runs, beat.run) / "progress.json"
    temporary = path.with_name(f".progress.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(beat)))
    temporary.replace(path)


def clear(runs: Path, run_id: str) -> None:
    """A run that has ended has no heartbeat."""
    (folder(runs, run_id) / "progress.json").unlink(missing_ok=True)


def read(runs: Path, run_id: str, *, fresh: bool = True) -> Beat | None:
    """The last heartbeat of a run; None where there is none, or none that is fresh."""
    try:
        beat = Beat(**json.loads((folder(runs, run_id) / "progress.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return beat if not fresh or time.time() - beat.at < STALE_SECONDS else None


def load(runs: Path, ids: Iterable[str]) -> dict[str, Beat]:
    """The fresh heartbeats there are of these runs."""
    found = {run_id: read(runs, run_id) for run_id in ids}
    return {run_id: beat for run_id, beat in found.items() if beat is not None}
