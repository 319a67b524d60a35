"""``kdbench compare``: the conclusion that the evidence supports about two methods or two runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from kdbench.errors import UserError
from kdbench.grid.mistakes import unknown
from kdbench.grid.run import Run
from kdbench.report.numbers import interval, signed, with_interval
from kdbench.runs import records, short_ids
from kdbench.runs.data_digests import SHOWN, recorded, way_out
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record
from kdbench.stats import Difference, over_pairs, over_seeds
from kdbench.stats.cell_summary import Summary, row_label, summaries
from kdbench.stats.over_pairs import MeanDifference
from kdbench.wording import counted


class CompareError(UserError):
    """Two methods or runs that cannot be compared, or only with ``--mix``."""


@dataclass(frozen=True)
class Comparison:
    """Two rows, compared seed by seed.

    Attributes:
        method: label of the first row.
        other: label of the second row.
        pairs: pair -> paired difference ``method - other`` in points, for pairs with common seeds.
        lacking: pair -> reason, for pairs without common seeds.
        overall: the mean over ``pairs``.
        tie: largest difference in points that counts as a tie.
        protocols: names of both protocols if they differ.
    """

    method: str
    other: str
    pairs: Mapping[str, Difference]
    lacking: Mapping[str, str]
    overall: MeanDifference
    tie: float
    protocols: tuple[str, str] | None = None


def methods(
    name: str, other: str, evidence: Evidence, second: Evidence | None = None, *, mix: bool = False
) -> Comparison:
    """Compare two rows of a grid, or a row of one grid with a row of another.

    Args:
        name: first row, by label or by terms.
        other: second row, by label or by terms.
        second: evidence that contains ``other``, if not ``evidence``.
        mix: compare even if the protocols differ.

    Raises:
        CompareError: unknown row; the same row twice; different protocols without ``mix``.
        DataChanged: runs on one data set were made of different data.
    """
    second = second or evidence
    labels = (_row(evidence, name), _row(second, other))
    if second is evidence and labels[0] == labels[1]:
        same = f"both are the row {labels[0]}"
        raise CompareError(f"{name}, {other}: {same}; name two different rows")
    protocols = _protocols(evidence, second, mix)
    check_same_data([evidence, second])
    summaries_of_first = summaries(evidence.cells, evidence.records)
    summaries_of_second = summaries(second.cells, second.records)
    pairs, lacking = {}, {}
    for pair, cells in summaries_of_first.items():
        left, right = cells.get(labels[0]), summaries_of_second.get(pair, {}).get(labels[1])
        difference = (
            over_seeds.difference(left.accuracies, right.accuracies) if left and right else None
        )
        if difference and difference.n:
            pairs[pair] = difference
        else:
            lacking[pair] = _why_lacking(left, right, labels)
    overall = over_pairs.mean_difference(list(pairs.values()))
    return Comparison(*labels, pairs, lacking, overall, evidence.grid.report.tie, protocols)


def _row(evidence: Evidence, name: str) -> str:
    label = row_label(evidence.cells, name)
    if label is None or label == "teacher":
        rows = dict.fromkeys(cell.method for cell in evidence.cells if cell.method != "teacher")
        raise CompareError(f"{evidence.grid.source}: {name}: {unknown(name, rows)}")
    return label


def differing(first: Evidence, second: Evidence) -> list[str]:
    """List the differences of two grids' protocols, e.g. ``epochs 240 and 60``.

    Names, sources and settings of single methods or students are not compared.
    """
    ignored = {"name", "source", "methods", "lr_of"}
    left, right = first.grid.protocol, second.grid.protocol
    fields = [key for key in type(left).model_fields if key not in ignored]
    differences = [
        f"{key} {_as_text(getattr(left, key))} and {_as_text(getattr(right, key))}"
        for key in fields
        if getattr(left, key) != getattr(right, key)
    ]
    if first.grid.dataset.canonical != second.grid.dataset.canonical:
        differences.insert(0, f"data {first.grid.dataset.title} and {second.grid.dataset.title}")
    return differences


def check_same_data(grids: Sequence[Evidence]) -> None:
    """Check that the runs of several grids on one data set were made of the same data.

    Raises:
        DataChanged: they were not.
    """
    source = ", ".join(dict.fromkeys(evidence.grid.source for evidence in grids))
    runs = (run for evidence in grids for cell in evidence.cells for run in cell.runs)
    recorded(source, runs, {k: v for evidence in grids for k, v in evidence.records.items()})


def _as_text(value: object) -> str:
    return str(value.canonical if hasattr(value, "canonical") else value)


def _protocols(first: Evidence, second: Evidence, mix: bool) -> tuple[str, str] | None:
    differences = differing(first, second)
    if not differences:
        return None
    if not mix:
        raise CompareError(
            f"{first.grid.source}, {second.grid.source}: different protocols "
            f"({'; '.join(differences)}), so accuracies are not comparable; --mix compares them "
            "anyway, with a warning"
        )
    names = first.grid.protocol.name, second.grid.protocol.name
    return names if names[0] != names[1] else (first.grid.name, second.grid.name)


def _why_lacking(left: Summary | None, right: Summary | None, labels: tuple[str, str]) -> str:
    for summary, label in ((left, labels[0]), (right, labels[1])):
        if summary is None:
            return f"{label} is not in the grid for this pair"
        if not summary.n:
            return f"{label} is {summary.status}"
    return "no common seeds"


# --- in words ---


def lines(comparison: Comparison) -> list[str]:
    """Return the conclusion of ``sentence``, then one line per pair."""
    out = [sentence(comparison)]
    for pair, difference in comparison.pairs.items():
        text = with_interval(difference.mean, difference.low, difference.high)
        out.append(f"  {pair}: {text}, {counted(difference.n, 'seed')}")
    out += [f"  {pair}: left out, {reason}" for pair, reason in comparison.lacking.items()]
    if comparison.protocols:
        first, second = comparison.protocols
        out.append(
            f"  ATTENTION: {comparison.method} under {first}, {comparison.other} under {second}: "
            "the difference includes the effect of the protocols"
        )
    return out


def sentence(comparison: Comparison) -> str:
    """State in one line what the evidence supports.

    A method is called better or worse only if the 95 % confidence interval excludes 0.
    """
    method, other, overall = comparison.method, comparison.other, comparison.overall
    if not overall.pairs:
        reasons = "; ".join(dict.fromkeys(comparison.lacking.values())) or "no pairs"
        return f"{method} and {other} cannot be compared: {reasons}"
    over = "" if overall.pairs == 1 else f" on average over {overall.pairs} pairs"
    mean = f"{signed(overall.mean)} points"
    if math.isnan(overall.low):
        where = f" on at least one of {overall.pairs} pairs" if overall.pairs > 1 else ""
        reason = (
            f"only one common seed{where}"
            if overall.seeds < 2
            else "the difference is the same for every seed"
        )
        return f"{method} and {other} cannot be tested: {mean}{over}; no interval: {reason}"
    effect = f"{mean} {interval(overall.low, overall.high)}{over}"
    effect += f", {counted(overall.seeds, 'seed')}"
    least = over_seeds.detectable(overall.se, overall.freedom)
    limit = f"power is below 80 % for true differences under {least:.2f} points"
    if overall.low <= 0 <= overall.high:
        return f"{method} and {other} are not significantly different: {effect}; {limit}"
    direction, opposite = ("better", "worse") if overall.mean > 0 else ("worse", "better")
    means = [d.mean if overall.mean > 0 else -d.mean for d in comparison.pairs.values()]
    won, tied, lost = over_pairs.wins(means, comparison.tie)
    rest = ", ".join(f"{k} {word}" for k, word in ((tied, "tied"), (lost, opposite)) if k)
    pairs = counted(len(comparison.pairs) + len(comparison.lacking), "pair")
    score = f"{won} of {pairs}" + (f" ({rest})" if rest else "")
    return f"{method} is {direction} than {other} on {score}; {effect}; {limit}"


# --- two runs ---


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


def two_runs(runs: Path, name: str, other: str, *, mix: bool = False) -> list[str]:
    """Compare two single runs, which supports no conclusion about their methods.

    Raises:
        CompareError: a run is not done; different data or, without ``mix``, protocols.
        RecordError: a record is damaged.
    """
    (first, first_record), (second, second_record) = (_read(runs, run) for run in (name, other))
    left, right = first_record.result, second_record.result
    assert left and right
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
    gap = left.test_acc - right.test_acc
    # As if independent: on the same images the standard error of the difference is smaller, but
    # records do not say by how much.
    error = max(over_seeds.standard_error(r.test_acc, r.n_test) for r in (left, right))
    out = [
        f"{first.method} ({first.title}): {left.test_acc:.2f}; "
        f"{second.method} ({second.title}): {right.test_acc:.2f}; {signed(gap)} points",
        "  one run each: an effect of the method cannot be distinguished from chance; the test set "
        f"alone gives each accuracy a standard error of up to {error:.2f} points",
    ]
    if first.seed != second.seed:
        out.append("  different seeds: data order and initial weights differ")
    if differences:
        out.append(f"  ATTENTION: different protocols: {'; '.join(differences)}")
    return out


def _read(runs: Path, name: str) -> tuple[Run, Record]:
    path = _named(runs, name)
    run = records.read_run(path.parent, path.name)
    record = records.read(path.parent, path.name)
    if record is None or record.result is None or record.status != "done":
        raise CompareError(f"{name}: no result: {record.status if record else 'no record yet'}")
    return run, record


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
