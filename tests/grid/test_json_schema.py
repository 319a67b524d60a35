"""JSON Schema of grid files, against the parser."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from small_grids import kdbench, small, tree

from kdbench.errors import UserError
from kdbench.grid.json_schema import schema
from kdbench.grid.yaml_tree import ROOT, parse_yaml
from kdbench.registry import lookup

GRIDS = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.fixture(scope="module")
def editor() -> Draft7Validator:
    """Return a validator of the printed schema, as an editor uses it."""
    printed = json.loads(kdbench("schema").stdout)
    Draft7Validator.check_schema(printed)
    return Draft7Validator(printed)


def mistakes(editor: Draft7Validator, grid: dict[str, Any]) -> list[str]:
    return [error.message for error in editor.iter_errors(grid)]


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_included_grids_are_valid(editor: Draft7Validator, path: Path) -> None:
    assert mistakes(editor, parse_yaml(path.read_text(), str(path), file=True)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": {"name": "imagefolder", "root": "photos", "size": 32, "label_noise": 0.3}},
        {"dataset": {"name": "digits", "validation": 0.2, "per_class": None}},
        {"protocol": "semckd"},
        {"protocol": {"epochs": 3, "schedule": {"kind": "cosine", "warmup": 0.1}}},
        {"protocol": {"preset": "crd", "methods": {"at": {"beta": 10}, "kd+at": {"alpha": 0}}}},
        {"protocol": {"lr_of": {"r8w3": 0.1}, "compile": True, "precision": "bf16"}},
        {"pairs": [{"teacher": "wrn_40_2", "student": "MobileNetV2", "lr": 0.01}]},
        {"methods": ["semckd+at", {"semckd": {"beta": 5}}, {"kd": None}]},
        {"methods": [{"semckd+at": {"semckd": {"beta": 2}, "alpha": 1.5}}]},
        {"methods": [{"hkd": {"auxiliary": {"student": "r8w4", "method": "kd"}}}]},
        {"methods": ["kd"], "sweep": {"kd.alpha": [1, 2]}, "report": {"tie": 0.1}},
        {"sweep": None, "teacher": {"seed": 1, "dataset": "digits", "protocol": "demo"}},
        {"executor": {"kind": "slurm", "slurm": {"memory": "24 GB", "sbatch": {"comment": "x"}}}},
    ],
)
def test_values_that_kdbench_accepts_are_valid(
    editor: Draft7Validator, changes: dict[str, Any]
) -> None:
    small(**changes)
    assert mistakes(editor, tree(**changes)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "digits"}, {"source": "x"}, {"name": "a b"}, {"name": 3},
        {"dataset": "cifar"}, {"dataset": {"name": "digits", "size": 0}}, {"dataset": None},
        {"dataset": {"name": "digits", "validation": 1}}, {"dataset": {"size": 8}},
        {"protocol": "semkd"}, {"protocol": {"preset": "x"}}, {"protocol": {"epoch": 3}},
        {"protocol": {"epochs": 0}}, {"protocol": {"epochs": 2.5}}, {"protocol": {"lr": 0}},
        {"protocol": {"momentum": 1}}, {"protocol": {"precision": "fp16"}},
        {"protocol": {"schedule": {"kind": "poly"}}}, {"protocol": {"methods": {"at": {"bta": 1}}}},
        {"protocol": {"methods": {"atx": {}}}},
        {"pairs": ["r8w4 r8w3"]}, {"pairs": []}, {"pairs": [{"teacher": "r8w4"}]},
        {"pairs": [{"teacher": "r8w4", "student": "r8w3", "lr": -1}]},
        {"seeds": []}, {"seeds": [-1]}, {"seeds": [True]}, {"seeds": 3},
        {"methods": ["semkd"]}, {"methods": [{"kd": {}, "at": {}}]}, {"methods": [{}]},
        {"methods": [{"semckd": {"bta": 1}}]}, {"methods": [{"semckd": {"beta": -1}}]},
        {"methods": [{"kd": {"standardise": 3}}]}, {"methods": [{"kd": 3}]},
        {"executor": {"kind": "pbs"}}, {"executor": {"device": "gpu"}}, {"report": {"of": 1}},
        {"executor": {"slurm": {"memory": "24"}}}, {"teacher": {"dataset": "mnist"}},
    ],
)  # fmt: skip
def test_values_that_kdbench_refuses_are_not_valid(
    editor: Draft7Validator, changes: dict[str, Any]
) -> None:
    with pytest.raises(UserError):
        small(**changes)
    assert mistakes(editor, tree(**changes))


def test_grid_that_extends_another_needs_no_key(editor: Draft7Validator) -> None:
    assert mistakes(editor, {"extends": "table1.yaml"}) == []
    assert len(mistakes(editor, {})) == 5


def test_every_method_is_listed_with_its_options() -> None:
    parts = schema()["$defs"]
    rows = parts["Row"]["anyOf"]
    assert rows[0]["enum"] == list(rows[2]["properties"]) == lookup.names()
    options = parts["of-semckd"]
    assert options["description"] == lookup.describe("semckd").doc
    assert set(lookup.describe("semckd").hyper) < set(options["properties"])
