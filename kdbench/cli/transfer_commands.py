"""``kdbench transfer``: frozen students on other data, compared in a table."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.analyse_commands import AnalysisRequest, analysis_options
from kdbench.cli.printing import display, say

if TYPE_CHECKING:
    from kdbench.analyses.finding import Finding
    from kdbench.analyses.transfer import TransferResult
    from kdbench.grid.run import Run
    from kdbench.grid.settings import Dataset, Training


@click.command()
@analysis_options
@click.option("--dataset", required=True, help="Data set: a name, or {name: ..., key: value}.")
@click.option(
    "--protocol", default="{}", metavar="YAML", help="Change the recipe, e.g. {epochs: 30}."
)
@click.option(
    "--adapt", is_flag=True, help="Keep batch norm in train mode, as in the SemCKD authors' code."
)
def transfer(dataset: str, protocol: str, adapt: bool, **flags: Any) -> None:
    """Compare frozen students by a linear classifier trained on other data.

    With --grid, all its seeds are used unless --seed gives one. Results are stored in
    runs/ID/transfer and reused.
    """
    from kdbench.analyses import transfer as engine

    request = AnalysisRequest(**flags)
    library = request.library()
    training = _training(protocol)
    results = []
    for run in library.finished(request.run_ids(every_seed=True)):
        # The network expects images of the size that it was trained on.
        size = run.dataset.size or library.data(run.dataset).size
        settings = engine.Transfer(
            _dataset(dataset, size), training, "adapt" if adapt else "frozen"
        )
        result = engine.run(library, run, settings)
        say(f"{run.title}, {run.method}: {result.test_acc:.2f} % on {settings.dataset.title}")
        results.append((run, result))
    keys = "\n".join(sorted({str(result.transfer) for _, result in results}))
    name = f"{_dataset(dataset, 1).name}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}"
    finding = _finding(results, _dataset(dataset, None).title)
    display(finding.render())
    say(f"{finding.write(request.results / 'transfer' / name)}")


def _dataset(text: str, size: int | None) -> "Dataset":
    """Parse --dataset; ``size`` is the default of its image size.

    Raises:
        GridError: the mistakes in it, one per line.
    """
    from kdbench.grid.grid import GridError
    from kdbench.grid.mistakes import validated
    from kdbench.grid.settings import Dataset
    from kdbench.grid.yaml_tree import parse_yaml

    errors: list[str] = []
    parsed = parse_yaml(text, f"--dataset {text}")
    values = parsed if isinstance(parsed, dict) else {"name": parsed}
    if size is not None:
        values = {"size": size} | values
    dataset = validated(Dataset, values, "--dataset", errors)
    if dataset is None:
        raise GridError(errors)
    return dataset


def _training(text: str) -> "Training":
    """Apply the changes in --protocol to the default recipe.

    Raises:
        GridError: the mistakes in it, one per line.
    """
    from kdbench.analyses.transfer import TRAINING
    from kdbench.grid.grid import GridError
    from kdbench.grid.mistakes import validated
    from kdbench.grid.settings import Training
    from kdbench.grid.yaml_tree import merged, parse_yaml

    errors: list[str] = []
    changes = parse_yaml(text, f"--protocol {text}")
    if not isinstance(changes, dict):
        raise GridError([f"--protocol {text}: expected a mapping such as {{epochs: 30}}"])
    values = merged(TRAINING.model_dump(mode="json"), changes)
    training = validated(Training, values, "--protocol", errors)
    if training is None:
        raise GridError(errors)
    return training


def _finding(results: "Sequence[tuple[Run, TransferResult]]", title: str) -> "Finding":
    """Return the finding: a CSV row per run; a table and figure with the mean over seeds."""
    import pandas as pd

    from kdbench.analyses.finding import Finding, dot_plot, new_figure
    from kdbench.analyses.trained_run import labels

    names = labels([run.with_seed(0) for run, _ in results])
    rows = [
        {
            "run": run.id, "label": label, "teacher": run.teacher.arch if run.teacher else "",
            "student": run.student, "method": run.method, "seed": run.seed,
            "test_acc": result.test_acc, "best_acc": result.best_acc,
            "best_epoch": result.best_epoch, "train_acc": result.train_acc,
        }
        for (run, result), label in zip(results, names, strict=True)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    groups = frame.groupby("label", sort=False)["test_acc"]
    best = frame.groupby("label", sort=False)["best_acc"].mean()
    table = pd.DataFrame(
        {
            "method": list(groups.groups), "n": groups.count().tolist(),
            "mean, %": groups.mean().tolist(), "sd": groups.std().tolist(),
            "best epoch, %": best.tolist(),
        }
    )  # fmt: skip
    figure = new_figure(5.5, 0.28 * len(table) + 0.9)
    axis = figure.subplots()
    label = f"test accuracy on {title}, last epoch, %"
    dot_plot(axis, table["method"].tolist(), table["mean, %"].tolist(), label)
    return Finding(
        "transfer",
        f"Frozen students and a linear classifier on {title}",
        "Linear evaluation of students on other data as in SemCKD: Chen et al., AAAI 2021, and "
        "CRD: Tian et al., ICLR 2020 (arXiv:1910.10699)",
        table,
        frame,
        figure,
        ("The headline is the last epoch; the best is chosen on the test set, as in the papers.",),
    )
