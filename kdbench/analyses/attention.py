"""Attention weights: how much each student stage learns from each teacher stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdbench.analyses.finding import (
    Finding,
    escape_mathtext,
    new_figure,
    style_axis,
    truncation_note,
)
from kdbench.analyses.trained_run import AnalysisError, TrainedRun
from kdbench.report.plots.style import COLOURS, LINES
from kdbench.runs import records
from kdbench.training import traces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOURCE = (
    "Attention weights as in SemCKD: Chen et al., Cross-Layer Distillation with Semantic "
    "Calibration, AAAI 2021 (arXiv:2012.03236)"
)
MAX_RUNS = 12
"""Largest number of runs in the figure."""

Weights = "np.ndarray[Any, np.dtype[np.float64]]"


def analyse(trained_runs: Sequence[TrainedRun], runs: Path) -> Finding:
    """Analyse mean attention over the test set and, if traces exist, during training.

    Args:
        trained_runs: runs to analyse; those without attention weights are left out.
        runs: folder of runs.

    Raises:
        AnalysisError: no run has attention weights.
    """
    import pandas as pd

    on_test = {
        trained: weights
        for trained in trained_runs
        if (weights := mean_on_test(trained)) is not None
    }
    if not on_test:
        methods = ", ".join(dict.fromkeys(trained.run.method for trained in trained_runs))
        raise AnalysisError(
            f"no attention weights in these runs ({methods}): give a run of semckd, or of another "
            "method whose trace() returns a tensor named 'attention'"
        )
    traced = {trained: _over_training(trained, runs) for trained in on_test}
    rows, table = [], []
    for trained, weights in on_test.items():
        facts = {"run": trained.run.id, "label": trained.label}
        epochs = [("train", e + 1, values) for e, values in enumerate(traced[trained])]
        for on, epoch, values in [("test", trained.run.training.epochs, weights), *epochs]:
            for (i, j), value in np.ndenumerate(values):
                key = {"on": on, "epoch": epoch, "student_stage": i + 1, "teacher_stage": j + 1}
                rows.append(facts | key | {"attention": value})
        for i, row in enumerate(weights):
            columns = {f"teacher {j + 1}": float(value) for j, value in enumerate(row)}
            table.append({"run": trained.label, "student stage": i + 1} | columns)
    without = [trained.label for trained in trained_runs if trained not in on_test]
    notes = [
        "Mean over the test set in eval mode, with the batch size of training. Equal allocation "
        "to T teacher stages would give 1/T each."
    ]
    notes += [f"Without attention weights: {'; '.join(without)}."] if without else []
    if any(not len(traced[trained]) for trained in on_test):
        notes.append("Runs without trace.csv were trained before kdbench stored attention.")
    notes += truncation_note(MAX_RUNS, len(on_test))
    return Finding(
        "attention",
        "Attention of student stages to teacher stages",
        SOURCE,
        pd.DataFrame(table).fillna(""),
        pd.DataFrame(rows),
        _draw(on_test, traced),
        tuple(notes),
    )


def mean_on_test(trained: TrainedRun) -> Any:
    """Return mean attention over the test set, [S, T]; None for a method without attention."""
    total, batches = None, 0
    for images, _ in trained.batches("test") if trained.run.teacher else ():
        s, t = trained.features(images)
        attentions = [
            weights
            for method in trained.methods
            # A method with peers may trace them, and only the deployed network is kept.
            if not method.brings_peers
            and (weights := method.trace(s, t).get("attention")) is not None
        ]
        if not attentions:
            return None
        mean = attentions[0].double().cpu().numpy()
        total = mean if total is None else total + mean
        batches += 1
    return None if total is None else total / batches


def _over_training(trained: TrainedRun, runs: Path) -> Any:
    """Return attention by epoch, [epochs, S, T]; empty if the run has no trace of it."""
    tensors = traces.read(records.folder(runs, trained.run.id))
    names = (f"{term.method}.attention" for term in trained.run.terms)
    return next((tensors[name] for name in names if name in tensors), np.empty((0, 0, 0)))


def _draw(on_test: dict[TrainedRun, Any], traced: dict[TrainedRun, Any]) -> "Figure":
    """Draw one row per run: a heat map, then a panel of training curves per student stage."""
    drawn = list(on_test)[:MAX_RUNS]
    stages = (on_test[trained].shape[0] for trained in drawn if len(traced[trained]))
    columns = 1 + max(stages, default=0)
    figure = new_figure(2.9 + 2.0 * (columns - 1), 2.35 * len(drawn) + 0.2)
    axes = figure.subplots(
        len(drawn), columns, squeeze=False, width_ratios=[1.25, *[1.0] * (columns - 1)]
    )
    for row, trained in zip(axes, drawn, strict=True):
        _heat(row[0], trained.label, on_test[trained])
        weights = traced[trained]
        for i, axis in enumerate(row[1:]):
            if i < weights.shape[1]:
                _curves(axis, i, weights[:, i], legend=i == weights.shape[1] - 1)
            else:
                axis.set_axis_off()
    return figure


def _heat(axis: "Axes", label: str, weights: Any) -> None:
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(weights):
        ink = "white" if value > 0.55 else LINES
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    axis.set_xticks(range(weights.shape[1]), [str(j + 1) for j in range(weights.shape[1])])
    axis.set_yticks(range(weights.shape[0]), [str(i + 1) for i in range(weights.shape[0])])
    axis.set_xlabel("teacher stage", fontsize=8)
    axis.set_ylabel("student stage", fontsize=8)
    axis.set_title(escape_mathtext(label), fontsize=9)
    style_axis(axis, spines=())
    axis.tick_params(length=0)


def _curves(axis: "Axes", stage: int, weights: Any, *, legend: bool) -> None:
    """Draw the attention of one student stage over the epochs, [epochs, T]."""
    epochs, count = weights.shape
    axis.axhline(1 / count, color=LINES, linewidth=0.8, linestyle=":", zorder=1)
    for j in range(count):
        colour = COLOURS[j % len(COLOURS)]
        axis.plot(
            range(1, epochs + 1), weights[:, j], color=colour, linewidth=1.3, label=str(j + 1)
        )
    axis.set_ylim(-0.03, 1.03)
    axis.set_title(f"student stage {stage + 1}", fontsize=9)
    axis.set_xlabel("epoch", fontsize=8)
    style_axis(axis)
    if stage:
        axis.set_yticklabels([])
    if legend:
        axis.legend(
            title="teacher\nstage", fontsize=7, title_fontsize=7, frameon=False,
            loc="center left", bbox_to_anchor=(1.0, 0.5),
        )  # fmt: skip
