"""t-SNE of the embeddings of test images, for a teacher and its students."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdbench.analyses.finding import (
    Finding,
    escape_mathtext,
    new_figure,
    panel_grid,
    truncation_note,
)
from kdbench.analyses.gradcam import common_teacher
from kdbench.analyses.trained_run import AnalysisError, TrainedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = (
    "t-SNE: van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 2008; scikit-learn, seed 0"
)
MAX_NETWORKS = 15
"""Largest number of networks in the figure: a teacher and 14 students."""


def choose_images(labels: Tensor, classes: int, images: int) -> Tensor:
    """Choose images of the first classes, the same for every run; return ascending positions.

    Classes have equally many images, unless one has too few.

    Args:
        labels: labels of all images, [N].
        classes: number of classes.
        images: number of images over all classes, but at least two per class.
    """
    stream = torch.Generator().manual_seed(0)
    parts = []
    for k in range(classes):
        members = (labels == k).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=stream)
        parts.append(members[order[: max(2, images // classes)]])
    return torch.cat(parts).sort().values


def embed(points: Any) -> Any:
    """Map points to the plane, [N, D] -> [N, 2], deterministically."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1)
    with threadpool_limits(1):  # several threads would add in a varying order
        return tsne.fit_transform(points)


def analyse(trained_runs: Sequence[TrainedRun], classes: int = 10, images: int = 1000) -> Finding:
    """Analyse the embeddings of test images in the plane, in one panel per network.

    Args:
        trained_runs: runs with the same teacher and data set.
        classes: number of classes, from the first.
        images: number of images over all classes.

    Raises:
        AnalysisError: the teachers differ, or there are too few images.
    """
    import pandas as pd
    from sklearn.metrics import silhouette_score

    teacher = common_teacher(trained_runs, "tsne")
    data = teacher.data
    labels = data.test_labels.cpu()
    count = min(classes, data.num_classes)
    index = choose_images(labels, count, images)
    chosen_labels = labels[index].numpy()
    if count < 2 or len(index) < 2 * count:
        raise AnalysisError(f"tsne: {len(index)} test images of {count} classes are too few")
    networks = [(f"teacher {teacher.arch}", teacher.run, teacher.test)]
    networks += [(trained.label, trained.run.id, trained.test) for trained in trained_runs]
    table, frames, planes = [], [], []
    for label, run, outputs in networks:
        points = outputs.embedding[index].numpy()
        plane = embed(points)
        planes.append((label, plane))
        table.append(
            {
                "network": label,
                "dimensions": points.shape[1],
                "silhouette": float(silhouette_score(points, chosen_labels)),
            }
        )
        frame = pd.DataFrame({"x": plane[:, 0], "y": plane[:, 1]})
        frame.insert(0, "class", [data.classes[k] for k in chosen_labels])
        frame.insert(0, "image", index.numpy())
        frame.insert(0, "label", label)
        frame.insert(0, "run", run)
        frames.append(frame)
    return Finding(
        "tsne",
        "Embeddings of test images, by t-SNE",
        SOURCE,
        pd.DataFrame(table),
        pd.concat(frames, ignore_index=True),
        _draw(planes, chosen_labels, data.classes[:count]),
        (
            f"{len(index)} images of {count} classes. Silhouette (Rousseeuw 1987): how well the "
            "embedding separates the classes, at most 1; distances in the plane mean little.",
            *truncation_note(MAX_NETWORKS, len(networks)),
        ),
    )


def _draw(planes: Sequence[tuple[str, Any]], labels: Any, classes: Sequence[str]) -> "Figure":
    import matplotlib

    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "gist_rainbow"]
    drawn = planes[:MAX_NETWORKS]
    down, across = panel_grid(len(drawn))
    figure = new_figure(2.3 * across + 0.9, 2.45 * down)
    axes = figure.subplots(down, across, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (label, plane) in zip(axes.flat, drawn, strict=False):
        for k, name in enumerate(classes):
            members = labels == k
            colour = colours(k) if len(classes) <= 10 else colours(k / len(classes))
            axis.plot(
                *plane[members].T, "o", color=colour, markersize=2.2, markeredgewidth=0,
                label=escape_mathtext(name),
            )  # fmt: skip
        axis.set_title(escape_mathtext(label), fontsize=8)
        centre, reach = (plane.max(0) + plane.min(0)) / 2, np.ptp(plane, 0).max() * 0.53
        axis.set_xlim(centre[0] - reach, centre[0] + reach)
        axis.set_ylim(centre[1] - reach, centre[1] + reach)
        axis.set_aspect("equal")
    if len(classes) <= 20:
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside right center", fontsize=7, frameon=False, markerscale=2.5
        )
    return figure
