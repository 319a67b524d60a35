"""``kdbench compare``: what the evidence shows about two rows, of one grid or of two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdbench.errors import UserError
from kdbench.grid.mistakes import unknown
from kdbench.grid.run import Cell
from kdbench.report.protocol_differences import (
    check_same_data,
    different_teachers,
    differing,
    option_differences,
)
from kdbench.report.row_of_another_grid import added, cells_of
from kdbench.runs.evidence import Evidence
from kdbench.stats.cell_summary import Summaries, Summary, row_label, summaries
from kdbench.stats.contrasts import over
from kdbench.stats.decision import on_pairs, rows_with_interval
from kdbench.stats.headline import (
    ON_HELD_OUT,
    ON_TEST,
    Headline,
    chooses_on_held_out,
    shown_answers,
    with_answers,
)
from kdbench.stats.paired_differences import Contrast


class CompareError(UserError):
    """Two rows or runs that cannot be compared, or only with ``--mix``."""


@dataclass(frozen=True)
class Noisy:
    """A row whose runs on a pair differ much more than those of the other rows.

    Attributes:
        row: label.
        pair: name of the pair.
        sd: standard deviation of its accuracies, in points.
        n: number of its runs.
    """

    row: str
    pair: str
    sd: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """Two rows, compared seed by seed. Names of pairs are ``TEACHER -> STUDENT``.

    Attributes:
        row: label of the first row.
        other: label of the second row.
        contrast: ``row - other`` over ``compared``; None if they have no seed in common.
        pairs: pair -> ``row - other`` there, for pairs with common seeds.
        lacking: pair -> reason, for pairs without common seeds.
        compared: names of the pairs that ``contrast`` is the mean of.
        total: number of pairs that were asked for.
        rows: number of rows in the table that have an interval.
        noisy: which of the two rows is noisy, and where.
        troubles: pair and label -> words such as ``1 of 3 runs diverged``.
        tie: largest difference in points that does not matter, the margin.
        headline: the accuracy that is compared.
        protocols: names of both protocols if they differ.
        notes: other differences of two grids that concern these rows.
    """

    row: str
    other: str
    contrast: Contrast | None
    pairs: Mapping[str, Contrast]
    lacking: Mapping[str, str]
    compared: tuple[str, ...]
    total: int
    rows: int
    noisy: tuple[Noisy, ...]
    troubles: Mapping[tuple[str, str], str]
    tie: float
    headline: Headline
    protocols: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()


def compare_rows(
    name: str,
    other: str,
    evidence: Evidence,
    second: Evidence | None = None,
    *,
    pair: str | None = None,
    mix: bool = False,
) -> Comparison:
    """Compare two rows of a grid, or a row of one grid with a row of another.

    A row of another grid is added to the rows of the first: see ``row_of_another_grid``.

    Args:
        name: first row, by label or by terms.
        other: second row, by label or by terms.
        evidence: contains the first row.
        second: evidence that contains ``other``, if not ``evidence``.
        pair: the only pair to compare on, ``TEACHER -> STUDENT``; None: the mean over all.
        mix: compare even if the protocols differ.

    Raises:
        CompareError: unknown row or pair; the same row twice; different protocols without ``mix``.
        DataChanged: runs on one data set were made of different data.
    """
    label, other_label = _label(evidence, name), _label(second or evidence, other)
    compared_by = _headline(evidence, second)
    every = summaries(evidence.cells, evidence.records, with_answers(compared_by, evidence.grid))
    rows = ((evidence, label), (second or evidence, other_label))
    shown = (shown_answers(with_answers(compared_by, one.grid), row) for one, row in rows)
    protocols, notes = None, [note for of_row in shown for note in of_row]
    if second is not None:
        protocols = _protocols(evidence, second, mix)
        check_same_data([evidence, second])
        cells = cells_of(evidence, label), cells_of(second, other_label)
        notes += _notes(evidence, second, *cells)
        every, other_label = added(evidence, second, every, other_label, compared_by)
    else:
        check_same_data([evidence])
    if label == other_label:
        same = f"both are the row {label}"
        raise CompareError(f"{name}, {other}: {same}; name two different rows")
    every = _of_pair(evidence, {_plain(key): members for key, members in every.items()}, pair)
    comparison = _compared(label, other_label, every, evidence.grid.report.tie, compared_by)
    return replace(comparison, protocols=protocols, notes=tuple(notes))


def _compared(
    row: str, other: str, every: Summaries, tie: float, compared_by: Headline
) -> Comparison:
    pairs = on_pairs(every)
    mean = over(pairs)
    contrasts = {
        name: one.contrasts[row, other]
        for name, one in pairs.items()
        if (row, other) in one.contrasts
    }
    lacking = {
        name: _why_lacking(members, row, other, compared_by)
        for name, members in every.items()
        if name not in contrasts
    }
    counted = mean.pairs or tuple(pairs)
    # Of one pair, the mean would be the same up to rounding.
    only = contrasts if len(every) == 1 else {}
    both = next(iter(only.values()), mean.contrasts.get((row, other)))
    return Comparison(
        row=row,
        other=other,
        contrast=both,
        pairs=contrasts,
        lacking=lacking,
        compared=tuple(name for name in contrasts if name in counted),
        total=len(every),
        rows=rows_with_interval(pairs),
        noisy=tuple(
            Noisy(label, name, one.sds[label], len(every[name][label].accuracies))
            for label in (row, other)
            for name, one in pairs.items()
            if label in one.noisy
        ),
        troubles={
            (name, label): text
            for name, members in every.items()
            for label in (row, other)
            if label in members and (text := _troubles(members[label]))
        },
        tie=tie,
        headline=compared_by,
    )


def _label(evidence: Evidence, name: str) -> str:
    label = row_label(evidence.cells, name)
    if label is None or label == "teacher":
        rows = dict.fromkeys(cell.method for cell in evidence.cells if cell.method != "teacher")
        raise CompareError(f"{evidence.grid.source}: {name}: {unknown(name, rows)}")
    return label


def _headline(first: Evidence, second: Evidence | None) -> Headline:
    """Return the accuracy to compare: held-out if a grid chooses by it and both have it."""
    grids = [evidence.grid for evidence in (first, second) if evidence]
    chooses = any(chooses_on_held_out(grid) for grid in grids)
    return ON_HELD_OUT if chooses and all(grid.dataset.validation for grid in grids) else ON_TEST


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


def _notes(
    first: Evidence, second: Evidence, cells: Sequence[Cell], others: Sequence[Cell]
) -> list[str]:
    options = option_differences(first, second, {cell.method for cell in [*cells, *others]})
    notes = [f"options differ between the grids: {'; '.join(options)}"] if options else []
    teachers = different_teachers(cells, others)
    return notes + ([f"different teachers: {', '.join(teachers)}"] if teachers else [])


def _plain(name: str) -> str:
    """Write a pair as grid files do."""
    return name.replace(" → ", " -> ")


def _of_pair(evidence: Evidence, every: Summaries, pair: str | None) -> Summaries:
    if pair is None:
        return every
    wanted = " -> ".join(part.strip() for part in pair.replace("→", "->").split("->"))
    if wanted not in every:
        raise CompareError(f"{evidence.grid.source}: --pair {pair}: {unknown(wanted, list(every))}")
    return {wanted: every[wanted]}


def _why_lacking(
    members: Mapping[str, Summary], row: str, other: str, compared_by: Headline
) -> str:
    for label in (row, other):
        if label not in members:
            return f"{label} is not in the grid for this pair"
        summary = members[label]
        if not summary.n:
            return f"{label} " + (
                f"has no {compared_by.name}" if summary.records else f"is {summary.status}"
            )
    return "no common seeds"


def _troubles(summary: Summary) -> str:
    """Return e.g. ``1 of 3 runs diverged``; the mean is that of the others."""
    counts = {word: summary.statuses.get(word, 0) for word in ("diverged", "failed")}
    words = " and ".join(f"{count} {word}" for word, count in counts.items() if count)
    first, _, rest = words.partition(" ")
    return f"{first} of {summary.expected} runs {rest}" if words else ""
