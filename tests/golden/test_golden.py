"""Tests of every method against reference values, in float64; see tests/golden/README.md.

``KDBENCH_GOLDEN`` names another folder of the same form.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_builders import BUILDERS
from golden_check import check
from golden_files import read_case
from golden_models import check_case

from kdbench.device_forms import gpu_forms

SHIPPED = Path(__file__).parent
FOLDER = Path(os.environ.get("KDBENCH_GOLDEN", SHIPPED))
CASES = sorted(FOLDER.glob("*/*.npz"))
OURS = Path(__file__).parent == FOLDER


def test_golden_folder_has_cases() -> None:
    assert CASES, f"{FOLDER}: no folder of .npz files"


@pytest.mark.skipif(FOLDER != SHIPPED, reason="KDBENCH_GOLDEN names another folder")
def test_every_builder_has_a_case() -> None:
    folders = {path.parent.name for path in CASES}
    assert folders == {*BUILDERS, "models"}


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden(path: Path, golden_tally: Callable[[int], None]) -> None:
    if path.parent.name == "models":
        golden_tally(check_case(path))
        return
    golden_tally(check(read_case(path)))


@pytest.mark.parametrize(
    "path",
    [path for path in CASES if path.parent.name != "models"],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_golden_in_the_form_for_gpus(path: Path) -> None:
    with gpu_forms():
        check(read_case(path))


def test_wrong_number_is_found() -> None:
    case = read_case(SHIPPED / "vid" / "match_b4.npz")
    key = "grad_param/vid.1.log_scale"
    case.arrays[key][2] *= 1 + 1e-6
    with pytest.raises(AssertionError, match=f"{key}: off by .*e-08"):
        check(case)


@pytest.mark.parametrize("key", ["loss", "grad/s_stage1", "buffer_after/regressor.bn.running_var"])
def test_nan_is_always_wrong(key: str) -> None:
    case = read_case(SHIPPED / "fitnets" / "same_size_l2_b4.npz")
    case.arrays[key].fill_(torch.nan)
    with pytest.raises(AssertionError, match=f"{key}: off by nan"):
        check(case)


def test_gradient_missing_in_reference_is_found() -> None:
    case = read_case(SHIPPED / "at" / "match_b4.npz")
    del case.arrays["grad/s_stage1"]
    with pytest.raises(AssertionError, match=r"grad/s_stage1: off by .*, largest value 0\b"):
        check(case)


@pytest.mark.parametrize("key", ["param/new.weight", "grad_param/new.weight", "buffer_after/new"])
def test_unmapped_tensor_is_found(key: str) -> None:
    case = read_case(SHIPPED / "vid" / "match_b4.npz")
    case.arrays[key] = torch.ones(1, dtype=torch.float64)
    with pytest.raises((AssertionError, KeyError), match="new"):
        check(case)


def test_unmapped_parameter_of_method_is_found() -> None:
    case = read_case(SHIPPED / "vid" / "match_b4.npz")
    del case.arrays["param/vid.0.log_scale"]
    with pytest.raises(AssertionError, match=r"to which nothing maps: \['parts\.0\.log_scale'\]"):
        check(case)


def test_method_without_a_builder_is_found() -> None:
    case = replace(read_case(SHIPPED / "at" / "match_b4.npz"), folder="new")
    with pytest.raises(AssertionError, match="new/match_b4: no builder"):
        check(case)
