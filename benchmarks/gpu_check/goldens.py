"""Every golden case on the device in float64, compared with the reference's values."""

from pathlib import Path

import torch

from benchmarks.gpu_check.check import Check

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
BOUNDS = {"models": 1e-9, "hkd": 1e-6, "kdsvd": 1e-6}
"""Folder -> largest difference relative to a tensor's largest value; ten times the CPU's bounds."""
BOUND = 1e-7
SLOW = ("ResNet50", "ShuffleV1", "ShuffleV2", "MobileNetV2", "resnet32x4", "resnet56")
"""Networks that a small check leaves out."""


def run(check: Check) -> None:
    """Compare all cases, methods first, and write the worst difference of each folder."""
    folders: dict[str, list[Path]] = {}
    for path in cases(check.sizes.golden):
        folders.setdefault(path.parent.name, []).append(path)
    overall, tensors, done = 0.0, 0, 0
    for folder in sorted(folders, key=lambda name: (name == "models", name)):
        worst = Worst(0, 0.0, "")
        for path in folders[folder]:
            if not check.has_time(f"{folder}/{path.stem}"):
                break
            worst = worst + compared(path, check.device)
            done += 1
        bound = BOUNDS.get(folder, BOUND)
        check.expect(
            worst.relative <= bound,
            f"golden cases of {folder}",
            worst=worst.relative,
            where=worst.where,
            bound=bound,
            tensors=worst.tensors,
        )
        overall, tensors = max(overall, worst.relative), tensors + worst.tensors
    check.outcome.headline = f"{done} cases, {tensors} tensors, worst difference {overall:.1e}"


class Worst:
    """The worst difference so far; NaN counts as infinite.

    Attributes:
        tensors: number of tensors that were compared.
        relative: largest difference, relative to the largest value of its tensor.
        where: case and tensor of it.
    """

    def __init__(self, tensors: int, relative: float, where: str) -> None:
        self.tensors, self.where = tensors, where
        self.relative = relative if relative == relative else float("inf")

    def __add__(self, other: "Worst") -> "Worst":
        """Return the worst of both."""
        worse = max(self, other, key=lambda x: x.relative)
        return Worst(self.tensors + other.tensors, worse.relative, worse.where)


def cases(of_each: int = 0) -> list[Path]:
    """Return the files of the golden cases; ``of_each`` folder only so many, if not 0."""
    found = []
    for folder in sorted(GOLDEN.iterdir()):
        files = sorted(folder.glob("*.npz"))
        if of_each:
            files = [path for path in files if path.stem not in SLOW][:of_each]
        found += files
    return found


def compared(path: Path, device: torch.device) -> Worst:
    """Return the worst difference of one case on a device."""
    # These modules are in tests/support, which is no package.
    import golden_check
    import golden_files
    import golden_models

    worst = Worst(0, 0.0, "")
    if path.parent.name == "models":
        for name, off in golden_models.differences(path, device).items():
            worst = worst + Worst(1, off, f"{path.stem}: {name}")
        return worst
    for difference in golden_check.differences(golden_files.read_case(path, device)):
        relative = float("inf") if difference.problem else difference.relative()
        worst = worst + Worst(1, relative, f"{path.parent.name}/{path.stem}: {difference}")
    return worst
