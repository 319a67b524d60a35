import math
from dataclasses import replace

import pytest
from fake_grids import (
    aggregate_of,
    cell_of,
    make_cells,
    make_grid,
    make_record,
    make_result,
    typical,
)
from hypothesis import given
from hypothesis import strategies as st

from kdbench.grid.grid import Grid, Report
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs.records import Record
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.headline import (
    ON_HELD_OUT,
    ON_TEST,
    chooses_on_held_out,
    headline,
    held_out_images,
    how_to_choose,
)

HELD = Dataset(name="digits", per_class=30, validation=0.2)
SWEEP = {"at.beta": (1, 10)}


def sweep_grid(**changes: object) -> Grid:
    return make_grid(**{"dataset": HELD, "sweep": SWEEP} | changes)  # type: ignore[arg-type]


def held_out_record(run: Run) -> Record:
    """Return a record whose held-out accuracies order the rows against their test accuracies."""
    record = make_record(run, typical(run))
    assert record.result
    result = replace(record.result, val_acc=150.0 - record.result.test_acc, n_train=240)
    return replace(record, result=result)


def aggregate_of_sweep(grid: Grid) -> Aggregate:
    cells = make_cells(grid)
    records = {run.id: held_out_record(run) for cell in cells for run in cell.runs}
    return aggregate_of(grid, cells, records)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"sweep": {}}, False),
        ({"dataset": Dataset(name="digits")}, False),
    ],
)
def test_only_a_sweep_with_held_out_images_chooses_on_them(
    changes: dict[str, object], expected: bool
) -> None:
    grid = sweep_grid(**changes)
    assert chooses_on_held_out(grid) is expected
    assert headline(grid) is (ON_HELD_OUT if expected else ON_TEST)


def test_every_statistic_of_a_sweep_is_of_held_out_accuracies() -> None:
    aggregate = aggregate_of_sweep(sweep_grid())
    assert aggregate.headline.held_out
    frame = aggregate.frame.set_index("method")
    assert frame.loc["at", "mean"] == pytest.approx(150 - 83.5)
    assert frame.loc["at", "test_mean"] == pytest.approx(83.5)
    assert frame.loc["kd", "mean"] == pytest.approx(150 - 82.5)
    assert frame.loc["at", "diff"] == pytest.approx(-1.0)  # against +1.0 on test images
    assert set(frame["measured_on"]) == {"held-out training images"}
    error = math.sqrt(0.665 * 0.335 / 60) * 100  # 60 images held out, not the 400 of the test set
    assert frame.loc["at", "test_se"] == pytest.approx(error)
    # Of the teacher only its own run has a held-out accuracy.
    assert frame.loc["teacher", "mean"] == pytest.approx(54.9)
    assert frame.loc["teacher", "test_mean"] == pytest.approx(95.0)


def test_sweep_on_held_out_images_recommends_nothing() -> None:
    for sweep, found in (({}, True), (SWEEP, False)):
        decision = aggregate_of_sweep(sweep_grid(sweep=sweep)).decision
        assert bool(decision.recommendation.state) == found
        assert [bool(one.state) for one in decision.on_pair.values()] == [found]
        assert decision.over.contrasts["at", "kd"].known


def test_without_a_sweep_the_same_records_give_test_accuracies() -> None:
    aggregate = aggregate_of_sweep(sweep_grid(sweep={}))
    frame = aggregate.frame.set_index("method")
    assert not aggregate.headline.held_out
    assert frame["mean"].equals(frame["test_mean"])
    assert frame.loc["at", "mean"] == pytest.approx(83.5)
    assert set(frame["measured_on"]) == {"test images"}


def test_run_without_held_out_accuracy_has_no_headline() -> None:
    grid = sweep_grid()
    cells = make_cells(grid)
    records = {run.id: held_out_record(run) for cell in cells for run in cell.runs}
    lacking = cell_of(cells, "at").runs[0]
    records[lacking.id] = make_record(lacking, 83.0)
    summary = aggregate_of(grid, cells, records).summaries["big → small"]["at"]
    assert list(summary.accuracies) == list(summary.test) == [1, 2]
    assert math.isnan(ON_HELD_OUT.of(make_result(75.0))) and math.isnan(ON_TEST.of(None))


@pytest.mark.parametrize("sweep", [{}, SWEEP])
def test_held_out_accuracies_are_not_compared_with_published_ones(
    sweep: dict[str, tuple[int, ...]],
) -> None:
    grid = make_grid(
        [("resnet32x4", "vgg8")],
        dataset=Dataset(name="cifar100", validation=0.2),
        sweep=sweep,
        report=Report(reference="SemCKD (AAAI 2021)/Table 1"),
    )
    assert aggregate_of_sweep(grid).frame["published_mean"].isna().all() == bool(sweep)


def test_sentence_names_the_command() -> None:
    expected = "Choose on held-out images: kdbench select --grid experiments/fake.yaml"
    assert how_to_choose(sweep_grid()) == expected


@given(st.integers(2, 30), st.integers(1, 100), st.integers(1, 9))
def test_held_out_images_are_what_splitting_a_class_leaves(
    per_class: int, classes: int, tenths: int
) -> None:
    share = tenths / 10
    held = min(max(1, round(share * per_class)), per_class - 1)  # as kdbench.data.dataset splits
    dataset = Dataset(name="digits", per_class=per_class, validation=share)
    remaining = classes * (per_class - held)
    assert held_out_images(dataset, remaining) == classes * held
    whole = Dataset(name="digits", validation=share)
    assert abs(held_out_images(whole, 1000 - round(1000 * share)) - round(1000 * share)) <= 1
    assert held_out_images(Dataset(name="digits"), 100) == 0
