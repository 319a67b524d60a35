"""Checks of the names in a grid's ``report``: rows, and the predictions that they show."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdbench.errors import UserError, short_text
from kdbench.grid.grid import Row, named_rows, sorted_name
from kdbench.grid.mistakes import unknown
from kdbench.grid.run import BASELINES
from kdbench.grid.settings import Dataset
from kdbench.registry import lookup
from kdbench.registry.answer_names import answer_names
from kdbench.registry.lookup import built_in_path


def report_errors(named: dict[str, str], rows: Sequence[Row]) -> list[str]:
    """Return methods that the report names but no row has; a sweep makes several rows of one."""
    known = {name for row in rows for name in (row.label, row.short, row.name)}
    known |= {row.sorted_name for row in rows}
    errors = []
    for key, name in named.items():
        wanted = sorted_name(name)
        base = name.partition("(")[0]  # of a swept row: semckd(beta=100)
        if not {name, wanted, base} & {*known, *BASELINES}:
            accepted = [row.label for row in rows]
            errors.append(f"report.{key}: {short_text(name)}: {unknown(name, accepted)}")
    return errors


def answer_errors(
    answers: Mapping[str, str], rows: Sequence[Row], sweep: Any, dataset: Dataset
) -> Iterator[str]:
    """Yield unknown rows in ``report.answers``, and answers that a row does not have."""
    if answers and sweep and dataset.validation:
        yield (
            "report.answers: this grid chooses values by held-out accuracy, which only the "
            "deployed network has; expected no answers"
        )
    for name, answer in answers.items():
        where = f"report.answers.{short_text(name)}"
        found = named_rows(rows, name)
        if not found:
            yield f"{where}: {unknown(name, [row.label for row in rows])}"
        for row in found:
            has = _answers(row)
            if has is not None and answer not in has:
                yield f"{where}: {short_text(answer)}: {unknown(answer, has)}"


def _answers(row: Row) -> list[str] | None:
    """Return the names of a row's answers; None if they are not known before it is trained."""
    names: list[str] = []
    for part in row.parts:
        try:
            found = answer_names(lookup.describe(built_in_path(part)))
        except (UserError, OSError):  # reported as a mistake of the row
            return None
        if found is None:
            return None
        names += found
    return names
