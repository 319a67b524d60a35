"""What a run measured: its result and its cost."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """Numbers of a run, equal bit for bit if the run is repeated on the same machine.

    Accuracies are in percent. ``test_acc`` is the headline: the accuracy after the last finished
    epoch, ``epoch``. ``best_acc`` is selected on the test set and shown only in a marked column.

    Attributes:
        weights: sha256 of the student's weights.
        data: sha256 of the images and labels.
        teacher_weights: sha256 of the teacher's weights.
        val_acc: accuracy after the last epoch on held-out training images.
        selected_acc: test accuracy at the epoch with the best ``val_acc``.
        answers: test accuracies of other predictions after the last epoch, by name
            (``Method.answers``); None without any, and then left out of records.
    """

    epoch: int
    steps: int
    train_loss: float
    train_acc: float
    test_loss: float
    test_acc: float
    test_top5: float
    best_acc: float
    best_epoch: int
    weights: str
    data: str
    n_train: int
    n_test: int
    teacher_acc: float | None = None
    teacher_weights: str | None = None
    val_acc: float | None = None
    selected_acc: float | None = None
    last_finite_loss: float | None = None
    answers: dict[str, float] | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields for JSON, without answers if there are none."""
        values = dict(vars(self))
        if self.answers is None:
            del values["answers"]
        return values


@dataclass(frozen=True)
class Cost:
    """Cost of a run. Times vary from day to day; counts do not.

    Attributes:
        seconds: steps and evaluations of this learner, summed over all attempts.
        teacher_seconds: teacher forward passes and batches. A cohort shares them; each of its runs
            counts them in full, as if it had been trained alone.
        step_ms: median milliseconds of a training step of this learner, without the teacher.
        params: number of parameters of the student.
        params_deployed: number of parameters used at inference.
        params_extra: number of parameters that the method trains and then drops.
        macs: multiply-accumulates of one image at inference, for the student alone.
        peak_mb: peak memory in MB, shared with the cohort: of the process on a CPU, of the cohort's
            tensors on a GPU.
        peak_reserved_mb: peak of the memory that torch reserved on a GPU for those tensors, in MB;
            None on a CPU, whose records leave it out.
    """

    seconds: float
    teacher_seconds: float
    step_ms: float
    params: int
    params_deployed: int
    params_extra: int
    macs: int
    peak_mb: float
    peak_reserved_mb: float | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields for JSON, without those that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}
