"""Rows that show another prediction than the deployed network's: ``report.answers``."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_grids import aggregate_of, evidence_of, make_cells, make_grid, make_record

from kdbench.grid.grid import Grid, GridError, Report
from kdbench.grid.parsing import parse
from kdbench.grid.run import Run
from kdbench.report import compare, leaderboard
from kdbench.report.compare_sentences import lines
from kdbench.runs.records import Record
from kdbench.stats.aggregate import Aggregate, LeaderboardError

ANSWERS = {"mean": 70.0, "ensemble": 72.0}
NOTE = "crd: accuracy of the answer mean, a prediction from networks that learn together"


def record(run: Run, answers: dict[str, float] | None) -> Record:
    made = make_record(run, 60.0 + run.seed)
    assert made.result
    return replace(made, result=replace(made.result, answers=answers))


def given(answers: dict[str, str]) -> Aggregate:
    """Return a grid's statistics; seed s of every row has 60 + s, its mean 70 + s."""
    grid = make_grid(report=Report(answers=answers))
    cells = make_cells(grid, ("kd", "crd"))
    records = {
        run.id: record(
            run, {k: v + run.seed for k, v in ANSWERS.items()} if cell.method == "crd" else None
        )
        for cell in cells
        for run in cell.runs
    }
    return aggregate_of(grid, cells, records)


def test_row_shows_the_accuracy_of_its_answer() -> None:
    aggregate = given({"crd": "mean"})
    rows = aggregate.frame.set_index("method")
    assert rows["mean"][["crd", "kd"]].tolist() == [71.0, 61.0]
    assert (rows["diff"]["crd"], rows["accuracies"]["crd"]) == (10.0, "70 71 72")
    assert rows["best_mean"].isna()["crd"]  # the best epoch is the deployed network's
    assert rows["best_mean"]["kd"] == 61.5
    without = given({})
    assert without.frame["mean"].tolist()[2:] == [61.0, 61.0]


def test_a_footnote_says_so_on_every_page(tmp_path: Path) -> None:
    aggregate = given({"crd": "mean"})
    path = leaderboard.write(aggregate, tmp_path)
    for name in ("leaderboard.md", "index.html", "leaderboard.tex"):
        text = path.with_name(name).read_text("utf-8")
        assert NOTE in text, name
    aggregate = given({})
    path = leaderboard.write(aggregate, tmp_path, replace=True)
    assert "learn together" not in path.read_text("utf-8")


def test_comparison_of_two_rows_uses_the_answer() -> None:
    grid = make_grid(report=Report(answers={"crd": "ensemble"}))
    cells = make_cells(grid, ("kd", "crd"))
    records = {run.id: record(run, ANSWERS) for cell in cells for run in cell.runs}
    evidence = evidence_of(grid, cells, records)
    comparison = compare.compare_rows("crd", "kd", evidence)
    [pair] = comparison.pairs.values()
    assert pair.diff == pytest.approx(72 - 61)
    assert comparison.notes[0].startswith("crd: accuracy of the answer ensemble")
    assert not any(line.endswith("..") for line in lines(comparison))


def test_run_without_the_answer_is_an_error() -> None:
    message = r"report\.answers\.crd: median: unknown; run [0-9a-f]{16} has mean, ensemble$"
    with pytest.raises(LeaderboardError, match=message):
        given({"crd": "median"})
    with pytest.raises(LeaderboardError, match=r"report\.answers\.kd: mean: unknown; .* has none$"):
        given({"kd": "mean"})


PLUGIN = """
from kdbench.method import Method


class Mine(Method):
    def loss(self, s, t, batch):
        return s.logits.sum()

    def answers(self, s):
        return {"mean": s.logits, "ensemble": s.logits}
"""


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        (
            {"mine": "median"},
            "mine: median: unknown; accepted: ensemble, mean (did you mean mean?)",
        ),
        ({"kd": "mean"}, "kd: mean: unknown; accepted: none"),
        ({"other": "mean"}, "other: unknown; accepted: kd, mine"),
    ],
)
def test_unknown_answers_and_rows_are_mistakes(
    tmp_path: Path, answers: dict[str, str], line: str
) -> None:
    with pytest.raises(GridError) as error:
        load(tmp_path, answers)
    [found] = error.value.lines
    assert found.startswith(f"grid.yaml: report.answers.{line}")


def test_known_answers_are_accepted(tmp_path: Path) -> None:
    load(tmp_path, {"mine": "ensemble"})


def test_grid_that_chooses_on_held_out_images_has_no_answers(tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"report\.answers: this grid chooses values by held-out"):
        load(tmp_path, {"mine": "mean"}, validation=0.2, sweep={"mine.beta": [1, 2]})


def load(
    folder: Path, answers: dict[str, str], validation: float | None = None, **more: object
) -> Grid:
    plugin = folder / "mine.py"
    plugin.write_text(PLUGIN)
    tree = {
        "name": "x",
        "dataset": {"name": "digits", "validation": validation or None},
        "protocol": "demo",
        "seeds": [0],
        "pairs": ["resnet8 -> resnet8"],
        "methods": ["kd", str(plugin)],
        "report": {"answers": answers},
    }
    return parse(tree | more, source="grid.yaml")
