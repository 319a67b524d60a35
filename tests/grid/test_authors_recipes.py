"""Every run of every included grid against the recipes of its authors' scripts.

``authors_recipes.yaml`` holds the recipes as data, independent of kdbench's presets.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.grid.run import Run, pair_name
from kdbench.grid.yaml_tree import ROOT

FACTS: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("authors_recipes.yaml").read_text("utf-8")
)
GRIDS = {path.stem: path for path in sorted((ROOT / "experiments").glob("*.yaml"))}
COMPARED = [name for name in GRIDS if name not in FACTS["not_the_authors"]]

Row = tuple[str, str, Run]


def rows(name: str) -> Iterator[Row]:
    """Yield protocol, pair and run of every run of a grid, auxiliary networks included."""
    grid = load(GRIDS[name])
    for run in expand(grid).runs:
        if run.seed == min(grid.seeds):
            teacher = run.teacher.arch if run.teacher else run.student
            yield grid.protocol.name, pair_name(teacher, run.student), run


ALL: dict[str, list[Row]] = {name: list(rows(name)) for name in COMPARED}


def rules(facts: dict[str, Any], protocol: str, pair: str, run: Run) -> list[int]:
    """Return the positions of the rules for a run; networks trained alone have no pair."""
    return [
        i
        for i, rule in enumerate(facts["protocols"].get(protocol, ()))
        if run.method in rule["rows"]
        and any(fnmatchcase(pair, pattern) for pattern in rule.get("pairs", ["*"]))
    ]


def recipe(facts: dict[str, Any], protocol: str, run: Run) -> dict[str, Any]:
    """Return the recipe of a run's training, the rate by its student."""
    common = facts["common"] | facts["recipes"].get(protocol, {})
    rates = [
        rate
        for rate, students in common.pop("lr").items()
        if any(fnmatchcase(run.student, pattern) for pattern in students)
    ]
    return common | {"lr": rates[0] if len(rates) == 1 else rates}


def mistakes(facts: dict[str, Any], row: Row) -> list[str]:
    """Return the values of a run that are not those of the facts."""
    protocol, pair, run = row
    found = rules(facts, protocol, pair, run)
    if len(found) != 1:
        return [f"{len(found)} rules"]
    rule = facts["protocols"][protocol][found[0]]
    training = run.training
    resolved: dict[str, Any] = training.model_dump() | {
        "schedule": training.schedule.kind,
        "milestones": list(training.schedule.milestones),
        "factor": training.schedule.factor,
    }
    expected = recipe(facts, protocol, run) | rule.get("recipe", {})
    values = {key: resolved[key] for key in expected}
    gamma, alpha, temperature = rule["weights"]
    expected |= {"gamma": gamma, "alpha": alpha, "temperature": temperature}
    values |= {"gamma": run.gamma, "alpha": run.alpha}
    values |= {"temperature": run.temperature if alpha else None}
    expected["first"] = rule.get("first")
    values["first"] = list(run.pretrain) if run.pretrain else None
    several = len(run.terms) > 1
    for term in run.terms:
        beta, hyper = rule["beta"], rule.get("hyper", {})
        if several:
            beta, hyper = beta[term.method], hyper.get(term.method, {})
        if beta != "unused":
            expected[f"{term.method}.beta"], values[f"{term.method}.beta"] = beta, term.beta
        for key, value in hyper.items():
            given = term.hyper[key]
            expected[f"{term.method}.{key}"] = value
            values[f"{term.method}.{key}"] = list(given) if isinstance(given, tuple) else given
    return [f"{key}: {values[key]}, not {expected[key]}" for key in expected
            if values[key] != expected[key]]  # fmt: skip


def all_mistakes(facts: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {row[2].method}, {row[1]}: {mistake}"
        for name, of_grid in ALL.items()
        for row in of_grid
        for mistake in mistakes(facts, row)
    ]


def test_every_run_has_the_recipe_of_its_authors() -> None:
    assert all_mistakes(FACTS) == []


def test_every_rule_has_a_run() -> None:
    used = {
        (protocol, i)
        for of_grid in ALL.values()
        for protocol, pair, run in of_grid
        for i in rules(FACTS, protocol, pair, run)
    }
    every = {(name, i) for name, given in FACTS["protocols"].items() for i in range(len(given))}
    assert every - used == set()


def test_every_name_and_pattern_of_a_rule_has_a_run() -> None:
    for protocol, given in FACTS["protocols"].items():
        for rule in given:
            known = [
                (run.method, pair)
                for of_grid in ALL.values()
                for name, pair, run in of_grid
                if name == protocol and run.method in rule["rows"]
            ]
            assert {method for method, _ in known} == set(rule["rows"])
            for pattern in rule.get("pairs", ()):
                assert any(fnmatchcase(pair, pattern) for _, pair in known), (rule, pattern)


def test_every_rule_has_a_source() -> None:
    sources = {rule["source"][:3] for given in FACTS["protocols"].values() for rule in given}
    assert sources == {*"RSKMVLOTNCFYWDXUAP", "own"}


def test_grids_that_are_not_compared_have_a_protocol_of_kdbench() -> None:
    for name in FACTS["not_the_authors"]:
        source = load(GRIDS[name]).protocol.source
        assert source is not None and source.startswith("kdbench's own reduced setting")


@pytest.mark.parametrize(
    ("method", "changes", "mistake"),
    [
        ("ft", {"pretrain": (30, 0.05)}, "first: [30, 0.05], not [30, 0.01]"),
        ("ft", {"pretrain": None}, "first: None, not [30, 0.01]"),
        ("kd", {"pretrain": (30, 0.01)}, "first: [30, 0.01], not None"),
        ("kd", {"alpha": 1.0}, "alpha: 1.0, not 0.9"),
        ("kd", {"temperature": 1.0}, "temperature: 1.0, not 4"),
        ("at", {"lr": 0.01}, "lr: 0.01, not 0.05"),
        ("at", {"weight_decay": 1e-4}, "weight_decay: 0.0001, not 0.0005"),
        ("at", {"beta": 1.0}, "at.beta: 1.0, not 1000"),
        ("crd", {"k": 4096}, "crd.k: 4096, not 16384"),
        ("kd", {"method": "new"}, "0 rules"),
    ],
)
def test_a_wrong_value_is_found(method: str, changes: dict[str, Any], mistake: str) -> None:
    [(protocol, pair, run)] = [
        row
        for row in ALL["repdistiller_same"]
        if (row[2].method, row[1]) == (method, "resnet56 -> resnet20")
    ]
    [term] = run.terms
    for key, value in changes.items():
        if key in ("lr", "weight_decay"):
            run = replace(run, training=run.training.model_copy(update={key: value}))
        elif key == "beta":
            run = replace(run, terms=(replace(term, beta=value),))
        elif key in term.hyper and key != "temperature":
            run = replace(run, terms=(replace(term, hyper=term.hyper | {key: value}),))
        else:
            run = replace(run, **{key: value})
    assert mistakes(FACTS, (protocol, pair, run)) == [mistake]


def test_a_missing_rule_is_found() -> None:
    facts = deepcopy(FACTS)
    rules = facts["protocols"]["crd"]
    facts["protocols"]["crd"] = [rule for rule in rules if rule["rows"] != ["crd+kd"]]
    assert len(all_mistakes(facts)) == 13
