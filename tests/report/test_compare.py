import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_grids import (
    PAIRS,
    PROTOCOL,
    evidence_of,
    make_cells,
    make_grid,
    make_record,
    make_records,
)
from small_grids import kdbench, mistakes
from small_grids import write as write_grid

from kdbench.grid.run import Run
from kdbench.report import compare
from kdbench.report.compare import CompareError, lines, methods, sentence
from kdbench.runs import archive, records
from kdbench.runs.evidence import Evidence
from kdbench.stats import over_seeds

BASE = {"student": 70.0, "teacher": 80.0, "kd": 72.0, "at": 72.1, "semckd": 73.0}
NOISE = {"kd": (0.0, 0.2, -0.1, 0.1), "at": (0.4, -0.3, 0.2, -0.2), "semckd": (0.3, 0.1, 0.0, 0.3)}


def usual(run: Run) -> float:
    return BASE[run.method] + NOISE.get(run.method, (0.0,) * 4)[run.seed % 4] + 0.5 * run.seed


def evidence(accuracy: Callable[[Run], float] = usual, **changes: object) -> Evidence:
    grid = make_grid(**{"pairs": PAIRS, "seeds": (0, 1, 2, 3)} | changes)  # type: ignore[arg-type]
    cells = make_cells(grid)
    return evidence_of(grid, cells, make_records(cells, accuracy))


def test_significant_difference() -> None:
    comparison = methods("semckd", "kd", evidence())
    overall = comparison.overall
    least = over_seeds.detectable(overall.se, overall.freedom)
    assert sentence(comparison) == (
        f"semckd is better than kd on 2 of 2 pairs; +1.12 points [+{overall.low:.2f}, "
        f"+{overall.high:.2f}] on average over 2 pairs, 4 seeds; power is below 80 % for true "
        f"differences under {least:.2f} points"
    )
    assert 0 < overall.low < 1.125 < overall.high
    assert lines(comparison)[1].startswith("  big → small: +1.12 [")
    turned = methods("kd", "semckd", evidence())
    assert sentence(turned).startswith("kd is worse than semckd on 2 of 2 pairs; −1.12 points [")


def test_difference_that_is_not_significant() -> None:
    text = sentence(methods("at", "kd", evidence()))
    assert text.startswith("at and kd are not significantly different: +0.07 points [−")
    assert "power is below 80 % for true differences under" in text


def test_pairs_with_the_opposite_effect_are_counted() -> None:
    def split(run: Run) -> float:
        worse = run.method == "semckd" and run.student == "tiny"
        return usual(run) - (1.7 if worse else 0.0) + (2.0 if run.method == "semckd" else 0.0)

    text = sentence(methods("semckd", "kd", evidence(split)))
    assert text.startswith("semckd is better than kd on 2 of 2 pairs")

    def against(run: Run) -> float:
        better = 4.0 if run.method == "semckd" and run.student == "small" else 0.0
        worse = -1.6 if run.method == "semckd" and run.student == "tiny" else 0.0
        return usual(run) + better + worse

    text = sentence(methods("semckd", "kd", evidence(against)))
    assert text.startswith("semckd is better than kd on 1 of 2 pairs (1 worse); +2.32")


def test_one_seed_supports_no_test() -> None:
    text = sentence(methods("semckd", "kd", evidence(seeds=(0,))))
    assert text == (
        "semckd and kd cannot be tested: +1.30 points on average over 2 pairs; no interval: "
        "only one common seed on at least one of 2 pairs"
    )


def test_no_common_seeds() -> None:
    four_seeds = evidence(pairs=PAIRS[:1])
    kept = {
        run.id: four_seeds.records[run.id]
        for cell in four_seeds.cells
        for run in cell.runs
        if run.seed % 2 == (cell.method == "kd")
    }
    comparison = methods("semckd", "kd", replace(four_seeds, records=kept))
    assert sentence(comparison) == "semckd and kd cannot be compared: no common seeds"
    assert lines(comparison)[1] == "  big → small: left out, no common seeds"
    assert math.isnan(comparison.overall.mean)
    text = sentence(methods("semckd", "kd", replace(four_seeds, records={})))
    assert text == "semckd and kd cannot be compared: semckd is missing"


def test_equal_differences_of_all_seeds_give_no_interval() -> None:
    text = sentence(methods("semckd", "kd", evidence(lambda run: BASE[run.method])))
    assert text.startswith("semckd and kd cannot be tested: +1.00 points")
    assert text.endswith("no interval: the difference is the same for every seed")


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
        methods(*names, evidence())
    assert text in str(error.value) and "\n" not in str(error.value)


def test_different_protocols_are_refused_without_mix() -> None:
    short = evidence(protocol=PROTOCOL.model_copy(update={"epochs": 1, "alpha": 0.5}))
    with pytest.raises(CompareError) as error:
        methods("semckd", "semckd", evidence(), short)
    message = str(error.value)
    assert "different protocols (epochs 2 and 1; alpha 1.0 and 0.5)" in message
    assert "--mix" in message and "\n" not in message
    comparison = methods("semckd", "kd", evidence(), short, mix=True)
    assert lines(comparison)[-1] == (
        "  ATTENTION: semckd under fake, kd under fake: the difference includes the effect of the "
        "protocols"
    )
    named = short.grid.protocol.model_copy(update={"name": "other"})
    other = replace(short, grid=short.grid.model_copy(update={"protocol": named}))
    assert methods("semckd", "kd", evidence(), other, mix=True).protocols == ("demo", "other")


def test_rows_of_two_grids_with_the_same_protocol() -> None:
    comparison = methods("semckd", "kd", evidence(), evidence(name="again"))
    assert comparison.protocols is None
    assert comparison.overall == methods("semckd", "kd", evidence()).overall


# --- the command ---


def test_command_reads_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    archive.write(evidence(), path)
    done = kdbench("compare", "semckd", "kd", "--from", path)
    assert done.exit_code == 0
    assert done.stdout.startswith("semckd is better than kd on 2 of 2 pairs; +1.12 points")
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


def write_two_runs(folder: Path, **changes: object) -> tuple[Run, Run]:
    """Write two runs; ``changes`` apply to the training of the second run."""
    cells = make_cells(make_grid())
    first, second = cells[2].runs[0], cells[3].runs[0]
    second = replace(second, training=second.training.model_copy(update=changes))
    for run, accuracy in ((first, 71.0), (second, 72.5)):
        records.write_run(folder, run)
        records.write(folder, make_record(run, accuracy))
    return first, second


def test_two_runs_support_no_conclusion(tmp_path: Path) -> None:
    first, second = write_two_runs(tmp_path)
    done = kdbench("compare", second.id, tmp_path / first.id, "--runs", tmp_path)
    assert done.exit_code == 0
    beginnings = kdbench("compare", second.id[:8], first.id[:8], "--runs", tmp_path)
    assert beginnings.stdout == done.stdout
    [line] = mistakes("compare", second.id[:8], "0" * 17, "--runs", tmp_path)
    assert line.startswith("0" * 17 + ": not a run; ")
    difference, conclusion = done.stdout.splitlines()
    assert "72.50" in difference and "71.00; +1.50 points" in difference
    assert "an effect of the method cannot be distinguished from chance" in conclusion


def test_two_runs_of_different_protocols_are_refused(tmp_path: Path) -> None:
    first, second = write_two_runs(tmp_path, epochs=7)
    args = ("compare", first.id, second.id, "--runs", tmp_path)
    [line] = mistakes(*args)
    assert "different protocols (epochs 2 and 7)" in line
    assert "ATTENTION: different protocols: epochs 2 and 7" in kdbench(*args, "--mix").stdout


def test_two_runs_without_comparable_results_are_refused(tmp_path: Path) -> None:
    first, second = write_two_runs(tmp_path)
    (tmp_path / second.id / "record.json").unlink()  # an existing record is never replaced
    records.write(tmp_path, make_record(second, 72.5, data="e" * 64))
    assert (
        "measured on different data"
        in mistakes("compare", first.id, second.id, "--runs", tmp_path)[0]
    )
    (tmp_path / second.id / "record.json").unlink()
    with pytest.raises(CompareError, match="no result: no record yet"):
        compare.two_runs(tmp_path, first.id, second.id)
    with pytest.raises(CompareError, match="not a run; expected a folder"):
        compare.two_runs(tmp_path, first.id, "nothing")
