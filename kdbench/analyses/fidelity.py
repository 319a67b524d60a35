"""Fidelity: how well a student does as its teacher does, which is not how well it does."""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from kdbench.analyses.finding import Finding, dots, paper
from kdbench.analyses.trained_run import TrainedRun

SOURCE = (
    "Agreement and KL as in Stanton et al., Does Knowledge Distillation Really Work?, NeurIPS 2021 "
    "(arXiv:2106.05945)"
)


class Fidelity(NamedTuple):
    """A student against its teacher, on the same images.

    Attributes:
        accuracy, teacher: top-1 accuracies in percent.
        agreement: share of images on which both predict the same class, in percent.
        in_error: the same among the images that the teacher gets wrong; nan if there are none.
        kl: mean KL divergence of the student's from the teacher's prediction at temperature 1.
    """

    accuracy: float
    teacher: float
    agreement: float
    in_error: float
    kl: float


def compare(student: Tensor, teacher: Tensor, labels: Tensor) -> Fidelity:
    """Of logits [N, K] and labels [N]."""
    mine, theirs = student.argmax(1), teacher.argmax(1)
    same, wrong = mine == theirs, theirs != labels
    p, q = (F.log_softmax(x.double(), 1) for x in (teacher, student))
    kl = F.kl_div(q, p, reduction="batchmean", log_target=True)
    return Fidelity(
        accuracy=_percent(mine == labels),
        teacher=_percent(theirs == labels),
        agreement=_percent(same),
        in_error=_percent(same[wrong]) if wrong.any() else float("nan"),
        kl=max(0.0, float(kl)),  # rounding may leave -1e-17
    )


def analyse(subjects: Sequence[TrainedRun]) -> Finding:
    """Agreement and KL of students and their teachers on the test set."""
    import pandas as pd

    rows, table, drawn = [], [], []
    for one in subjects:
        guide = one.taught()
        found = compare(one.test.logits, guide.test.logits, one.data.test_labels.cpu())
        rows.append(
            {"run": one.run.id, "label": one.label, "teacher_run": guide.run} | found._asdict()
        )
        drawn.append(found)
        table.append(
            {
                "run": one.label,
                "accuracy, %": found.accuracy,
                "teacher, %": found.teacher,
                "agreement, %": found.agreement,
                "where it errs, %": found.in_error,
                "KL": found.kl,
            }
        )
    figure = paper(7.0, 0.28 * len(rows) + 0.9)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [one.label for one in subjects]
    dots(left, names, [found.agreement for found in drawn], "agreement with the teacher, %")
    dots(right, names, [found.kl for found in drawn], "KL from the teacher, nats")
    return Finding(
        "fidelity",
        "Fidelity of students to their teachers, on the test set",
        SOURCE,
        pd.DataFrame(table),
        pd.DataFrame(rows),
        figure,
        ("where it errs: agreement on the images that the teacher gets wrong.",),
    )


def _percent(hits: Tensor) -> float:
    return 100 * float(hits.double().mean())
