"""The headline: the accuracy by which the rows of a grid are compared.

It is the test accuracy after the last epoch. In a grid that chooses values (``sweep``) on held-out
training images (``dataset.validation``), it is the accuracy on those images, because a value that
is chosen by its test accuracy makes that accuracy too high.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from kdbench.grid.grid import Grid, Row, named_rows
from kdbench.grid.settings import Dataset
from kdbench.runs.records import Result

TEST_COLUMN = "test (do not choose by it)"
"""Title of the last column of a table whose headline is the held-out accuracy."""


@dataclass(frozen=True)
class Headline:
    """Which accuracy is compared.

    Attributes:
        key: its name in results and curves.
        name: in sentences and titles of axes.
        images: the images that it is measured on, in words.
        answers: (row, answer) of rows for which another prediction's test accuracy is compared
            (``report.answers``).
    """

    key: Literal["test_acc", "val_acc"]
    name: str
    images: str
    answers: tuple[tuple[str, str], ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether it is measured on held-out training images."""
        return self.key == "val_acc"

    def answer(self, row: str) -> str | None:
        """Return the answer that a row shows; None: the deployed network's accuracy."""
        return dict(self.answers).get(row) if self.answers else None

    def of(self, result: Result | None, row: str = "") -> float:
        """Return this accuracy of a run, in percent; nan if it was not measured."""
        answer = self.answer(row)
        if result is None:
            return math.nan
        value = (result.answers or {}).get(answer) if answer else getattr(result, self.key)
        return math.nan if value is None else float(value)

    def count(self, dataset: Dataset, result: Result) -> int:
        """Return the number of images that this accuracy of a run is a share of."""
        return held_out_images(dataset, result.n_train) if self.held_out else result.n_test


ON_TEST = Headline("test_acc", "test accuracy", "test images")
ON_HELD_OUT = Headline("val_acc", "held-out accuracy", "held-out training images")


def chooses_on_held_out(grid: Grid) -> bool:
    """Check whether a grid chooses swept values on held-out training images."""
    return bool(grid.sweep and grid.dataset.validation)


def headline(grid: Grid) -> Headline:
    """Return the accuracy by which the rows of a grid are compared."""
    return ON_HELD_OUT if chooses_on_held_out(grid) else with_answers(ON_TEST, grid)


def with_answers(headline: Headline, grid: Grid) -> Headline:
    """Return a headline with the answers that a grid's rows show, which have test accuracies."""
    answers = (
        {}
        if headline.held_out
        else {
            label: answer
            for name, answer in grid.report.answers.items()
            for labels in (
                [_labels(row, grid) for row in named_rows(grid.methods, name)] or [[name]]
            )
            for label in labels
        }
    )
    return replace(headline, answers=tuple(answers.items())) if answers else headline


def _labels(row: Row, grid: Grid) -> list[str]:
    """Return the labels of the rows that a grid's sweep makes of a row."""
    return [label for label, _ in row.points(grid.sweep)]


def shown_answers(headline: Headline, only: str | None = None) -> list[str]:
    """Return footnotes on rows that show another accuracy than the deployed network's.

    Args:
        headline: of the rows.
        only: the row that is shown; None: all.
    """
    rows: dict[str, list[str]] = {}
    for row, answer in headline.answers:
        if only in (None, row):
            rows.setdefault(answer, []).append(row)
    return [
        f"{', '.join(names)}: accuracy of the answer {answer}, a prediction from networks that "
        "learn together, not of the deployed one, to which learning curves belong."
        for answer, names in rows.items()
    ]


def how_to_choose(grid: Grid) -> str:
    """Return the sentence that takes the place of a recommendation in such a grid."""
    return f"Choose on held-out images: kdbench select --grid {grid.source}"


def held_out_images(dataset: Dataset, n_train: int) -> int:
    """Return the number of held-out images.

    Classes are rounded one by one, and records have only the number of images that remain for
    training. So the result is approximate, by less than half an image a class, for classes whose
    share is not a whole number.

    Args:
        dataset: of the runs; without ``validation`` nothing is held out.
        n_train: number of images that remain.
    """
    share = dataset.validation or 0.0
    if dataset.per_class:
        held = min(max(1, round(share * dataset.per_class)), dataset.per_class - 1) if share else 0
        return round(n_train * held / (dataset.per_class - held))
    return round(n_train * share / (1 - share))
