"""A synthetic large grid with every possible status of a run, and its page, for tests."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_grids import ended, make_cells, make_grid, make_record

from kdbench.grid.grid import Grid, Report
from kdbench.grid.run import Cell, Run
from kdbench.grid.settings import Protocol
from kdbench.report.page import html as page
from kdbench.runs.evidence import Evidence, History
from kdbench.runs.records import Record
from kdbench.stats.aggregate import aggregate

METHODS = (
    "kd", "fitnets", "at", "sp", "vid", "semckd", "cc", "rkd", "pkt", "ab", "fsp", "nst", "crd",
    "dkd", "reviewkd",
)  # fmt: skip
PAIRS = (
    ("resnet32x4", "resnet8x4"), ("resnet56", "resnet20"), ("resnet110", "resnet32"),
    ("wrn_40_2", "wrn_16_2"), ("wrn_40_2", "wrn_40_1"), ("vgg13", "vgg8"),
    ("resnet110", "resnet20"), ("vgg13", "MobileNetV2"), ("ResNet50", "MobileNetV2"),
    ("ResNet50", "vgg8"), ("resnet32x4", "ShuffleV1"), ("resnet32x4", "ShuffleV2"),
    ("wrn_40_2", "ShuffleV1"),
)  # fmt: skip
EPOCHS = 240


def evidence(
    methods: Sequence[str] = METHODS,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    only_finished: bool = False,
    **changes: Any,
) -> Evidence:
    """Make a grid with finished, failed and missing runs, or only with finished runs."""
    values: dict[str, Any] = {
        "title": "Fifteen methods on thirteen pairs",
        "protocol": Protocol(name="crd", epochs=EPOCHS),
        "report": Report(ari_of="semckd", supports="nothing, its numbers are made up"),
    }
    grid = make_grid(pairs, seeds, **values | changes)
    cells = make_cells(grid, methods)
    records = {run.id: make_record(run, accuracy(run)) for cell in cells for run in cell.runs}
    if not only_finished:
        _add_failures(cells, records)
    return Evidence(grid, cells, records, curve(grid, cells))


def accuracy(run: Run) -> float:
    """Return a deterministic synthetic accuracy: small differences between methods and seeds."""
    name = sum(map(ord, run.method)) % 17
    pair = sum(map(ord, run.student)) % 11
    noise = (int(run.id[:6], 16) % 1000) / 1000 - 0.5
    base = {"teacher": 79.0, "student": 70.0, "semckd": 76.0}.get(run.method, 73.0 + name / 8)
    return base - pair / 3 + noise


def curve(grid: Grid, cells: Sequence[Cell]) -> Any:
    """Return synthetic histories by run id, which rise to about ``accuracy``."""
    final = {run.id: accuracy(run) for cell in cells for run in cell.runs}
    epochs = grid.protocol.epochs

    def history(run_id: str) -> History:
        end = final.get(run_id, 50.0)
        return [
            {"epoch": e, "test_acc": end * (1 - math.exp(-6 * e / epochs)) + math.sin(e) * 2 / e}
            for e in range(1, epochs + 1)
        ]

    return history


def _add_failures(cells: Sequence[Cell], records: dict[str, Record]) -> None:
    """Replace and delete records so that every status and incomplete cells occur."""
    for cell in cells:
        if cell.method == "fsp":
            for run in cell.runs:
                records[run.id] = ended(run, "skipped", "FSP needs equal channels")
        if cell.method == "nst" and cell.student.startswith("Shuffle"):
            for run in cell.runs:
                records[run.id] = ended(run, "failed", "OutOfMemoryError: 64 GiB are not there")
        if cell.method == "crd" and cell.student == "vgg8":
            run = cell.runs[0]
            records[run.id] = ended(run, "diverged", "loss is nan in epoch 3")
        if cell.method == "dkd" and cell.teacher == "ResNet50":
            for run in cell.runs:
                records[run.id] = ended(run, "diverged", "loss is nan in epoch 1")
        if cell.method == "reviewkd":
            for run in cell.runs[3:] if cell.student.startswith("resnet") else cell.runs:
                del records[run.id]


def html(evidence: Evidence, **more: Any) -> str:
    """Render the page of a grid."""
    return page.render(aggregate(evidence), **more)


def write(folder: Path, evidence: Evidence, **more: Any) -> Path:
    """Write a grid's page and CSV, and the index of all grids; return the path of the page."""
    statistics = aggregate(evidence)
    target = folder / evidence.grid.name
    target.mkdir(parents=True, exist_ok=True)
    statistics.frame.to_csv(target / "leaderboard.csv", index=False)
    path = target / "index.html"
    path.write_text(page.render(statistics, **more), encoding="utf-8")
    (folder / "index.html").write_text(page.index(folder), encoding="utf-8")
    return path
