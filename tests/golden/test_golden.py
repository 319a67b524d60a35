"""Tests of every method against reference values, in float64; see tests/golden/README.md.

``KDBENCH_GOLDEN`` names another folder of the same form.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_cases import BUILDERS, Built, Case, read_case
from golden_cases_more import BUILDERS as MORE
from golden_models import check_case
from torch import Tensor

SHIPPED = Path(__file__).parent
FOLDER = Path(os.environ.get("KDBENCH_GOLDEN", SHIPPED))
CASES = sorted(FOLDER.glob("*/*.npz"))
LOOSE = {"hkd": 1e-7}
OURS = Path(__file__).parent == FOLDER


def test_golden_folder_has_cases() -> None:
    assert CASES, f"{FOLDER}: no folder of .npz files"


def test_no_builder_is_defined_twice() -> None:
    assert not BUILDERS.keys() & MORE.keys()


@pytest.mark.skipif(FOLDER != SHIPPED, reason="KDBENCH_GOLDEN names another folder")
def test_every_builder_has_a_case() -> None:
    folders = {path.parent.name for path in CASES}
    assert folders == {*BUILDERS, *MORE, "models"}


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden(path: Path, golden_tally: Callable[[int], None]) -> None:
    if path.parent.name == "models":
        golden_tally(check_case(path))
        return
    golden_tally(check(read_case(path)))


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


def check(case: Case) -> int:
    """Compare one case and return the number of tensors compared."""
    builders = BUILDERS | MORE
    if case.folder not in builders:
        raise AssertionError(f"{case.folder}/{case.name}: no builder in golden_cases*.py")
    built = builders[case.folder](case)
    built.method.double()
    fill(case, built)
    loss = run(case, built)
    if loss.requires_grad:
        loss.backward()
    state = built.method.state_dict()
    bound = LOOSE.get(case.folder, 1e-8)
    wrong, count = [], 0
    for key, ours, reference in comparisons(case, built, loss.detach(), state):
        count += 1
        wrong += difference(key, ours, reference, bound)
    assert not wrong, f"{case.folder}/{case.name}:\n  " + "\n  ".join(wrong)
    return count


def fill(case: Case, built: Built) -> None:
    """Copy the reference's weights and check that nothing is left over on either side."""
    ours = built.method.state_dict()
    for name, value in case.params.items():
        if name in built.read or name in built.ignore:
            continue
        assert name in built.param_names, f"param/{name} maps to nothing of ours"
        target = built.param_names[name]
        assert target in ours, f"param/{name} maps to {target}; we have {', '.join(ours)}"
        shapes = f"param/{name} {list(value.shape)}, {target} {list(ours[target].shape)}"
        assert value.numel() == ours[target].numel(), shapes
        with torch.no_grad():
            ours[target].copy_(value.reshape(ours[target].shape))
    unknown = built.param_names.keys() - case.params.keys()
    assert not unknown, f"mapped, but not in the file: {sorted(unknown)}"
    mapped = {*built.param_names.values(), *(x.removeprefix("ours:") for x in built.ignore)}
    left = [name for name, _ in built.method.named_parameters() if name not in mapped]
    assert not left, f"parameters of ours to which nothing maps: {left}"


def run(case: Case, built: Built) -> Tensor:
    method = built.method
    if built.run is not None:
        return built.run(case, method)
    term = {"distill": method.loss, "pretrain": method.pretrain_loss}[case.phase]
    return term(case.student, case.teacher, case.batch)


def comparisons(
    case: Case, built: Built, loss: Tensor, state: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the tensors to compare: (key in the file, ours, the reference's)."""
    assert loss.ndim == 0, f"the loss is of shape {list(loss.shape)}, expected a scalar"
    yield "loss", loss, case.arrays["loss"]
    nothing = torch.zeros((), dtype=torch.float64)

    gradients = case.starting("grad")
    assert gradients.keys() <= case.inputs.keys(), f"grad/ of unknown inputs: {[*gradients]}"
    for name, leaf in case.inputs.items():
        ours = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        yield f"grad/{name}", ours, gradients.get(name, nothing.expand_as(leaf))

    parameters = dict(built.method.named_parameters())
    gradients = case.starting("grad_param")
    for name in gradients.keys() - built.ignore.keys():
        assert built.param_names.get(name) in parameters, f"grad_param/{name}: no such parameter"
    for name, target in built.param_names.items():
        if target in parameters:
            leaf = parameters[target]
            ours = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            yield f"grad_param/{name}", ours, gradients.get(name, nothing.expand_as(leaf))

    for name, reference in case.starting("buffer_after").items():
        if name in built.ignore:
            continue
        if name in built.read:
            yield f"buffer_after/{name}", built.read[name](built.method), reference
        else:
            assert name in built.param_names, f"buffer_after/{name} maps to nothing of ours"
            yield f"buffer_after/{name}", state[built.param_names[name]], reference


def difference(key: str, ours: Tensor, reference: Tensor, bound: float) -> list[str]:
    """Describe the difference of two tensors, "" if they agree."""
    ours, reference = ours.detach().double(), reference.double()
    if ours.numel() != reference.numel():
        return [f"{key}: shape {list(ours.shape)}, expected {list(reference.shape)}"]
    if not reference.numel():
        return [f"{key}: empty"]
    off = (ours.reshape(reference.shape) - reference).abs().max().item()
    largest = reference.abs().max().item()
    if off <= bound * largest + 1e-10:  # False for NaN
        return []
    return [f"{key}: off by {off:.3g}, largest value {largest:.3g}"]
