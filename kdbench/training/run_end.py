"""The end of a run: its final checkpoint, then its other files, and its record last.

The final checkpoint contains the record and the learning curve. If a process ends after writing it,
the next one writes the other files from it, without training the run again.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench import files
from kdbench.data.dataset import LoadedData
from kdbench.files import Permission
from kdbench.models.peers import networks
from kdbench.runs import attempts, heartbeat, history, records
from kdbench.runs.records import Record, RecordError
from kdbench.training import checkpoint, traces
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

RECORD, HISTORY = "record", "history"
TENSORBOARD = "tensorboard"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunEnd:
    """The end of a run.

    Attributes:
        record: without the attempts in ``attempts.log``.
        history: one row per epoch; None: the run did not begin, its files stay as they are.
    """

    record: Record
    history: Sequence[Mapping[str, float]] | None

    def final_state(self, learner: Learner) -> dict[str, Any]:
        """Return the content of the final checkpoint of ``learner``.

        Of networks that learned together it holds the deployed one only.
        """
        return {
            "model": networks(learner.student)[0].state_dict(),
            "methods": learner.methods.state_dict(),
            "epoch": learner.run.training.epochs,
            "run": json.dumps(learner.run.to_json()),
            RECORD: self.record.to_json(),
            HISTORY: [dict(row) for row in self.history or ()],
        }

    @classmethod
    def of(
        cls, state: Mapping[str, Any], run_id: str, data: LoadedData, teacher: LoadedTeacher | None
    ) -> "RunEnd | None":
        """Return the end that a checkpoint contains; None: the run has to be trained.

        Args:
            state: of a checkpoint.
            run_id: id of the run.
            data: what the run is trained on now.
            teacher: who teaches the run now.
        """
        if RECORD not in state:
            return None
        try:
            record = Record.from_json(state[RECORD])
        except RecordError as error:
            log.warning("final checkpoint of %s is not used: %s", run_id, error)
            return None
        result = record.result
        if record.run != run_id:
            reason = f"it belongs to run {record.run}"
        elif result is None or result.weights != checkpoint.digest(state["model"]):
            reason = "its weights are not those of its record"
        elif result.data != data.digest:
            reason = "it was trained on other data"
        elif result.teacher_weights != (teacher.weights if teacher else None):
            reason = "it was trained by another teacher"
        else:
            return cls(record, state[HISTORY])
        log.warning("final checkpoint of %s is not used: %s", run_id, reason)
        return None

    def write(self, runs: Path, *, tensorboard: bool, permission: Permission) -> None:
        """Write all files of the run but the checkpoint, the record last.

        Args:
            runs: folder of runs.
            tensorboard: also write curves for TensorBoard.
            permission: asked before each file is put in place.

        Raises:
            LeaseLost: another process writes the run.
            OSError: the disk is full, for instance.
        """
        folder = records.folder(runs, self.record.run)
        if self.history is not None:
            history.write(folder, self.history, permission=permission)
            traces.write(folder, self.history, permission=permission)
            if tensorboard:
                _write_tensorboard(folder, self.history)
        if self.record.status == "done":
            checkpoint.remove_previous(folder)
        heartbeat.clear(runs, self.record.run)
        earlier = attempts.read(runs, self.record.run)
        record = replace(self.record, attempts=(*earlier, *self.record.attempts))
        files.sync_folder(folder)
        records.write(runs, record, permission=permission)


def _write_tensorboard(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write curves for TensorBoard, once at the end, so that resuming repeats no point."""
    from torch.utils.tensorboard import SummaryWriter

    curves = folder / TENSORBOARD
    shutil.rmtree(curves, ignore_errors=True)  # of a process that ended before the record
    try:
        with SummaryWriter(str(curves)) as writer:
            for row in rows:
                for name in set(row) - {"epoch"}:
                    writer.add_scalar(name, row[name], int(row["epoch"]))
    except OSError:
        raise
    except Exception as error:  # other tools' curves must not keep a run from its record
        log.warning("%s: no curves for TensorBoard: %s", curves, error)
