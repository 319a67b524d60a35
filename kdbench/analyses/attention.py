"""Attention weights: how much each stage of a student learns from each stage of its teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdbench.analyses.finding import Finding, cut, paper, plain, tidy
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
MOST = 12
"""More runs than these are not drawn."""

Weights = "np.ndarray[Any, np.dtype[np.float64]]"


def analyse(subjects: Sequence[TrainedRun], runs: Path) -> Finding:
    """Mean attention over the test set, and over training where the run kept it.

    Args:
        subjects: runs; those of a method without attention weights are left out.
        runs: folder of runs.

    Raises:
        AnalysisError: none of them has attention weights.
    """
    import pandas as pd

    found = {one: weights for one in subjects if (weights := on_test(one)) is not None}
    if not found:
        methods = ", ".join(dict.fromkeys(one.run.method for one in subjects))
        raise AnalysisError(
            f"no attention weights in these runs ({methods}): give one of semckd, or of another "
            "method whose trace() names a tensor 'attention'"
        )
    kept = {one: _kept(one, runs) for one in found}
    rows, table = [], []
    for one, weights in found.items():
        about = {"run": one.run.id, "label": one.label}
        epochs = [(e + 1, w) for e, w in enumerate(kept[one])]
        last = one.run.training.epochs
        for on, epoch, values in [("test", last, weights), *(("train", *x) for x in epochs)]:
            for (i, j), value in np.ndenumerate(values):
                place = {"on": on, "epoch": epoch, "student_stage": i + 1, "teacher_stage": j + 1}
                rows.append(about | place | {"attention": value})
        for i, line in enumerate(weights):
            shown = {f"teacher {j + 1}": float(value) for j, value in enumerate(line)}
            table.append({"run": one.label, "student stage": i + 1} | shown)
    left = [one.label for one in subjects if one not in found]
    notes = [
        "Mean over the test set in eval mode, in batches as large as in training; 1/T of all T "
        "teacher stages is what equal allocation would give."
    ]
    notes += [f"Without attention weights: {'; '.join(left)}."] if left else []
    if any(not len(kept[one]) for one in found):
        notes.append("Runs without a trace.csv were trained before attention was kept.")
    notes += cut(MOST, len(found))
    return Finding(
        "attention",
        "Attention of student stages to teacher stages",
        SOURCE,
        pd.DataFrame(table).fillna(""),
        pd.DataFrame(rows),
        _draw(found, kept),
        tuple(notes),
    )


def on_test(subject: TrainedRun) -> Any:
    """Mean attention over the test set, [S, T]; None for a method without."""
    total, batches = None, 0
    for images, _ in subject.looks("test") if subject.run.teacher else ():
        s, t = subject.both(images)
        given = [w for m in subject.methods if (w := m.trace(s, t).get("attention")) is not None]
        if not given:
            return None
        weights = given[0].double().cpu().numpy()
        total = weights if total is None else total + weights
        batches += 1
    return None if total is None else total / batches


def _kept(subject: TrainedRun, runs: Path) -> Any:
    """Attention by epoch, [epochs, S, T]; empty where none was kept."""
    found = traces.read(records.folder(runs, subject.run.id))
    names = (f"{term.method}.attention" for term in subject.run.terms)
    return next((found[name] for name in names if name in found), np.empty((0, 0, 0)))


def _draw(found: dict[TrainedRun, Any], kept: dict[TrainedRun, Any]) -> "Figure":
    """A row a run: the heat map, then a panel a student stage with its curves over training."""
    shown = list(found)[:MOST]
    across = 1 + max((found[one].shape[0] for one in shown if len(kept[one])), default=0)
    figure = paper(2.9 + 2.0 * (across - 1), 2.35 * len(shown) + 0.2)
    axes = figure.subplots(
        len(shown), across, squeeze=False, width_ratios=[1.25, *[1.0] * (across - 1)]
    )
    for line, one in zip(axes, shown, strict=True):
        _heat(line[0], one.label, found[one])
        for i, axis in enumerate(line[1:]):
            if i < kept[one].shape[1]:
                _curves(axis, i, kept[one][:, i], named=i == kept[one].shape[1] - 1)
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
    axis.set_title(plain(label), fontsize=9)
    tidy(axis, spines=())
    axis.tick_params(length=0)


def _curves(axis: "Axes", stage: int, weights: Any, *, named: bool) -> None:
    """Attention of one student stage over the epochs, [epochs, T]."""
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
    tidy(axis)
    if stage:
        axis.set_yticklabels([])
    if named:
        axis.legend(
            title="teacher\nstage", fontsize=7, title_fontsize=7, frameon=False,
            loc="center left", bbox_to_anchor=(1.0, 0.5),
        )  # fmt: skip
