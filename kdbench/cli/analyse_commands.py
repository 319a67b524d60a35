"""``kdbench analyse``: the papers' analyses beyond accuracy, from saved checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.options import (
    Group,
    Option,
    combined,
    data_option,
    folder_options,
    grid_option,
    set_option,
)
from kdbench.cli.printing import display, say

if TYPE_CHECKING:
    from kdbench.analyses.finding import Finding
    from kdbench.analyses.loading import Library
    from kdbench.analyses.trained_run import TrainedRun


@click.group(cls=Group)
def analyse() -> None:
    """Analyse trained runs: attention, mismatch, Grad-CAM, t-SNE, fidelity, correlation.

    Each command takes run ids or their first characters, or --grid for the grid's runs of one
    seed. It writes a PNG, an SVG and a CSV into results/analyses/NAME.
    """


@dataclass(frozen=True)
class AnalysisRequest:
    """The trained runs to analyse, and the folders to use.

    Attributes:
        ids: ids of runs, or their first characters.
        path: file of a grid, to add all its students of one seed.
        overrides: KEY=VALUE for that grid.
        pair: the only pair of that grid to use; None for all.
        seed: the seed of that grid; None for the default.
        device: auto, cpu, cuda or cuda:N.
    """

    ids: tuple[str, ...]
    path: Path | None
    overrides: tuple[str, ...]
    pair: str | None
    seed: int | None
    device: str
    runs: Path
    results: Path
    data: Path

    def library(self) -> "Library":
        """Return a loader of these runs' networks and data."""
        from kdbench.analyses.loading import Library
        from kdbench.execution.devices import choose_device

        return Library(self.runs, self.data, choose_device(self.device, key="--device"))

    def trained_runs(self) -> "list[TrainedRun]":
        """Load the runs."""
        return self.library().trained_runs(self.run_ids())

    def show(self, finding: "Finding", out: Path | None) -> None:
        """Print an analysis and write its files to ``out`` or the default folder."""
        display(finding.render())
        say(f"{finding.write(out or self.results / 'analyses' / finding.name)}")

    def run_ids(self, *, every_seed: bool = False) -> list[str]:
        """Return the given ids and those of the grid's finished students, in the grid's order.

        Args:
            every_seed: without ``seed``, use all seeds of the grid rather than its first.

        Raises:
            UserError: there are no runs, or the pair is unknown.
        """
        from kdbench.errors import UserError
        from kdbench.grid.expand import expand
        from kdbench.grid.parsing import load
        from kdbench.runs import records

        ids, path, pair, seed = self.ids, self.path, self.pair, self.seed
        if path is None:
            if not ids or self.overrides or pair or seed is not None:
                raise UserError("give run ids or --grid; --set, --pair and --seed need --grid")
            return list(ids)
        grid = load(path, self.overrides)
        cells = [cell for cell in expand(grid).cells if cell.method != "teacher"]
        pairs = {cell.pair for cell in cells}
        if pair is not None:
            wanted = " -> ".join(part.strip() for part in pair.split("->"))
            if wanted not in pairs:
                accepted = ", ".join(sorted(pairs))
                raise UserError(f"--pair {pair}: not in {path}; accepted: {accepted}")
            cells = [cell for cell in cells if cell.pair == wanted]
        seeds = (grid.seeds if every_seed else grid.seeds[:1]) if seed is None else (seed,)
        candidates = [run.id for cell in cells for run in cell.runs if run.seed in seeds]
        loaded = records.load(self.runs, candidates)
        done = [run for run in candidates if run in loaded and loaded[run].status == "done"]
        if not done and not ids:
            names = " or ".join(map(str, seeds))
            raise UserError(f"{path}: no run of seed {names} is done; kdbench status --grid {path}")
        return list(dict.fromkeys([*ids, *done]))


analysis_options = combined(
    folder_options,
    data_option,
    click.argument("ids", metavar="[RUN]...", nargs=-1),
    grid_option(help="Analyse the students of this grid."),
    set_option("Replace a value of --grid; repeatable."),
    click.option("--pair", metavar="'TEACHER -> STUDENT'", help="Restrict --grid to one pair."),
    click.option(
        "--seed",
        type=click.IntRange(0),
        help="Seed to analyse (default: the grid's first; transfer: all).",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
)
"""Folders, RUN..., --grid and its options, for commands that analyse trained runs."""


def out_option(name: str) -> Option:
    """Return --out, the folder that the analysis ``name`` is written to."""
    return click.option(
        "--out", type=click.Path(file_okay=False, path_type=Path),
        help=f"Folder to write to (default: results/analyses/{name}).",
    )  # fmt: skip


@analyse.command()
@analysis_options
@out_option("attention")
def attention(out: Path | None, **flags: Any) -> None:
    """Show how much each student stage learns from each teacher stage (SemCKD)."""
    from kdbench.analyses.attention import analyse

    request = AnalysisRequest(**flags)
    request.show(analyse(request.trained_runs(), request.runs), out)


@analyse.command()
@analysis_options
@out_option("mismatch")
@click.option(
    "--batches", type=click.IntRange(1), help="Largest number of batches (default: a whole epoch)."
)
def mismatch(out: Path | None, batches: int | None, **flags: Any) -> None:
    """Measure how differently the stages that a method ties together compare images."""
    from kdbench.analyses.mismatch import analyse

    request = AnalysisRequest(**flags)
    request.show(analyse(request.trained_runs(), batches), out)


@analyse.command()
@analysis_options
@out_option("gradcam")
@click.option(
    "--images", type=click.IntRange(1, 40), default=6, show_default=True, help="Images to draw."
)
@click.option(
    "--stage", default=-1, show_default=True, help="Stage of each network; -1 is the last."
)
def gradcam(out: Path | None, images: int, stage: int, **flags: Any) -> None:
    """Show which image regions support the true class, for teacher and students."""
    from kdbench.analyses.gradcam import analyse

    request = AnalysisRequest(**flags)
    request.show(analyse(request.trained_runs(), images, stage), out)


@analyse.command()
@analysis_options
@out_option("tsne")
@click.option(
    "--classes",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="Number of classes, from the first.",
)
@click.option(
    "--images",
    type=click.IntRange(4),
    default=1000,
    show_default=True,
    help="Number of images, over all classes.",
)
def tsne(out: Path | None, classes: int, images: int, **flags: Any) -> None:
    """Plot embeddings of test images in two dimensions."""
    from kdbench.analyses.tsne import analyse

    request = AnalysisRequest(**flags)
    request.show(analyse(request.trained_runs(), classes, images), out)


@analyse.command()
@analysis_options
@out_option("fidelity")
def fidelity(out: Path | None, **flags: Any) -> None:
    """Measure how often students predict their teacher's class, and KL between them."""
    from kdbench.analyses.fidelity import analyse

    request = AnalysisRequest(**flags)
    request.show(analyse(request.trained_runs()), out)


@analyse.command()
@analysis_options
@out_option("correlation")
def correlation(out: Path | None, **flags: Any) -> None:
    """Compare class-logit correlations: teacher minus student."""
    from kdbench.analyses.correlation import analyse

    request = AnalysisRequest(**flags)
    request.show(analyse(request.trained_runs()), out)
