"""Class-logit correlations: whether student and teacher relate the classes in the same way."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdbench.analyses.finding import (
    Finding,
    escape_mathtext,
    new_figure,
    panel_grid,
    style_axis,
    truncation_note,
)
from kdbench.analyses.trained_run import TrainedRun

SOURCE = (
    "Difference of class-logit correlation matrices as in CRD: Tian et al., Contrastive "
    "Representation Distillation, ICLR 2020 (arXiv:1910.10699)"
)
MAX_RUNS = 28
"""Largest number of runs in the figure."""


def correlation(logits: Tensor) -> Tensor:
    """Return the Pearson correlation of the classes' logits over images, [N, K] -> [K, K].

    A class with constant logits has correlation 0 with all other classes.
    """
    centred = logits.double() - logits.double().mean(0)
    length = centred.norm(dim=0)
    unit = centred / torch.where(length > 0, length, torch.ones_like(length))
    return (unit.T @ unit).clamp(-1, 1).fill_diagonal_(1.0)


def analyse(trained_runs: Sequence[TrainedRun]) -> Finding:
    """Analyse teacher minus student on the test set, in one panel per run."""
    import pandas as pd

    gaps = [
        (
            correlation(trained.require_teacher().test.logits) - correlation(trained.test.logits)
        ).numpy()
        for trained in trained_runs
    ]
    rows, table = [], []
    for trained, gap in zip(trained_runs, gaps, strict=True):
        absolute = np.abs(gap[~np.eye(len(gap), dtype=bool)])
        table.append(
            {
                "run": trained.label,
                "mean |gap|": absolute.mean(),
                "largest |gap|": absolute.max(),
            }
        )
        frame = pd.DataFrame(gap).melt(ignore_index=False, var_name="class_b", value_name="gap")
        frame = frame.rename_axis("class_a").reset_index()
        frame.insert(0, "run", trained.run.id)
        frame.insert(1, "label", trained.label)
        rows.append(frame)
    drawn = list(zip(trained_runs, gaps, strict=True))[:MAX_RUNS]
    down, across = panel_grid(len(drawn))
    figure = new_figure(2.1 * across + 0.9, 2.25 * down + 0.1)
    axes = figure.subplots(down, across, squeeze=False)
    bound = max(float(np.abs(gap).max()) for _, gap in drawn) or 1.0
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis, (trained, gap) in zip(axes.flat, drawn, strict=False):
        image = axis.imshow(gap, cmap="RdBu_r", vmin=-bound, vmax=bound)
        mean = np.abs(gap[~np.eye(len(gap), dtype=bool)]).mean()
        axis.set_title(f"{escape_mathtext(trained.label)}\nmean |gap| {mean:.3f}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        style_axis(axis, spines=())
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
            "0: the correlation is the same for student and teacher.",
            *truncation_note(MAX_RUNS, len(gaps)),
        ),
    )
