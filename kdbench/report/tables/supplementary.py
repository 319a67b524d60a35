"""Supplementary tables: costs, the best epoch, the weights of each objective."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kdbench.grid.run import Cell, Run
from kdbench.report.numbers import number
from kdbench.report.tables.table import Table, rows_of, wide
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd


def costs(frame: "pd.DataFrame", baseline: str | None) -> Table:
    """Tabulate the costs of training and deploying each row."""
    import pandas as pd

    # A teacher is trained once, for all its students.
    repeated = (frame["method"] == "teacher") & frame["runs"].duplicated()
    rows = frame[frame["seconds"].notna() & ~repeated]
    columns: dict[str, list[str]] = {
        "Method": rows["method"].tolist(),
        "Pair": rows["pair"].tolist(),
        f"Time / {baseline or 'baseline'}": [number(v, 2) for v in rows["time_ratio"]],
        "Seconds": [
            number(a + b, 1) for a, b in zip(rows["seconds"], rows["teacher_seconds"], strict=True)
        ],
        "Step, ms": [number(v, 2) for v in rows["step_ms"]],
        "Extra parameters in training": [number(v, 0) for v in rows["params_extra"]],
        "Parameters deployed": [number(v, 0) for v in rows["params_deployed"]],
        "Peak MB": [number(v, 0) for v in rows["peak_mb"]],
    }
    table = pd.DataFrame(columns)
    notes = (
        "Time and seconds: training and evaluation, including the whole teacher forward, as if "
        "each run had been trained alone; mean over seeds. Step: without the teacher. Peak: of the "
        "process, which is shared by runs trained together; maximum over seeds.",
    )
    return Table("Cost", table, notes=notes)


def best_epoch(frame: "pd.DataFrame") -> Table:
    """Tabulate the accuracy of the best epoch, which is not a result."""
    columns = ["method", "pair", "best_mean"]
    texts = {key: number(row.best_mean, 2) for key, row in rows_of(frame[columns])}
    title = "Best epoch (selected on the test set; not the headline)"
    note = (
        "Highest test accuracy of any epoch, mean over seeds: biased upwards by selection on the "
        "test set; only for comparison with papers that report it."
    )
    return Table(title, wide(frame, texts), notes=(note,))


def objectives(cells: Iterable[Cell]) -> Table:
    """Tabulate the weights of each row's objective; those that differ between pairs, for each."""
    import pandas as pd

    trained = [cell for cell in cells if cell.runs]
    pairs: dict[str, dict[tuple[str, ...], dict[str, None]]] = {}
    for cell in trained:
        objective = _objective(cell.runs[0])
        pairs.setdefault(cell.method, {}).setdefault(objective, {})[cell.pair] = None
    rows = [
        [method if len(pairs[method]) == 1 else f"{method} ({', '.join(on)})", *objective]
        for method in reversed(dict.fromkeys(cell.method for cell in reversed(trained)))
        for objective, on in pairs[method].items()
    ]
    columns = ["Method", "gamma (CE)", "alpha (T²·KL)", "T", "beta · term"]
    return Table("Objectives", pd.DataFrame(rows, columns=columns))


def _objective(run: Run) -> tuple[str, ...]:
    """Describe a run's objective: gamma, alpha, T, and terms with the pretraining phase."""
    weights = [f"{run.gamma:g}"]
    weights += [f"{run.alpha:g}", f"{run.temperature:g}"] if run.alpha else ["0", "–"]
    terms = []
    for term in run.terms:
        hyper = ", ".join(f"{key}={value}" for key, value in sorted(term.hyper.items()))
        terms.append(f"{term.beta:g} · {term.method}" + (f"({hyper})" if hyper else ""))
    phase = (
        f"; pretraining phase: {counted(run.pretrain[0], 'epoch')} at {run.pretrain[1]:g}"
        if run.pretrain
        else ""
    )
    return (*weights, " + ".join(terms) + phase)
