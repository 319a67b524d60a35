"""Initial weights: they depend on the run only, and no generator of a GPU is touched for them."""

from typing import Any

import pytest
import torch
from tiny_runs import alone, data, taught

from kdbench.method import Setup
from kdbench.models import zoo
from kdbench.rng import key
from kdbench.training.build import build_methods, build_network, dry_run


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The devices whose generators were saved and restored, a list that grows."""
    devices: list[Any] = []
    fork_rng = torch.random.fork_rng

    def fork(*args: Any, **options: Any) -> Any:
        devices.append(options.get("devices", args[0] if args else None))
        return fork_rng(*args, **options)

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    return devices


def test_networks_and_methods_save_no_generator_of_a_gpu(forks: list[Any]) -> None:
    """With None, torch saves those of all GPUs, and warns if there are several."""
    teacher = alone(student="r8w4")
    run = taught(teacher, "semckd")
    before = torch.get_rng_state()
    network = build_network(run, num_classes=10, in_channels=1)
    shapes = dry_run(network, 1, 8)
    labels = data().train_labels
    setup = Setup(shapes, shapes, labels, batch_size=16, num_classes=10, seed=0)
    build_methods(run, setup)
    assert forks == [(), ()]
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_those_of_the_networks_seed() -> None:
    network = build_network(alone(3), num_classes=10, in_channels=1)
    torch.manual_seed(key(3, "init", "r8w3"))
    expected = zoo.create("r8w3", num_classes=10, in_channels=1)
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
