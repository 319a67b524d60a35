"""t-SNE of the embeddings of test images, teacher and students side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdbench.analyses.finding import Finding, arranged, cut, paper, plain
from kdbench.analyses.gradcam import one_guide
from kdbench.analyses.trained_run import AnalysisError, TrainedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = (
    "t-SNE: van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 2008; scikit-learn, seed 0"
)
MOST = 15
"""More networks than these are not drawn: a teacher and 14 students."""


def chosen(labels: Tensor, classes: int, images: int) -> Tensor:
    """Images of the first classes, in equal numbers as far as there are any; positions ascending.

    Which of a class is the same whatever the run.

    Args:
        labels: [N]. classes: how many. images: in all, at most.
    """
    stream = torch.Generator().manual_seed(0)
    parts = []
    for k in range(classes):
        members = (labels == k).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=stream)
        parts.append(members[order[: max(2, images // classes)]])
    return torch.cat(parts).sort().values


def embed(points: Any) -> Any:
    """[N, D] -> [N, 2], the same whenever it is asked."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1)
    with threadpool_limits(1):  # sums of several threads come in any order
        return tsne.fit_transform(points)


def analyse(subjects: Sequence[TrainedRun], classes: int = 10, images: int = 1000) -> Finding:
    """The embeddings of some classes' test images in the plane, a panel a network.

    Args:
        subjects: runs of one teacher and data set.
        classes: how many, the first. images: how many in all.

    Raises:
        AnalysisError: different teachers, or too few images.
    """
    import pandas as pd
    from sklearn.metrics import silhouette_score

    guide = one_guide(subjects, "tsne")
    data = guide.data
    labels = data.test_labels.cpu()
    count = min(classes, data.num_classes)
    index = chosen(labels, count, images)
    which = labels[index].numpy()
    if count < 2 or len(index) < 2 * count:
        raise AnalysisError(f"tsne: {len(index)} test images of {count} classes are too few")
    networks = [(f"teacher {guide.arch}", guide.run, guide.test)]
    networks += [(one.label, one.run.id, one.test) for one in subjects]
    table, frames, planes = [], [], []
    for label, run, seen in networks:
        points = seen.embedding[index].numpy()
        plane = embed(points)
        planes.append((label, plane))
        table.append(
            {
                "network": label,
                "dimensions": points.shape[1],
                "silhouette": float(silhouette_score(points, which)),
            }
        )
        frame = pd.DataFrame({"x": plane[:, 0], "y": plane[:, 1]})
        frame.insert(0, "class", [data.classes[k] for k in which])
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
        _draw(planes, which, data.classes[:count]),
        (
            f"{len(index)} images of {count} classes. Silhouette (Rousseeuw 1987): how well the "
            "classes part in the embedding itself, at most 1; distances in the plane mean little.",
            *cut(MOST, len(networks)),
        ),
    )


def _draw(planes: Sequence[tuple[str, Any]], which: Any, classes: Sequence[str]) -> "Figure":
    import matplotlib

    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "gist_rainbow"]
    shown = planes[:MOST]
    down, across = arranged(len(shown))
    figure = paper(2.3 * across + 0.9, 2.45 * down)
    axes = figure.subplots(down, across, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (label, plane) in zip(axes.flat, shown, strict=False):
        for k, name in enumerate(classes):
            mine = which == k
            colour = colours(k) if len(classes) <= 10 else colours(k / len(classes))
            axis.plot(
                *plane[mine].T, "o", color=colour, markersize=2.2, markeredgewidth=0,
                label=plain(name),
            )  # fmt: skip
        axis.set_title(plain(label), fontsize=8)
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
