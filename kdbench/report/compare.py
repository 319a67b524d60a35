"""``kdbench compare``: two methods, or two runs, and the sentence that the evidence supports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.errors import UserError
from kdbench.grid.mistakes import unknown
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record
from kdbench.stats import Difference, over_pairs, over_seeds
from kdbench.stats.cell_summary import Summary, row_label, summaries
from kdbench.stats.over_pairs import MeanDifference


class CompareError(UserError):
    """What cannot be compared, or only if asked for."""


@dataclass(frozen=True)
class Comparison:
    """Two rows, seed by seed.

    Attributes:
        method, other: the rows. pairs: pair -> paired difference ``method - other``, in points; of
            pairs where both have a seed in common.
        lacking: pairs where they have none, and why. overall: the mean over ``pairs``.
        tie: points that count as a tie. protocols: theirs, where they differ.
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
        name, other: rows, by label or by terms. second: where ``other`` is from, if elsewhere.
        mix: compare even under different protocols.

    Raises:
        CompareError: no such row; the same row twice; data or, without ``mix``, protocols differ.
    """
    second = second or evidence
    labels = (_row(evidence, name), _row(second, other))
    if second is evidence and labels[0] == labels[1]:
        raise CompareError(f"{name}, {other}: both are the row {labels[0]}; nothing to compare")
    protocols = _protocols(evidence, second, mix)
    found = summaries(evidence.cells, evidence.records)
    theirs = summaries(second.cells, second.records)
    pairs, lacking = {}, {}
    for pair in found:
        mine, its = found[pair].get(labels[0]), theirs.get(pair, {}).get(labels[1])
        difference = (
            over_seeds.difference(mine.accuracies, its.accuracies) if mine and its else None
        )
        if difference and difference.n:
            pairs[pair] = difference
        else:
            lacking[pair] = _why(mine, its, labels)
    whole = over_pairs.overall(list(pairs.values()))
    return Comparison(*labels, pairs, lacking, whole, evidence.grid.report.tie, protocols)


def _row(evidence: Evidence, name: str) -> str:
    label = row_label(evidence.cells, name)
    if label is None or label == "teacher":
        rows = dict.fromkeys(cell.method for cell in evidence.cells if cell.method != "teacher")
        raise CompareError(f"{evidence.grid.source}: {name}: {unknown(name, rows)}")
    return label


def differing(first: Evidence, second: Evidence) -> list[str]:
    """What of two grids' protocols differs, e.g. ``epochs 240 and 60``; names and notes do not."""
    apart = {"name", "source", "methods", "lr_of"}
    mine, its = first.grid.protocol, second.grid.protocol
    fields = [key for key in type(mine).model_fields if key not in apart]
    told = [
        f"{key} {_plain(getattr(mine, key))} and {_plain(getattr(its, key))}"
        for key in fields
        if getattr(mine, key) != getattr(its, key)
    ]
    if first.grid.dataset.canonical != second.grid.dataset.canonical:
        told.insert(0, f"data {first.grid.dataset.title} and {second.grid.dataset.title}")
    return told


def _plain(value: object) -> str:
    return str(value.canonical if hasattr(value, "canonical") else value)


def _protocols(first: Evidence, second: Evidence, mix: bool) -> tuple[str, str] | None:
    told = differing(first, second)
    if not told:
        return None
    if not mix:
        raise CompareError(
            f"{first.grid.source}, {second.grid.source}: different protocols ({'; '.join(told)}): "
            "their numbers do not compare; --mix compares them all the same, and says so"
        )
    names = first.grid.protocol.name, second.grid.protocol.name
    return names if names[0] != names[1] else (first.grid.name, second.grid.name)


def _why(mine: Summary | None, its: Summary | None, labels: tuple[str, str]) -> str:
    for summary, label in ((mine, labels[0]), (its, labels[1])):
        if summary is None:
            return f"{label} is not there"
        if not summary.n:
            return f"{label} is {summary.status}"
    return "no common seeds"


# --- in words ---


def lines(comparison: Comparison) -> list[str]:
    """The sentence, then a line a pair."""
    out = [sentence(comparison)]
    for pair, difference in comparison.pairs.items():
        text = f"  {pair}: {difference.mean:+.2f}"
        if not math.isnan(difference.low):
            text += f" [{difference.low:+.2f}, {difference.high:+.2f}]"
        out.append(f"{text}, {_seeds(difference.n)}")
    out += [f"  {pair}: left out, {why}" for pair, why in comparison.lacking.items()]
    if comparison.protocols:
        first, second = comparison.protocols
        out.append(
            f"  ATTENTION: {comparison.method} under {first}, {comparison.other} under {second}: "
            "the difference is of methods and protocols together"
        )
    return out


def sentence(comparison: Comparison) -> str:
    """What the evidence supports, in one line; no verdict without an interval that excludes 0."""
    one, other, whole = comparison.method, comparison.other, comparison.overall
    if not whole.pairs:
        told = "; ".join(dict.fromkeys(comparison.lacking.values())) or "no pairs"
        return f"{one} and {other} cannot be compared: {told}"
    places = len(comparison.pairs) + len(comparison.lacking)
    over = "" if whole.pairs == 1 else f" on average over {whole.pairs} pairs"
    seen = f"{whole.mean:+.2f} points"
    if math.isnan(whole.low):
        why = (
            f"one seed in common on at least one of {_count(whole.pairs, 'pair')}"
            if whole.seeds < 2
            else "all seeds differ by the same"
        )
        return f"{one} and {other} are not distinguishable: {seen}{over}, {why}; no interval"
    found = f"{seen} [{whole.low:+.2f}, {whole.high:+.2f}]{over}, {_seeds(whole.seeds)}"
    least = over_seeds.detectable(whole.se, whole.freedom)
    limit = f"a difference below {least:.2f} would not be seen at this n"
    if whole.low <= 0 <= whole.high:
        return f"{one} and {other} are not distinguishable: {found}; {limit}"
    means = [d.mean if whole.mean > 0 else -d.mean for d in comparison.pairs.values()]
    won, tied, lost = over_pairs.wins(means, comparison.tie)
    verdict = f"{one} is {'better' if whole.mean > 0 else 'worse'} than {other}"
    others = [f"{k} {word}" for k, word in ((tied, "tied"), (lost, "the other way")) if k]
    score = f" on {won} of {places} pairs" + (f" ({', '.join(others)})" if others else "")
    return f"{verdict}{score}; {found}; {limit}"


def _seeds(n: int) -> str:
    return _count(n, "seed")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


# --- two runs ---


def is_run(runs: Path, name: str) -> bool:
    """Whether a name is a run: its folder, or its id."""
    return _folder(runs, name) is not None


def _folder(runs: Path, name: str) -> Path | None:
    for path in (Path(name), records.folder(runs, name)):
        if (path / "run.json").is_file():
            return path
    return None


def two_runs(runs: Path, name: str, other: str, *, mix: bool = False) -> list[str]:
    """What two single runs say of each other, which is little.

    Raises:
        CompareError: one is not done; data or, without ``mix``, the recipes differ.
        RecordError: one is damaged.
    """
    (one, record), (two, their) = (_read(runs, each) for each in (name, other))
    assert record.result and their.result
    if record.result.data != their.result.data:
        raise CompareError(f"{one.id}, {two.id}: measured on different data")
    told = _recipes(one, two)
    if told and not mix:
        raise CompareError(
            f"{one.id}, {two.id}: different protocols ({'; '.join(told)}): their numbers do not "
            "compare; --mix compares them all the same, and says so"
        )
    gap = record.result.test_acc - their.result.test_acc
    # As if independent: on the same images the standard error is smaller, by how much is not known.
    errors = [
        over_seeds.standard_error(r.result.test_acc, r.result.n_test)
        for r in (record, their)
        if r.result
    ]
    out = [
        f"{one.method} ({one.title}): {record.result.test_acc:.2f}; "
        f"{two.method} ({two.title}): {their.result.test_acc:.2f}; {gap:+.2f} points",
        "  one run of each: no difference between methods can be told from chance; the test set "
        f"alone gives each a standard error of {max(errors):.2f} points",
    ]
    if one.seed != two.seed:
        out.append("  no common seeds: other data order, other initial weights")
    if told:
        out.append(f"  ATTENTION: different protocols: {'; '.join(told)}")
    return out


def _read(runs: Path, name: str) -> tuple[Run, Record]:
    path = _folder(runs, name)
    if path is None:
        raise CompareError(f"{name}: no run; expected a folder with run.json, or an id in {runs}")
    run = records.read_run(path.parent, path.name)
    record = records.read(path.parent, path.name)
    if record is None or record.result is None or record.status != "done":
        raise CompareError(f"{name}: {record.status if record else 'not there yet'}: no result")
    return run, record


def _recipes(one: Run, two: Run) -> list[str]:
    """What of two runs' training differs, other than the method and its weights."""
    told = [
        f"{key} {mine} and {its}"
        for key, mine, its in _both(one.training.canonical, two.training.canonical)
        if mine != its
    ]
    if one.student != two.student:
        told.insert(0, f"student {one.student} and {two.student}")
    if one.dataset.canonical != two.dataset.canonical:
        told.insert(0, f"data {one.dataset.title} and {two.dataset.title}")
    return told


def _both(a: Mapping[str, object], b: Mapping[str, object]) -> Sequence[tuple[str, object, object]]:
    return [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]
