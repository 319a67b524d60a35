"""The folder of a leaderboard: whether it can be written, and what writing it would lose."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from kdbench.errors import UserError
from kdbench.files import check_writable
from kdbench.grid.run import Cell, Run, pair_name
from kdbench.runs import archive
from kdbench.runs.archive import ArchiveError
from kdbench.runs.records import Record
from kdbench.wording import counted

INDEX = "index.html"
"""The page over all grids, in the folder of all leaderboards."""
TABLES = ("leaderboard.csv", "mixed.csv")
"""Tables that name their runs, for folders without an archive."""

Loss = Literal["gone", "lacking", "other images"]


class ResultsError(UserError):
    """The folder of a leaderboard cannot be written, or writing it would lose results."""


def check_place(results: Path, name: str) -> None:
    """Create ``results/name``, and check that a leaderboard can be written there.

    Raises:
        ResultsError: it cannot be written, or something else is in its place.
    """
    folder = results / name
    way_out = "give another --results, or the grid another name"
    if name.casefold() == INDEX:
        raise ResultsError(f"{folder}: this name is that of the page over all grids; {way_out}")
    try:
        for place in (results, folder):
            check_writable(place)
        _check_kinds([results / INDEX, folder / INDEX, folder / archive.NAME], folder / "plots")
    except OSError as error:
        raise ResultsError(
            f"{folder}: a leaderboard cannot be written here: {error.strerror}; {way_out}"
        ) from None


def _check_kinds(files: Iterable[Path], plots: Path) -> None:
    wrong = next((path for path in files if path.is_dir()), None)
    if wrong:
        raise ResultsError(f"{wrong}: is a folder, in the place of a file that a report writes")
    if plots.exists() and not plots.is_dir():
        raise ResultsError(f"{plots}: is a file, in the place of the folder of plots")


def check_kept(
    results: Path, name: str, cells: Iterable[Cell], records: Mapping[str, Record] | None
) -> None:
    """Check that a new leaderboard has all results of the one in ``results/name``.

    Each run with a result there must be in the new grid, with a result from the same images.
    Failed runs may be missing. A method's file may have changed: the new runs of its row replace
    the earlier ones.

    Args:
        results: folder of all leaderboards.
        name: folder of this one.
        cells: of the new grid.
        records: of its runs; None before training, when every run may still get a result.

    Raises:
        ResultsError: results would be lost; the message says how to keep or replace them.
    """
    folder = results / name
    runs = {run.id: run for cell in cells for run in cell.runs}
    if (folder / archive.NAME).exists():
        try:
            before = archive.load_runs(folder / archive.NAME)
        except ArchiveError as error:
            raise ResultsError(
                f"{error}; so what a new leaderboard would lose is not known: move it away, or "
                "replace it by --replace"
            ) from None
        _raise_first(folder, _losses(before, runs, records))
        return
    for table in TABLES:
        if (folder / table).exists():
            _raise_first(folder, _losses_of_table(folder / table, runs, records))


def _losses(
    before: Mapping[str, tuple[dict[str, Any], Record]],
    runs: Mapping[str, Run],
    records: Mapping[str, Record] | None,
) -> Iterator[tuple[Loss, str]]:
    """Yield what happens to each lost result, and the name of its run."""
    replaced = {_without_source(run) for run in runs.values()} if _has_plugins(runs) else set()
    for run_id, (values, record) in before.items():
        if record.status == "failed":
            continue
        if run_id not in runs:
            if not replaced or _without_source(Run.from_json(values)) not in replaced:
                yield "gone", _named(values)
        elif records is not None and record.status == "done":
            now = records.get(run_id)
            if now is None or now.status != "done":
                yield "lacking", _named(values)
            elif record.result and now.result and record.result.data != now.result.data:
                yield "other images", _named(values)


def _has_plugins(runs: Mapping[str, Run]) -> bool:
    return any(term.source for run in runs.values() for term in run.terms)


def _without_source(run: Run) -> str:
    """Return what decides a run's result, apart from the content of its methods' files."""
    values = run.canonical
    for term in values.get("terms", ()):
        term.pop("source", None)
    return json.dumps(values, sort_keys=True)


def _named(values: Mapping[str, Any]) -> str:
    teacher, student = values["teacher"], values["student"]
    pair = pair_name(teacher["arch"], student) if teacher else student
    return f"{values['method']}, {pair}, seed {values['seed']}, run {values['id']}"


def _losses_of_table(
    path: Path, runs: Mapping[str, Run], records: Mapping[str, Record] | None
) -> Iterator[tuple[Loss, str]]:
    """Yield what happens to the results of a table without an archive."""
    import pandas as pd

    try:
        table = pd.read_csv(path, usecols=["method", "pair", "n", "status", "runs"], dtype=str)
        rows = [
            (str(row.method), str(row.pair), int(str(row.n)), str(row.runs).split())
            for row in table.fillna("").itertuples()
            if row.status != "imported"
        ]
    except (ValueError, OSError):
        return  # not a table of kdbench
    for method, pair, n, ids in rows:
        gone = next((run_id for run_id in ids if run_id not in runs), None)
        if n and gone:
            yield "gone", f"{method}, {pair}, run {gone}"
        elif records is not None:
            done = [i for i in ids if (record := records.get(i)) and record.status == "done"]
            for _ in range(n - len(done)):
                yield "lacking", f"{method}, {pair}"


def _raise_first(folder: Path, losses: Iterator[tuple[Loss, str]]) -> None:
    """Raise an error that counts the losses of the most important kind and names one of them."""
    found: dict[Loss, list[str]] = {}
    for loss, name in losses:
        found.setdefault(loss, []).append(name)
    for loss, problem, way_out in _MESSAGES:
        if names := found.get(loss):
            raise ResultsError(
                f"{folder}: {problem.format(counted(len(names), 'run'), names[0])}: nothing was "
                f"written there; {way_out}, or replace these results by --replace"
            )


_MESSAGES: Sequence[tuple[Loss, str, str]] = (
    (
        "gone",
        "has the results of {} that this grid does not have (e.g. {})",
        "give this grid another name or --results",
    ),
    (
        "lacking",
        "has the results of {} that have none now (e.g. {})",
        "give the folder that has their records by --runs",
    ),
    (
        "other images",
        "has the results of {} whose records were made of other images (e.g. {})",
        "give this grid another name or --results",
    ),
)
