"""Correlation of classes: whether a student scores alike the classes that its teacher does."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdbench.analyses.finding import Finding, arranged, cut, paper, plain, tidy
from kdbench.analyses.trained_run import TrainedRun

SOURCE = (
    "Difference of class-logit correlation matrices as in CRD: Tian et al., Contrastive "
    "Representation Distillation, ICLR 2020 (arXiv:1910.10699)"
)
MOST = 28
"""More runs than these are not drawn."""


def correlation(logits: Tensor) -> Tensor:
    """Pearson correlation of the classes' logits over images, [N, K] -> [K, K].

    A class whose logit never changes correlates with nothing, itself aside.
    """
    centred = logits.double() - logits.double().mean(0)
    length = centred.norm(dim=0)
    unit = centred / torch.where(length > 0, length, torch.ones_like(length))
    found = (unit.T @ unit).clamp(-1, 1)
    return found.fill_diagonal_(1.0)


def analyse(subjects: Sequence[TrainedRun]) -> Finding:
    """The difference teacher minus student, a panel a run, on the test set."""
    import pandas as pd

    found = [
        (correlation(one.taught().test.logits) - correlation(one.test.logits)).numpy()
        for one in subjects
    ]
    rows, table = [], []
    for one, gap in zip(subjects, found, strict=True):
        off = np.abs(gap[~np.eye(len(gap), dtype=bool)])
        table.append({"run": one.label, "mean |gap|": off.mean(), "largest |gap|": off.max()})
        frame = pd.DataFrame(gap).melt(ignore_index=False, var_name="class_b", value_name="gap")
        frame = frame.rename_axis("class_a").reset_index()
        frame.insert(0, "run", one.run.id)
        frame.insert(1, "label", one.label)
        rows.append(frame)
    shown = list(zip(subjects, found, strict=True))[:MOST]
    down, across = arranged(len(shown))
    figure = paper(2.1 * across + 0.9, 2.25 * down + 0.1)
    axes = figure.subplots(down, across, squeeze=False)
    bound = max(float(np.abs(gap).max()) for _, gap in shown) or 1.0
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (one, gap) in zip(axes.flat, shown, strict=False):
        image = axis.imshow(gap, cmap="RdBu_r", vmin=-bound, vmax=bound)
        mean = np.abs(gap[~np.eye(len(gap), dtype=bool)]).mean()
        axis.set_title(f"{plain(one.label)}\nmean |gap| {mean:.3f}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        tidy(axis, spines=())
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25)
    bar.set_label("correlation of class logits: teacher minus student", fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2)
    return Finding(
        "correlation",
        "Class-logit correlations: teacher minus student, on the test set",
        SOURCE,
        pd.DataFrame(table),
        pd.concat(rows, ignore_index=True),
        figure,
        (
            "0: the student scores classes alike exactly where the teacher does.",
            *cut(MOST, len(found)),
        ),
    )
