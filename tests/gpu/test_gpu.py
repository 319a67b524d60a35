"""A GPU gives the right numbers, and the same bits in every way of training.

The code is that of ``benchmarks/gpu_check``, here without time limits and with a test per method.
"""

import warnings
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_check import batches, goldens, invariants, precision, subjects, syncs
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.sizes import all_methods
from benchmarks.gpu_check.training import OtherProcess, School, school
from benchmarks.gpu_check.ways import Way
from benchmarks.subjects import noise
from kdbench.method import Incompatible

# Warnings are about the card and its driver, not about this code.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default"), pytest.mark.timeout(1200)]

WAITS = '''
"""A method that draws numbers and waits for the device (2020)."""
import torch
from kdbench.method import Method


class Waits(Method):
    def loss(self, s, t, batch):
        drawn = torch.rand(10, generator=batch.generator(1, "waits"), device=s.logits.device)
        scale = 2.0 if s.logits.sum().item() > 0 else 1.0
        return scale * (s.logits[:, :10] * drawn).square().mean()
'''
PRECISIONS = ("fp32", "tf32", "bf16")
Found = dict[str, dict[str, str]]


def skip_tf32_on_a_cpu(check: Check, name: str) -> None:
    if name == "tf32" and not check.cuda:
        pytest.skip("only GPUs have tf32")


@pytest.mark.parametrize(
    "path", goldens.cases(), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_golden_case_in_float64(check: Check, path: Path) -> None:
    worst = goldens.compared(path, check.device)
    assert worst.relative <= goldens.BOUNDS.get(path.parent.name, goldens.BOUND), worst.where


def test_loss_and_gradient_in_each_precision(check: Check) -> None:
    precision.run(check)
    assert not check.outcome.failed


def test_batches_have_the_bits_of_the_cpu(check: Check) -> None:
    data = noise(check.sizes.images, check.sizes.classes)
    count = check.sizes.batches
    assert batches.equal_batches(data, check.device, check.sizes.batch, count) == count


@pytest.mark.parametrize("name", all_methods())
def test_step_does_not_wait_for_the_device(check: Check, name: str) -> None:
    data = subjects.noise_images(check, 1024)
    loaded = subjects.teacher(data, check.sizes.small_pair[0], check.device)
    try:
        count, where = syncs.waits(name, check.sizes.small_pair, data, loaded, check.device)
    except Incompatible as reason:
        pytest.skip(str(reason))
    assert not count or name in syncs.WAITING, where


# --- the same bits in every way -------------------------------------------------------------------


@pytest.fixture(scope="module")
def pupils(check: Check) -> School:
    return school(check)


@pytest.fixture(scope="module", params=PRECISIONS)
def found(request: pytest.FixtureRequest, check: Check, pupils: School) -> Found:
    """Train every method in every way, and return the digests by way and method."""
    name = request.param
    skip_tf32_on_a_cpu(check, name)
    methods, stop = check.sizes.methods, (check.sizes.stop,)
    eager, graph, streams = Way(name), Way(name, 1), Way(name, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return {
            "eager cohort": pupils.trained(methods, eager),
            "eager alone": pupils.trained(methods, eager, alone=True),
            "eager, resumed": pupils.trained(methods, eager, stops=stop),
            "graphs": pupils.trained(methods, graph),
            "graphs alone": pupils.trained(methods, graph, alone=True),
            "graphs on streams": pupils.trained(methods, streams),
            "graphs on streams, resumed": pupils.trained(methods, streams, stops=stop),
        }


@pytest.mark.parametrize("name", all_methods())
def test_same_bits_in_every_way(check: Check, found: Found, name: str) -> None:
    if name not in check.sizes.methods:
        pytest.skip("not in the small selection for a CPU")
    digests = {way: values[name] for way, values in found.items()}
    first = digests["eager alone"]
    if first.startswith("skipped"):
        pytest.skip(first)
    assert ":" not in first, first
    assert set(digests.values()) == {first}, digests


def test_failed_capture_disturbs_no_number(pupils: School, tmp_path: Path) -> None:
    path = tmp_path / "waits.py"
    path.write_text(WAITS.lstrip())
    methods = [str(path), "crd", "kd"]
    found = pupils.trained(methods, Way("fp32", 2))
    assert not any(":" in value for value in found.values()), found
    assert found == pupils.trained(methods, Way("fp32"))


def test_same_bits_in_another_process(check: Check, pupils: School) -> None:
    way = Way("fp32", 4)
    other = OtherProcess(check, check.sizes.methods, way)
    try:
        here = pupils.trained(check.sizes.methods, way)
        assert other.digests(600) == here
    finally:
        other.end()


def test_same_bits_on_the_real_pair_and_in_little_memory(check: Check) -> None:
    invariants.real(check)
    assert not check.outcome.failed


def test_settings_of_each_precision(check: Check) -> None:
    if not check.cuda:
        pytest.skip("a CPU has no such settings")
    from kdbench.training import device as devices

    for name in PRECISIONS:
        devices.prepare(check.device, name)
        assert torch.backends.cudnn.allow_tf32 == (name == "tf32")
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
