"""``kdbench compare`` of two single runs, which supports no conclusion about their methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from kdbench.grid.run import Run
from kdbench.report.compare import CompareError
from kdbench.report.numbers import signed
from kdbench.runs import records, short_ids
from kdbench.runs.data_digests import SHOWN, way_out
from kdbench.runs.records import Result
from kdbench.stats import over_seeds


def _folder(runs: Path, name: str) -> Path | None:
    for path in (Path(name), records.folder(runs, name)):
        if (path / "run.json").is_file():
            return path
    return None


def _named(runs: Path, name: str) -> Path:
    """Return the folder of the run that a user names: a path, an id or the start of one.

    Raises:
        UserError: there is no such run, or there are several.
    """
    path = _folder(runs, name)
    if path is None and name and runs.is_dir() and any(runs.glob(f"{escape(name)}*/run.json")):
        path = runs / short_ids.complete(runs, name)
    if path is None:
        raise CompareError(
            f"{name}: not a run; expected a folder with run.json, or the start of an id in {runs}; "
            "to compare the rows of a grid, add --grid or --from"
        )
    return path


@dataclass(frozen=True)
class TwoRuns:
    """Two single runs, compared.

    Attributes:
        first: a run.
        second: another run.
        results: their results.
        differences: differences of their data, student and training.
    """

    first: Run
    second: Run
    results: tuple[Result, Result]
    differences: tuple[str, ...]

    @property
    def gap(self) -> float:
        """Test accuracy of the first minus that of the second, in points."""
        return self.results[0].test_acc - self.results[1].test_acc

    @property
    def error(self) -> float:
        """The larger of both accuracies' standard errors from the size of the test set."""
        # As if independent: on the same images the standard error of the difference is smaller,
        # but records do not say by how much.
        return max(over_seeds.standard_error(r.test_acc, r.n_test) for r in self.results)


def two_runs(runs: Path, name: str, other: str, *, mix: bool = False) -> TwoRuns:
    """Compare two single runs.

    Args:
        runs: folder of runs.
        name: first run: an id, the start of one, or a folder.
        other: second run, likewise.
        mix: compare even if the protocols differ.

    Raises:
        CompareError: a run is not done; different data or, without ``mix``, protocols.
        RecordError: a record is damaged.
    """
    (first, left), (second, right) = (_read(runs, run) for run in (name, other))
    if left.data != right.data:
        same = first.dataset.canonical == second.dataset.canonical
        raise CompareError(
            f"{first.id}, {second.id}: measured on different data (digests "
            f"{left.data[:SHOWN]} and {right.data[:SHOWN]})"
            + (f"; {way_out(second.dataset)}" if same else "")
        )
    differences = _differing_settings(first, second)
    if differences and not mix:
        raise CompareError(
            f"{first.id}, {second.id}: different protocols ({'; '.join(differences)}), so "
            "accuracies are not comparable; --mix compares them anyway, with a warning"
        )
    return TwoRuns(first, second, (left, right), tuple(differences))


def lines(both: TwoRuns) -> list[str]:
    """Return both accuracies, and why they support no conclusion."""
    shown = [
        f"{run.method} ({run.title}): {result.test_acc:.2f}"
        for run, result in zip((both.first, both.second), both.results, strict=True)
    ]
    out = [
        f"{'; '.join(shown)}; {signed(both.gap)} points",
        "  one run each: an effect of the method cannot be distinguished from chance; the test set "
        f"alone gives each accuracy a standard error of up to {both.error:.2f} points",
    ]
    if both.first.seed != both.second.seed:
        out.append("  different seeds: data order and initial weights differ")
    if both.differences:
        out.append(f"  ATTENTION: different protocols: {'; '.join(both.differences)}")
    return out


def as_json(both: TwoRuns) -> dict[str, Any]:
    """Return the same as plain values."""
    a, b = (
        {
            "id": run.id,
            "method": run.method,
            "teacher": run.teacher.arch if run.teacher else None,
            "student": run.student,
            "seed": run.seed,
            "test_acc": result.test_acc,
            "val_acc": result.val_acc,
            "standard_error": over_seeds.standard_error(result.test_acc, result.n_test),
        }
        for run, result in zip((both.first, both.second), both.results, strict=True)
    )
    return {
        "a": a,
        "b": b,
        "diff": both.gap,
        "differences": both.differences,
        "remarks": [line.strip() for line in lines(both)[1:]],
    }


def _read(runs: Path, name: str) -> tuple[Run, Result]:
    path = _named(runs, name)
    run = records.read_run(path.parent, path.name)
    record = records.read(path.parent, path.name)
    if record is None or record.result is None or record.status != "done":
        raise CompareError(f"{name}: no result: {record.status if record else 'no record yet'}")
    return run, record.result


def _differing_settings(first: Run, second: Run) -> list[str]:
    """List differences of two runs' data, student and training, apart from the method."""
    differences = [
        f"{key} {left} and {right}"
        for key, left, right in _joined(first.training.canonical, second.training.canonical)
        if left != right
    ]
    if first.student != second.student:
        differences.insert(0, f"student {first.student} and {second.student}")
    if first.dataset.canonical != second.dataset.canonical:
        differences.insert(0, f"data {first.dataset.title} and {second.dataset.title}")
    return differences


def _joined(
    left: Mapping[str, object], right: Mapping[str, object]
) -> Sequence[tuple[str, object, object]]:
    return [(key, left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])]
