"""Fidelity: how closely a student's predictions match its teacher's, unlike its accuracy."""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from kdbench.analyses.finding import Finding, dot_plot, new_figure
from kdbench.analyses.trained_run import TrainedRun

SOURCE = (
    "Agreement and KL as in Stanton et al., Does Knowledge Distillation Really Work?, NeurIPS 2021 "
    "(arXiv:2106.05945)"
)


class Fidelity(NamedTuple):
    """A comparison of a student with its teacher on the same images.

    Attributes:
        accuracy: top-1 accuracy of the student in percent.
        teacher: top-1 accuracy of the teacher in percent.
        agreement: share of images on which both predict the same class, in percent.
        in_error: agreement on images that the teacher misclassifies; nan without such images.
        kl: mean KL divergence of the student's from the teacher's prediction at temperature 1.
    """

    accuracy: float
    teacher: float
    agreement: float
    in_error: float
    kl: float


def compare(student: Tensor, teacher: Tensor, labels: Tensor) -> Fidelity:
    """Compare logits [N, K] on images with labels [N]."""
    student_class, teacher_class = student.argmax(1), teacher.argmax(1)
    same, wrong = student_class == teacher_class, teacher_class != labels
    p, q = (F.log_softmax(x.double(), 1) for x in (teacher, student))
    kl = F.kl_div(q, p, reduction="batchmean", log_target=True)
    return Fidelity(
        accuracy=_percent(student_class == labels),
        teacher=_percent(teacher_class == labels),
        agreement=_percent(same),
        in_error=_percent(same[wrong]) if wrong.any() else float("nan"),
        kl=max(0.0, float(kl)),  # rounding may give -1e-17
    )


def analyse(trained_runs: Sequence[TrainedRun]) -> Finding:
    """Analyse agreement and KL of students and their teachers on the test set."""
    import pandas as pd

    rows, table, results = [], [], []
    for trained in trained_runs:
        teacher = trained.require_teacher()
        result = compare(trained.test.logits, teacher.test.logits, trained.data.test_labels.cpu())
        facts = {"run": trained.run.id, "label": trained.label, "teacher_run": teacher.run}
        rows.append(facts | result._asdict())
        results.append(result)
        table.append(
            {
                "run": trained.label,
                "accuracy, %": result.accuracy,
                "teacher, %": result.teacher,
                "agreement, %": result.agreement,
                "in teacher errors, %": result.in_error,
                "KL": result.kl,
            }
        )
    figure = new_figure(7.0, 0.28 * len(rows) + 0.9)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [trained.label for trained in trained_runs]
    dot_plot(left, names, [x.agreement for x in results], "agreement with the teacher, %")
    dot_plot(right, names, [x.kl for x in results], "KL from the teacher, nats")
    return Finding(
        "fidelity",
        "Fidelity of students to their teachers, on the test set",
        SOURCE,
        pd.DataFrame(table),
        pd.DataFrame(rows),
        figure,
        ("In teacher errors: agreement on images that the teacher misclassifies.",),
    )


def _percent(correct: Tensor) -> float:
    return 100 * float(correct.double().mean())
