"""Grad-CAM: where in an image a network looks for a class, teacher and students side by side."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.analyses.finding import Finding, cut, paper, plain
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
"""Test images over which maps are compared; a few of them are drawn."""
MOST = 9
"""More networks than these are not drawn."""


class Looker(NamedTuple):
    """A network to ask where it looks."""

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
    """Where the evidence for a class lies, [B, h, w], not negative, as large as the stage's map.

    ``relu(sum_k a_k A_k)``, where ``a_k`` is the mean over positions of the class logit's gradient
    to channel k of the map A.

    Args:
        network: in eval mode, images [B, C, H, W] to ``Features``.
        predict: ``Features`` to logits [B, K].
        images: [B, C, H, W].
        classes: whose evidence, [B].
        stage: of which stage.

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
    """[B, h, w] -> [B, size, size], bilinearly."""
    return F.interpolate(maps[:, None], (size, size), mode="bilinear")[:, 0]


def alike(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of two maps of one size, in [0, 1], 0 where one is empty: [B, H, W] twice -> [B]."""
    return F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)


def analyse(subjects: Sequence[TrainedRun], images: int = 6, stage: int = -1) -> Finding:
    """Grad-CAM for the true class, on test images about which the networks disagree.

    Args:
        subjects: runs of one teacher and data set.
        images: how many to draw.
        stage: of which stage of each network; -1 is the last.

    Raises:
        AnalysisError: different teachers, or a network has no such stage.
    """
    import pandas as pd

    guide = one_guide(subjects, "gradcam")
    data = guide.data
    lookers = [
        Looker(f"teacher {guide.arch}", guide.run, guide.loaded.fast, _logits, guide.test.logits),
        *(Looker(x.label, x.run.id, x.network, x.predict, x.test.logits) for x in subjects),
    ]
    labels = data.test_labels.cpu()
    every = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:COMPARED]
    shown = disputed(torch.stack([one.logits.argmax(1) for one in lookers]), labels, images)
    normalise = Normalise(data)

    def maps(looker: Looker, index: Tensor) -> Tensor:
        place = index.to(data.test_images.device)
        batch = normalise(data.test_images[place])
        try:
            return cam(looker.network, looker.predict, batch, data.test_labels[place], stage).cpu()
        except IndexError:
            raise AnalysisError(f"--stage {stage}: {looker.label} has no such stage") from None

    ours = [enlarged(maps(one, every), data.size) for one in lookers]
    table, rows, drawn = [], [], []
    for one, mine in zip(lookers, ours, strict=True):
        right = one.logits.argmax(1) == labels
        near = float(alike(mine, ours[0]).mean())
        table.append(
            {
                "network": one.label,
                "accuracy, %": 100 * float(right.double().mean()),
                "cosine with the teacher's map": near,
            }
        )
        small = maps(one, shown)
        drawn.append(small)
        guess = one.logits[shown].softmax(1)
        for k, image in enumerate(shown.tolist()):
            about = {
                "run": one.run,
                "label": one.label,
                "image": image,
                "class": data.classes[int(labels[image])],
                "predicted": data.classes[int(guess[k].argmax())],
                "probability": float(guess[k].max()),
            }
            for y, line in enumerate(small[k].tolist()):
                rows += [about | {"y": y, "x": x, "cam": value} for x, value in enumerate(line)]
    pixels = [data.test_images[i].cpu() for i in shown.tolist()]
    return Finding(
        "gradcam",
        "Grad-CAM for the true class, on test images about which the networks disagree",
        SOURCE,
        pd.DataFrame(table),
        pd.DataFrame(rows),
        _draw(lookers, data.classes, labels[shown], shown, pixels, drawn),
        (
            f"The cosine is the mean over {len(every)} test images; a map is a stage's, enlarged.",
            *cut(MOST, len(lookers)),
        ),
    )


def one_guide(subjects: Sequence[TrainedRun], name: str) -> TeacherOnData:
    """The teacher that all of these runs have.

    Raises:
        AnalysisError: they have none, or several.
    """
    guides = {(x.taught().run, x.run.dataset): x.taught() for x in subjects}
    if len(guides) > 1:
        told = ", ".join(sorted({f"{guide.arch} ({guide.run})" for guide in guides.values()}))
        raise AnalysisError(
            f"{name} shows one teacher and data set; these runs have several: {told}"
        )
    return next(iter(guides.values()))


def disputed(guesses: Tensor, labels: Tensor, count: int) -> Tensor:
    """Images that divide the networks most into right and wrong, the teacher being right first.

    Args:
        guesses: predicted classes, [networks, N], the teacher's first.
        labels: [N].

    Returns:
        Positions, at most ``count``, ascending among equals.
    """
    right = guesses == labels
    students = right[1:].sum(0)
    divided = students * (len(right) - 1 - students) * 4 + (right[0] & (students < len(right) - 1))
    return divided.argsort(descending=True, stable=True)[:count]


def _logits(f: Features) -> Tensor:
    return f.logits


def _draw(
    lookers: Sequence[Looker],
    classes: Sequence[str],
    labels: Tensor,
    shown: Tensor,
    pixels: Sequence[Tensor],
    maps: Sequence[Tensor],
) -> "Figure":
    """A row an image, a column a network."""
    lookers = lookers[:MOST]
    figure = paper(1.2 * (len(lookers) + 1), 1.42 * len(pixels) + 0.3)
    axes = figure.subplots(len(pixels), len(lookers) + 1, squeeze=False)
    for row, (line, image) in enumerate(zip(axes, pixels, strict=True)):
        true = int(labels[row])
        _image(line[0], image, faint=False)
        line[0].set_xlabel(plain(classes[true]), fontsize=7)
        for axis, one, small in zip(line[1:], lookers, maps, strict=False):
            _image(axis, image, faint=True)
            heat = (small[row] / small[row].max().clamp(min=1e-12)).numpy()
            side = image.shape[0]
            axis.imshow(
                heat, cmap="inferno", vmin=0, vmax=1, alpha=0.55, interpolation="bilinear",
                extent=(-0.5, side - 0.5, side - 0.5, -0.5),
            )  # fmt: skip
            guess = one.logits[int(shown[row])].softmax(0)
            best = int(guess.argmax())
            mark, ink = ("✓", LINES) if best == true else ("✗", COLOURS[1])
            told = f"{mark} {plain(classes[best])} {float(guess[best]):.0%}"
            axis.set_xlabel(told, fontsize=7, color=ink)
    for axis, title in zip(axes[0], ["image", *(one.label for one in lookers)], strict=True):
        axis.set_title(plain(title).replace(", ", "\n"), fontsize=8)
    return figure


def _image(axis: "Axes", image: Tensor, *, faint: bool) -> None:
    """Pixels, uint8 [H, W, C]; grey under a map."""
    if faint or image.shape[2] == 1:
        axis.imshow(image.float().mean(2).numpy(), cmap="gray", vmin=0, vmax=255)
    else:
        axis.imshow(image.numpy())
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
