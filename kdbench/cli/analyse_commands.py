"""``kdbench analyse``: what the papers look at beside accuracy, from runs' checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.options import (
    Function,
    Group,
    display,
    folders,
    gathered,
    grid_option,
    of_data,
    set_option,
)

if TYPE_CHECKING:
    from kdbench.analyses.finding import Finding
    from kdbench.analyses.loading import Library
    from kdbench.analyses.trained_run import TrainedRun


@click.group(cls=Group)
def analyse() -> None:
    """Attention, mismatch, Grad-CAM, t-SNE, fidelity, correlation of trained runs.

    Each takes ids of runs (or how they start), or --grid: then its runs of one seed, and writes
    a PNG, an SVG and a CSV into results/analyses/NAME.
    """


@dataclass(frozen=True)
class AnalysisRequest:
    """Trained runs, and where things lie.

    Attributes:
        ids: of runs, or how they start. path: of a grid, all whose students of one seed are meant.
        overrides, pair, seed: of that grid.
        device: as told. runs, results, data: folders.
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
        """Loads the runs."""
        from kdbench.analyses.loading import Library
        from kdbench.execution.worker import choose_device

        return Library(self.runs, self.data, choose_device(self.device))

    def run_ids(self, *, every: bool = False) -> list[str]:
        """The ids given, and those of a grid's students that are done, in the grid's order.

        Args:
            every: all seeds of the grid, unless one is asked for; else its first.

        Raises:
            UserError: none; an unknown pair.
        """
        from kdbench.errors import UserError
        from kdbench.grid.expand import expand
        from kdbench.grid.parsing import load
        from kdbench.runs import records

        ids, path, pair, seed = self.ids, self.path, self.pair, self.seed
        if path is None:
            if not ids or self.overrides or pair or seed is not None:
                raise UserError(
                    "give ids of runs, or --grid; --set, --pair and --seed belong to it"
                )
            return list(ids)
        grid = load(path, self.overrides)
        cells = [cell for cell in expand(grid).cells if cell.method != "teacher"]
        named = {f"{cell.teacher} -> {cell.student}" for cell in cells}
        if pair is not None:
            wanted = " -> ".join(part.strip() for part in pair.split("->"))
            if wanted not in named:
                told = ", ".join(sorted(named))
                raise UserError(f"--pair {pair}: not in {path}; accepted: {told}")
            cells = [cell for cell in cells if f"{cell.teacher} -> {cell.student}" == wanted]
        asked = (grid.seeds if every else grid.seeds[:1]) if seed is None else (seed,)
        mine = [run.id for cell in cells for run in cell.runs if run.seed in asked]
        done = records.load(self.runs, mine)
        found = [one for one in mine if one in done and done[one].status == "done"]
        if not found and not ids:
            told = " or ".join(map(str, asked))
            raise UserError(f"{path}: no run of seed {told} is done; kdbench status --grid {path}")
        return list(dict.fromkeys([*ids, *found]))


of_runs = gathered(
    AnalysisRequest,
    folders,
    of_data,
    click.argument("ids", metavar="[RUN]...", nargs=-1),
    grid_option(help="All its runs of one seed."),
    set_option("Of --grid."),
    click.option("--pair", metavar="'TEACHER -> STUDENT'", help="Of --grid: one pair."),
    click.option("--seed", type=click.IntRange(0), help="Of --grid: which; default: its first."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
)
"""RUN..., --grid and where things lie, of every command about trained runs."""


def _command(name: str) -> Callable[[Function], click.Command]:
    """A command that is given ``subjects`` and its own options, and gives a finding."""

    def made(function: Function) -> click.Command:
        def callback(chosen: AnalysisRequest, out: Path | None, **own: Any) -> None:
            subjects = chosen.library().subjects(chosen.run_ids())
            finding = function(subjects, chosen.runs, **own)
            display(finding.rendered())
            click.echo(f"{finding.write(out or chosen.results / 'analyses' / name)}")

        callback.__doc__ = function.__doc__
        callback.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        where = click.option(
            "--out", type=click.Path(file_okay=False, path_type=Path),
            help=f"Folder to write to; default: results/analyses/{name}.",
        )  # fmt: skip
        return analyse.command(name)(of_runs(where(callback)))

    return made


@_command("attention")
def attention(subjects: "Sequence[TrainedRun]", runs: Path) -> "Finding":
    """How much each student stage learns from each teacher stage (SemCKD)."""
    from kdbench.analyses.attention import analyse

    return analyse(subjects, runs)


@_command("mismatch")
@click.option("--batches", "most", type=click.IntRange(1), help="At most; default: an epoch's.")
def mismatch(subjects: "Sequence[TrainedRun]", runs: Path, most: int | None) -> "Finding":
    """How differently the stages that a method ties together see a batch."""
    from kdbench.analyses.mismatch import analyse

    return analyse(subjects, most)


@_command("gradcam")
@click.option("--images", type=click.IntRange(1, 40), default=6, show_default=True)
@click.option("--stage", default=-1, show_default=True, help="Of each network; -1: the last.")
def gradcam(subjects: "Sequence[TrainedRun]", runs: Path, images: int, stage: int) -> "Finding":
    """Where in an image teacher and students look for the true class."""
    from kdbench.analyses.gradcam import analyse

    return analyse(subjects, images, stage)


@_command("tsne")
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="The first.")
@click.option("--images", type=click.IntRange(4), default=1000, show_default=True, help="In all.")
def tsne(subjects: "Sequence[TrainedRun]", runs: Path, classes: int, images: int) -> "Finding":
    """Embeddings of test images in the plane."""
    from kdbench.analyses.tsne import analyse

    return analyse(subjects, classes, images)


@_command("fidelity")
def fidelity(subjects: "Sequence[TrainedRun]", runs: Path) -> "Finding":
    """How often students do as their teacher does, and KL between them."""
    from kdbench.analyses.fidelity import analyse

    return analyse(subjects)


@_command("correlation")
def correlation(subjects: "Sequence[TrainedRun]", runs: Path) -> "Finding":
    """Class-logit correlations, teacher minus student."""
    from kdbench.analyses.correlation import analyse

    return analyse(subjects)
