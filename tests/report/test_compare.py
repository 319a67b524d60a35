import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_grids import (
    PAIRS,
    PROTOCOL,
    evidence_of,
    make_cells,
    make_grid,
    make_records,
)
from small_grids import kdbench, mistakes
from small_grids import write as write_grid

from kdbench.grid.grid import TeacherSpec
from kdbench.grid.run import BASELINES, Run
from kdbench.grid.settings import Dataset
from kdbench.report.compare import CompareError, compare_rows
from kdbench.report.compare_sentences import lines
from kdbench.runs import archive
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import aggregate
from kdbench.stats.paired_differences import Contrast

BASE = {"student": 70.0, "teacher": 80.0, "kd": 72.0, "at": 72.1, "semckd": 73.0}
NOISE = {"kd": (0.0, 0.2, -0.1, 0.1), "at": (0.4, -0.3, 0.2, -0.2), "semckd": (0.3, 0.1, 0.0, 0.3)}


def usual(run: Run) -> float:
    return BASE[run.method] + NOISE.get(run.method, (0.0,) * 4)[run.seed % 4] + 0.5 * run.seed


def evidence(
    accuracy: Callable[[Run], float] = usual,
    *,
    methods: Sequence[str] = ("kd", "at", "semckd"),
    gamma: float = 1.0,
    **changes: object,
) -> Evidence:
    """Return a complete grid, whose methods have another weight ``gamma`` if it is given."""
    grid = make_grid(**{"pairs": PAIRS, "seeds": (0, 1, 2, 3)} | changes)  # type: ignore[arg-type]
    cells = [
        cell
        if cell.method in BASELINES
        else replace(cell, runs=tuple(replace(run, gamma=gamma) for run in cell.runs))
        for cell in make_cells(grid, methods)
    ]
    return evidence_of(grid, cells, make_records(cells, accuracy))


def equal(contrast: Contrast | None, other: Contrast | None) -> bool:
    """Check whether two contrasts are of the same rows and numbers, up to rounding errors."""
    assert contrast and other
    same = (contrast.row, contrast.other) == (other.row, other.other)
    values = [
        [value for key, value in vars(c).items() if key not in ("row", "other")]
        for c in (contrast, other)
    ]
    return same and values[0] == pytest.approx(values[1], nan_ok=True, rel=1e-9)


def test_brackets_are_those_of_the_whole_grid() -> None:
    grid = evidence()
    decision = aggregate(grid).decision
    for row, other in itertools.permutations(BASE, 2):
        if "teacher" in (row, other):
            continue
        comparison = compare_rows(row, other, grid)
        assert equal(comparison.contrast, decision.over.contrasts[row, other])
        assert comparison.rows == decision.rows
        for pair, statistics in decision.pairs.items():
            name = pair.replace("→", "->")
            assert equal(comparison.pairs[name], statistics.contrasts[row, other])
            alone = compare_rows(row, other, grid, pair=name)
            assert equal(alone.contrast, statistics.contrasts[row, other])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("semkd", "kd"), "semkd: unknown; accepted: at, kd, semckd, student (did you mean semckd"),
        (("kd", "teacher"), "teacher: unknown"),
        (("kd", "kd"), "both are the row kd"),
    ],
)
def test_unknown_or_equal_rows_are_refused(names: tuple[str, str], text: str) -> None:
    with pytest.raises(CompareError) as error:
        compare_rows(*names, evidence())
    assert text in str(error.value) and "\n" not in str(error.value)


# --- two grids ---


def test_row_of_another_grid_joins_the_rows_of_the_first() -> None:
    first = evidence(methods=("kd", "at"))
    second = evidence(methods=("kd", "semckd"), name="other")
    comparison = compare_rows("semckd", "kd", second, first)
    assert comparison.protocols is None
    assert (comparison.row, comparison.other) == ("semckd", "kd")
    added = compare_rows("at", "semckd", first, second)
    whole = compare_rows("at", "semckd", evidence())
    assert equal(added.contrast, whole.contrast)
    assert all(equal(added.pairs[pair], whole.pairs[pair]) for pair in whole.pairs)
    assert added.rows == whole.rows == 4


def test_row_of_the_same_settings_is_not_added_twice() -> None:
    more = evidence(name="more", seeds=(0, 1, 2, 3, 4))
    with pytest.raises(CompareError, match="both are the row kd"):
        compare_rows("kd", "kd", evidence(), more)
    comparison = compare_rows("semckd", "kd", evidence(), more)
    assert comparison.other == "kd" and comparison.rows == 4
    assert equal(comparison.contrast, compare_rows("semckd", "kd", evidence()).contrast)


def test_another_row_of_the_same_label_is_named_after_its_grid() -> None:
    weak = evidence(lambda run: usual(run) - 1, name="weak", gamma=0.5)
    comparison = compare_rows("at", "at", evidence(), weak)
    assert (comparison.row, comparison.other) == ("at", "at (weak)")
    assert comparison.rows == 5
    assert comparison.contrast and comparison.contrast.diff == pytest.approx(1.0)
    same_name = evidence(gamma=0.5)
    assert compare_rows("at", "at", evidence(), same_name).other == "at (experiments/fake.yaml)"


def test_pairs_that_the_second_grid_lacks_are_named() -> None:
    second = evidence(methods=("semckd",), name="other", pairs=PAIRS[:1])
    comparison = compare_rows("kd", "semckd", evidence(methods=("kd", "at")), second)
    assert comparison.lacking == {"big -> tiny": "semckd is not in the grid for this pair"}
    assert lines(comparison)[0].count("1 of 2 pairs, 4 seeds") == 1


def test_different_protocols_are_refused_without_mix() -> None:
    short = evidence(protocol=PROTOCOL.model_copy(update={"epochs": 1, "alpha": 0.5}))
    with pytest.raises(CompareError) as error:
        compare_rows("semckd", "semckd", evidence(), short)
    message = str(error.value)
    assert "different protocols (epochs 2 and 1; alpha 1.0 and 0.5)" in message
    assert "--mix" in message and "\n" not in message
    comparison = compare_rows("semckd", "kd", evidence(), short, mix=True)
    assert (
        "ATTENTION: semckd under fake, kd (experiments/fake.yaml) under fake: the difference "
        "includes the effect of the protocols."
    ) in lines(comparison)
    named = short.grid.protocol.model_copy(update={"name": "other"})
    other = replace(short, grid=short.grid.model_copy(update={"protocol": named}))
    assert compare_rows("semckd", "kd", evidence(), other, mix=True).protocols == ("demo", "other")


def test_options_that_the_protocols_give_to_the_compared_methods_are_named() -> None:
    protocol = PROTOCOL.model_copy(update={"methods": {"at": {"beta": 9}, "vid": {"beta": 2}}})
    second = evidence(protocol=protocol, name="other")
    text = "ATTENTION: options differ between the grids: at.beta unset and 9."
    assert text in lines(compare_rows("kd", "at", evidence(), second))
    assert not any(
        "ATTENTION" in line for line in lines(compare_rows("kd", "semckd", evidence(), second))
    )


def test_different_teachers_are_named() -> None:
    second = evidence(name="other", teacher=TeacherSpec(seed=5))
    comparison = compare_rows("kd", "at", evidence(), second)
    text = "ATTENTION: different teachers: big -> small, big -> tiny."
    assert text in lines(comparison)
    alone = compare_rows("kd", "student", evidence(), second)
    assert not any("ATTENTION" in line for line in lines(alone))


# --- a sweep ---


def test_rows_of_a_sweep_are_compared_by_held_out_accuracy() -> None:
    dataset = Dataset(name="digits", validation=0.2)
    grid = evidence(dataset=dataset, sweep={"at.beta": (1, 2)})
    records = {}
    for key, record in grid.records.items():
        assert record.result
        result = replace(record.result, val_acc=150 - record.result.test_acc)
        records[key] = replace(record, result=result)
    comparison = compare_rows("semckd", "kd", replace(grid, records=records))
    assert comparison.contrast and comparison.contrast.diff == pytest.approx(-1.125)
    assert "Accuracies are of held-out training images. Choose with kdbench select." in lines(
        comparison
    )
    lacking = compare_rows("semckd", "kd", grid)
    assert set(lacking.lacking.values()) == {"semckd has no held-out accuracy"}


# --- the command ---


def test_command_reads_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    archive.write(evidence(), path)
    done = kdbench("compare", "semckd", "kd", "--from", path)
    assert done.exit_code == 0
    assert done.stdout.startswith("semckd is better than kd: +1.12 points [")
    assert len(done.stdout.splitlines()) == 3


def test_command_refuses_different_protocols(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    archive.write(evidence(), first)
    archive.write(evidence(protocol=PROTOCOL.model_copy(update={"epochs": 1})), second)
    args = ("compare", "semckd", "kd", "--from", first, "--from", second)
    [line] = mistakes(*args)
    assert "different protocols (epochs 2 and 1)" in line
    done = kdbench(*args, "--mix")
    assert done.exit_code == 0 and "ATTENTION" in done.stdout
    [line] = mistakes(*args, "--from", first)
    assert line == "compare: at most two grids, one for A and one for B"


def test_command_needs_a_grid_or_an_archive(tmp_path: Path) -> None:
    [line] = mistakes("compare", "kd", "at", "--runs", tmp_path)
    assert line == (
        f"kd: not a run; expected a folder with run.json, or the start of an id in {tmp_path}; "
        "to compare the rows of a grid, add --grid or --from"
    )
    args = ("compare", "kd", "at", "--from", write_archive(tmp_path), "--set", "seeds=[0]")
    assert "--set needs --grid" in mistakes(*args)[0]
    grid = write_grid(tmp_path)
    done = kdbench("compare", "kd", "student", "--grid", grid, "--runs", tmp_path / "none")
    assert done.stdout.startswith("kd and student cannot be compared: kd is missing")


def write_archive(folder: Path) -> Path:
    archive.write(evidence(), folder / "some.parquet")
    return folder / "some.parquet"
