"""Selection of swept values on held-out images."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_grids import ended, make_record
from small_grids import kdbench, mistakes, small, tree

from kdbench.errors import UserError
from kdbench.grid.expand import expand
from kdbench.grid.grid import Grid
from kdbench.grid.parsing import parse
from kdbench.grid.run import Run
from kdbench.report.selection import Selection, select
from kdbench.report.selection_text import as_json, lines, methods_line
from kdbench.runs import records as stored
from kdbench.runs.records import Record
from kdbench.stats.contrasts import over, pair

HELD = {"name": "digits", "per_class": 30, "validation": 0.2}
NOISE = ((0.0, 0.3, -0.3), (0.2, -0.1, -0.1), (-0.2, 0.1, 0.1), (0.1, 0.2, -0.3))
BETAS: dict[str, Any] = {
    "dataset": HELD,
    "seeds": [0, 1, 2],
    "pairs": ["r8w4 -> r8w3", "r8w4 -> v5w4"],
    "methods": ["kd", "at"],
    "sweep": {"at.beta": [100, 1000, 10000]},
}
MEANS = {100: 91.2, 1000: 92.85, 10000: 92.9}


def held_out(run: Run, means: Mapping[Any, float] = MEANS) -> float:
    """Return a held-out accuracy: the value's mean, a seed's noise, and the pair's level."""
    beta = run.terms[0].beta if run.terms else 0
    place = list(means).index(beta) if beta in means else 3
    return means.get(beta, 50.0) + NOISE[place][run.seed] + (run.student == "v5w4")


def record(run: Run, accuracy: float) -> Record:
    """Return a record whose test accuracy is the higher, the lower its held-out accuracy is."""
    made = make_record(run, 100.0 - accuracy)
    assert made.result
    return replace(made, result=replace(made.result, val_acc=accuracy, n_train=240))


def chosen(grid: Grid, accuracy: Callable[[Run], float] = held_out, **changed: Any) -> Selection:
    """Return the selection of a complete grid.

    Args:
        changed: ``change``: function of run and record that replaces or, with None, removes it.
    """
    expansion = expand(grid)
    change = changed.pop("change", lambda run, made: made)
    made = {run.id: change(run, record(run, accuracy(run))) for run in expansion.runs}
    return select(grid, expansion.cells, {k: r for k, r in made.items() if r is not None})


def test_text_has_a_column_for_each_value() -> None:
    text = lines(chosen(small(**BETAS)))
    compared = over(
        {
            str(student): pair(
                {
                    str(beta): {s: mean + noise[s] for s in range(3)}
                    for (beta, mean), noise in zip(MEANS.items(), NOISE, strict=False)
                }
            )
            for student in range(2)
        }
    ).contrasts
    far, near = (compared[str(beta), "10000"].se for beta in (100, 1000))
    assert text == [
        "at: beta               100      1,000  10,000",
        "held out, %          91.70      93.35   93.40",
        f"behind the best  {1.70:.2f}±{far:.2f}  {0.05:.2f}±{near:.2f}       -",
        "best: 10,000, the largest tried: try larger ones. Within one standard error: 1,000.",
        "",
        "3 seeds x 2 pairs, 60 images held out (3.2 points for one accuracy, which more seeds do "
        "not reduce).",
        "methods: [kd, {at: {beta: 10000}}]        # or the simplest within one standard error: "
        "{at: {beta: 1000}}",
    ]


def test_smallest_value_as_the_best_asks_for_smaller_ones() -> None:
    means = {100: 93.0, 1000: 92.0, 10000: 91.0}
    text = lines(chosen(small(**BETAS), lambda run: held_out(run, means)))
    assert "best: 100, the smallest tried: try smaller ones." in text
    assert text[-1] == "methods: [kd, {at: {beta: 100}}]"


def test_best_inside_the_range_that_no_smaller_value_reaches() -> None:
    means = {100: 80.0, 1000: 93.0, 10000: 91.0}
    text = lines(chosen(small(**BETAS), lambda run: held_out(run, means)))
    assert "best: 1,000. No smaller value is within one standard error." in text


def test_best_value_is_chosen_by_held_out_accuracy() -> None:
    [sweep] = chosen(small(**BETAS)).sweeps  # the test accuracies are in the opposite order
    assert sweep.choice.best == "at(beta=10000)" and sweep.choice.simplest == "at(beta=1000)"


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_value_with_a_run_that_ended_badly_counts_it_as_0_and_is_never_chosen(status: Any) -> None:
    def bad(run: Run, made: Record) -> Record:
        hit = run.terms and run.terms[0].beta == 10000 and run.seed == 1 and run.student == "r8w3"
        return ended(run, status, "loss is nan") if hit else made

    selection = chosen(small(**BETAS), change=bad)
    [sweep] = selection.sweeps
    value = sweep.value("at(beta=10000)")
    assert value.per_pair["r8w4 -> r8w3"] == pytest.approx((92.7 + 0 + 93.1) / 3, abs=0.2)
    assert (value.n, value.expected, value.bad) == (5, 6, {status: 1})
    assert sweep.choice.best == "at(beta=1000)" and sweep.edges == {}  # a larger one was tried
    text = lines(selection)
    assert f"10,000: 1 of 6 runs {status}, counted as 0; not chosen." in text
    assert text[2].endswith("not ranked")


def test_value_that_lacks_a_pair_is_left_out() -> None:
    def lacking(run: Run, made: Record) -> Record | None:
        hit = run.terms and run.terms[0].beta == 10000 and run.student == "r8w3"
        return None if hit else made

    text = lines(chosen(small(**BETAS), change=lacking))
    assert "10,000: no result on r8w4 -> r8w3; not chosen." in text
    assert text[2].endswith("not ranked") and text[-1].startswith(
        "methods: [kd, {at: {beta: 1000}}"
    )


def test_pair_without_any_result_does_not_count() -> None:
    text = lines(
        chosen(small(**BETAS), change=lambda run, made: None if run.student == "v5w4" else made)
    )
    assert "No results on r8w4 -> v5w4: left out." in text
    assert any(line.startswith("best: 10,000") for line in text)


def test_missing_seeds_are_named_and_the_value_may_be_chosen() -> None:
    def missing(run: Run, made: Record) -> Record | None:
        hit = run.terms and run.terms[0].beta == 10000 and run.seed == 0
        return None if hit else made

    text = lines(chosen(small(**BETAS), change=missing))
    assert "10,000: 4 of 6 runs finished so far." in text
    assert any(line.startswith("best: 10,000") for line in text)
    assert "Fewer than 3 seeds: standard errors are very uncertain." in text


def test_one_seed_gives_the_best_alone() -> None:
    selection = chosen(small(**BETAS | {"seeds": [0]}))
    text = lines(selection)
    assert text[2].split() == ["behind", "the", "best", "1.85", "-", "0.35"]
    assert "best: 1,000." in text
    assert "Fewer than 3 seeds: no standard errors." in text
    assert text[-1] == "methods: [kd, {at: {beta: 1000}}]"
    json_text = as_json(selection)
    assert json_text["warnings"] == ["Fewer than 3 seeds: no standard errors."]


def test_every_combination_of_two_keys_is_a_column() -> None:
    grid = small(
        **BETAS | {"sweep": {"rkd.beta": [0.1, 1], "rkd.angle": [1, 2]}, "methods": ["rkd"]}
    )

    def accuracy(run: Run) -> float:
        if not run.terms:
            return 50.0
        term = run.terms[0]
        good = 2 * (term.beta == 1) + (term.hyper["angle"] == 2)
        return 80.0 + 3 * good + NOISE[good][run.seed]

    selection = chosen(grid, accuracy)
    text = lines(selection)
    assert text[0].split() == ["rkd:", "beta", "0.1", "0.1", "1", "1"]
    assert text[1].split() == ["angle", "1", "2", "1", "2"]
    assert text[4].startswith(
        "best: beta 1 (the largest tried: try larger ones), angle 2 (the largest tried: try larger "
        "ones)."
    )
    assert text[-1] == "methods: [{rkd: {beta: 1, angle: 2}}]"
    assert selection.sweeps[0].edges == {"beta": "high", "angle": "high"}


def test_several_methods_have_a_table_each_and_one_line_to_paste() -> None:
    sweep = {"at.beta": [100, 1000], "crd.beta": [100, 10000]}
    grid = small(**BETAS | {"methods": ["kd", {"crd": {"k": 216}}, "at"], "sweep": sweep})
    text = lines(chosen(grid))
    assert [line for line in text if line.startswith(("crd: ", "at: "))] == [
        line for line in text if ": beta" in line
    ]
    assert text[-1] == "methods: [kd, {crd: {k: 216, beta: 10000}}, {at: {beta: 1000}}]"
    assert "(up to " in text[-2]


def test_many_values_continue_in_another_block() -> None:
    values = list(range(1, 31))
    grid = small(**BETAS | {"sweep": {"at.beta": values}})
    text = lines(chosen(grid, lambda run: 50.0 + 0.1 * run.seed + 10 * bool(run.terms)))
    heads = [line for line in text if line.startswith("at: beta")]
    assert [int(value) for line in heads for value in line.split()[2:]] == values
    assert len(heads) > 1 and max(map(len, text[:-3])) <= 100


@pytest.mark.parametrize(
    ("option", "values", "shown"),
    [
        ("beta", [1000, 100, 10000], ["100", "1,000", "10,000"]),  # by size
        ("relu", [True, False], ["true", "false"]),
        ("stages", ["one", "all"], ["one", "all"]),
    ],
)
def test_values_without_a_size_are_in_the_order_of_the_grid(
    option: str, values: list[Any], shown: list[str]
) -> None:
    grid = small(**BETAS | {"methods": ["fitnets"], "sweep": {f"fitnets.{option}": values}})
    rows = list(dict.fromkeys(cell.method for cell in expand(grid).cells))

    def flat(run: Run) -> float:  # all values are about as good
        place = rows.index(run.method)
        return 90.0 + NOISE[place % 4][run.seed] + 0.01 * place

    selection = chosen(grid, flat)
    [sweep] = selection.sweeps
    text = lines(selection)
    assert text[0].split() == ["fitnets:", option, *shown]
    assert sweep.choice.simplest == sweep.values[0].label
    assert bool(sweep.edges) == (option == "beta")
    assert ("tried" in text[3]) == (option == "beta")


def test_combination_of_methods_is_written_with_its_own_options() -> None:
    grid = small(**BETAS | {"methods": ["sp+at"], "sweep": {"sp+at.at.beta": [1, 10]}})
    line = methods_line(chosen(grid, lambda run: 50.0 + run.seed + len(run.terms)))
    pasted = yaml.safe_load(line)
    assert pasted == {"methods": [{"sp+at": {"at": {"beta": 1}}}]}
    assert parse(tree(**BETAS | {"sweep": {}} | pasted), source="x.yaml").methods[0].options


def test_json_has_all_numbers() -> None:
    read = as_json(chosen(small(**BETAS)))
    assert (read["images_held_out"], read["seeds"]) == (60, [0, 1, 2])
    assert read["image_error"] == pytest.approx(3.2, abs=0.1)
    [sweep] = read["sweeps"]
    assert (sweep["best"], sweep["simplest"]) == ("at(beta=10000)", "at(beta=1000)")
    assert (sweep["edge"], sweep["keys"]) == ({"beta": "high"}, ["beta"])
    first, second, third = sweep["values"]
    assert first["value"] == {"beta": 100} and first["n"] == first["expected"] == 6
    assert first["mean"] == pytest.approx(91.7) and first["behind"] == pytest.approx(1.7)
    assert first["per_pair"] == pytest.approx({"r8w4 -> r8w3": 91.2, "r8w4 -> v5w4": 92.2})
    assert second["se"] > 0 and third["se"] == third["behind"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "digits"}, r"grid\.yaml: dataset\.validation: missing; e\.g\. 0\.1 to hold"),
        ({"sweep": {}}, r"grid\.yaml: sweep: missing; e\.g\. \{kd\.alpha: \[0\.5, 1, 2\]\}"),
    ],
)
def test_grid_without_sweep_or_held_out_images_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        chosen(small(**BETAS | changes))


def test_command_prints_the_choice_of_stored_runs(tmp_path: Path) -> None:
    path, runs = tmp_path / "grid.yaml", tmp_path / "runs"
    path.write_text(yaml.safe_dump(tree(**BETAS)))
    args = ("select", "--grid", path, "--runs", runs)
    assert mistakes(*args) == [f"{path}: no run has finished; kdbench run --grid {path}"]
    for run in expand(small(**BETAS)).runs:
        stored.write_run(runs, run)
        stored.write(runs, record(run, held_out(run)))
    done = kdbench(*args)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == lines(chosen(small(**BETAS)))
    read = json.loads(kdbench(*args, "--json").stdout)
    assert read["command"] == "select" and read["sweeps"][0]["best"] == "at(beta=10000)"
