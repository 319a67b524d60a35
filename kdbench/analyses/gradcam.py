"""Grad-CAM: image regions that support a class, for a teacher and its students."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.analyses.finding import Finding, escape_mathtext, new_figure, truncation_note
from kdbench.analyses.trained_run import AnalysisError, TeacherOnData, TrainedRun
from kdbench.data.batches import Normalise
from kdbench.method import Features
from kdbench.report.plots.style import COLOURS, LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOURCE = (
    "Grad-CAM: Selvaraju et al., ICCV 2017 (arXiv:1610.02391); of teacher and students as in "
    "SemCKD: Chen et al., AAAI 2021 (arXiv:2012.03236)"
)
COMPARED = 512
"""Number of test images on which maps are compared; a few of them are drawn."""
MAX_NETWORKS = 9
"""Largest number of networks in the figure."""


class ComparedNetwork(NamedTuple):
    """A teacher or student in the comparison."""

    label: str
    run: str
    network: nn.Module
    predict: Callable[[Features], Tensor]
    logits: Tensor  # on the test set, [N, K]


def cam(
    network: nn.Module,
    predict: Callable[[Features], Tensor],
    images: Tensor,
    classes: Tensor,
    stage: int = -1,
) -> Tensor:
    """Return the non-negative evidence map of a class, [B, h, w], at the size of the stage's map.

    ``relu(sum_k a_k A_k)``, where ``a_k`` is the mean over positions of the class logit's gradient
    with respect to channel k of the map A.

    Args:
        network: network in eval mode, from images [B, C, H, W] to ``Features``.
        predict: function from ``Features`` to logits [B, K].
        images: images [B, C, H, W].
        classes: class to explain for each image, [B].
        stage: index of the stage.

    Source: Selvaraju et al., ICCV 2017, Eq. 1 and 2.
    """
    with torch.enable_grad():
        f: Features = network(images.detach().requires_grad_())
        maps = f.stages[stage]
        score = predict(f).gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, maps)
    weights = gradient.mean((2, 3), keepdim=True)  # [B, C, 1, 1]
    return (weights * maps.detach()).sum(1).relu()


def enlarged(maps: Tensor, size: int) -> Tensor:
    """Enlarge maps bilinearly, [B, h, w] -> [B, size, size]."""
    return F.interpolate(maps[:, None], (size, size), mode="bilinear")[:, 0]


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of non-negative maps [B, H, W], in [0, 1], [B]; 0 if a map is all zero."""
    return F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)


def analyse(trained_runs: Sequence[TrainedRun], images: int = 6, stage: int = -1) -> Finding:
    """Analyse Grad-CAM for the true class, on test images on which the networks disagree.

    Args:
        trained_runs: runs with the same teacher and data set.
        images: number of images to draw.
        stage: index of a stage of each network; -1 is the last.

    Raises:
        AnalysisError: the teachers differ, or a network has no such stage.
    """
    import pandas as pd

    teacher = common_teacher(trained_runs, "gradcam")
    data = teacher.data
    name = f"teacher {teacher.arch}"
    networks = [
        ComparedNetwork(name, teacher.run, teacher.loaded.fast, _logits, teacher.test.logits),
        *(
            ComparedNetwork(
                trained.label, trained.run.id, trained.network, trained.predict, trained.test.logits
            )
            for trained in trained_runs
        ),
    ]
    labels = data.test_labels.cpu()
    sample = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:COMPARED]
    predicted = torch.stack([network.logits.argmax(1) for network in networks])
    drawn = disputed(predicted, labels, images)
    normalise = Normalise(data)

    def maps(network: ComparedNetwork, positions: Tensor) -> Tensor:
        index = positions.to(data.test_images.device)
        batch = normalise(data.test_images[index])
        try:
            return cam(
                network.network, network.predict, batch, data.test_labels[index], stage
            ).cpu()
        except IndexError:
            raise AnalysisError(f"--stage {stage}: {network.label} has no such stage") from None

    sample_maps = [enlarged(maps(network, sample), data.size) for network in networks]
    table, rows, drawn_maps = [], [], []
    for network, network_maps in zip(networks, sample_maps, strict=True):
        correct = network.logits.argmax(1) == labels
        table.append(
            {
                "network": network.label,
                "accuracy, %": 100 * float(correct.double().mean()),
                "cosine with the teacher's map": float(
                    similarity(network_maps, sample_maps[0]).mean()
                ),
            }
        )
        small = maps(network, drawn)
        drawn_maps.append(small)
        probabilities = network.logits[drawn].softmax(1)
        for k, image in enumerate(drawn.tolist()):
            facts = {
                "run": network.run,
                "label": network.label,
                "image": image,
                "class": data.classes[int(labels[image])],
                "predicted": data.classes[int(probabilities[k].argmax())],
                "probability": float(probabilities[k].max()),
            }
            for y, line in enumerate(small[k].tolist()):
                rows += [facts | {"y": y, "x": x, "cam": value} for x, value in enumerate(line)]
    pixels = [data.test_images[i].cpu() for i in drawn.tolist()]
    return Finding(
        "gradcam",
        "Grad-CAM for the true class, on test images on which the networks disagree",
        SOURCE,
        pd.DataFrame(table),
        pd.DataFrame(rows),
        _draw(networks, data.classes, labels[drawn], drawn, pixels, drawn_maps),
        (
            f"The cosine is a mean over {len(sample)} test images, of maps enlarged to their size.",
            *truncation_note(MAX_NETWORKS, len(networks)),
        ),
    )


def common_teacher(trained_runs: Sequence[TrainedRun], analysis: str) -> TeacherOnData:
    """Return the one teacher that all of these runs have.

    Raises:
        AnalysisError: a run has no teacher, or there are several teachers or data sets.
    """
    teachers = {}
    for trained in trained_runs:
        teacher = trained.require_teacher()
        teachers[teacher.run, trained.run.dataset] = teacher
    if len(teachers) > 1:
        names = ", ".join(
            sorted({f"{teacher.arch} ({teacher.run})" for teacher in teachers.values()})
        )
        raise AnalysisError(
            f"{analysis} shows one teacher and data set; these runs have several: {names}"
        )
    return next(iter(teachers.values()))


def disputed(predicted: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the images on which the students disagree most about the true class.

    Among equals, images that the teacher classifies correctly come first.

    Args:
        predicted: predicted classes, [networks, N], the teacher's first.
        labels: true classes, [N].
        count: largest number of images to return.

    Returns:
        Positions of images, ascending among equals.
    """
    correct = predicted == labels
    students = correct[1:].sum(0)
    others = len(correct) - 1 - students
    disagreement = students * others * 4 + (correct[0] & (others > 0))
    return disagreement.argsort(descending=True, stable=True)[:count]


def _logits(f: Features) -> Tensor:
    return f.logits


def _draw(
    networks: Sequence[ComparedNetwork],
    classes: Sequence[str],
    labels: Tensor,
    positions: Tensor,
    pixels: Sequence[Tensor],
    maps: Sequence[Tensor],
) -> "Figure":
    """Draw one row per image and one column per network."""
    networks = networks[:MAX_NETWORKS]
    figure = new_figure(1.2 * (len(networks) + 1), 1.42 * len(pixels) + 0.3)
    axes = figure.subplots(len(pixels), len(networks) + 1, squeeze=False)
    for i, (row, image) in enumerate(zip(axes, pixels, strict=True)):
        true = int(labels[i])
        _image(row[0], image, faint=False)
        row[0].set_xlabel(escape_mathtext(classes[true]), fontsize=7)
        for axis, network, small in zip(row[1:], networks, maps, strict=False):
            _image(axis, image, faint=True)
            heat = (small[i] / small[i].max().clamp(min=1e-12)).numpy()
            side = image.shape[0]
            axis.imshow(
                heat, cmap="inferno", vmin=0, vmax=1, alpha=0.55, interpolation="bilinear",
                extent=(-0.5, side - 0.5, side - 0.5, -0.5),
            )  # fmt: skip
            probabilities = network.logits[int(positions[i])].softmax(0)
            best = int(probabilities.argmax())
            mark, ink = ("✓", LINES) if best == true else ("✗", COLOURS[1])
            text = f"{mark} {escape_mathtext(classes[best])} {float(probabilities[best]):.0%}"
            axis.set_xlabel(text, fontsize=7, color=ink)
    titles = ["image", *(network.label for network in networks)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(escape_mathtext(title).replace(", ", "\n"), fontsize=8)
    return figure


def _image(axis: "Axes", image: Tensor, *, faint: bool) -> None:
    """Draw pixels, uint8 [H, W, C], in grey if a map is drawn over them."""
    if faint or image.shape[2] == 1:
        axis.imshow(image.float().mean(2).numpy(), cmap="gray", vmin=0, vmax=255)
    else:
        axis.imshow(image.numpy())
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
