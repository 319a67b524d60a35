"""Placement of the points' names, so that none covers another name or a point."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    inside: Box,
    radius: float = 4.0,
    lines: Sequence[Box] = (),
) -> list[tuple[float, float]]:
    """Find the lower left corner of each point's name, greedily, the most crowded point first.

    Each name tries the same places around its point, and takes the one that covers least of the
    names placed before, of all points and of the area outside. Nearer places are preferred.

    Args:
        points: [N], in any unit of length.
        sizes: [N], width and height of the names, in that unit.
        inside: the area for names.
        radius: of a point's marker.
        lines: boxes that names avoid if possible.
    """
    import numpy as np

    if not points:
        return []
    at, size = np.asarray(points, float), np.asarray(sizes, float)
    far = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    near = np.sort(far, axis=1)[:, 1:6].sum(axis=1) if len(at) > 1 else np.zeros(1)
    marks = np.hstack([at - radius, at + radius])
    drawn = np.asarray(lines, float).reshape(-1, 4)
    taken = np.empty((0, 4))
    corners = np.zeros_like(at)
    # Stable, so that equally crowded points keep their order.
    for i in np.argsort(near, kind="stable"):
        boxes, distance = _candidates(at[i], size[i], radius)
        outside = np.maximum(0, np.array(inside[:2]) - boxes[:, :2])
        outside = np.hstack([outside, np.maximum(0, boxes[:, 2:] - np.array(inside[2:]))])
        cost = (
            100 * _overlap(boxes, taken)
            + 4 * _overlap(boxes, marks)
            + _overlap(boxes, drawn)
            + 100 * size[i, 1] * outside.sum(axis=1)
            + 0.5 * size[i, 1] * distance
        )
        best = boxes[int(np.argmin(cost))]
        taken = np.vstack([taken, best])
        corners[i] = best[:2]
    return [(float(x), float(y)) for x, y in corners]


def _candidates(at: "Array", size: "Array", radius: float) -> tuple["Array", "Array"]:
    """Return boxes around a point, [K, 4], and their distances from it, [K]."""
    import numpy as np

    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    steps = np.arange(6) * size[1] * 0.9
    angle, step = (part.ravel() for part in np.meshgrid(angles, steps))
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # The name's nearest edge touches a circle around the point.
    centre = (
        at + direction * (radius + 1 + step[:, None]) + np.sign(np.round(direction, 6)) * size / 2
    )
    return np.hstack([centre - size / 2, centre + size / 2]), step


def _overlap(boxes: "Array", others: "Array") -> "Array":
    """Return the area that each box shares with the others, [K, 4] and [M, 4] -> [K]."""
    import numpy as np

    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
