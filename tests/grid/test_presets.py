"""Presets: the protocols that are included."""

import pytest

from kdbench.grid.name_checks import protocol_errors
from kdbench.grid.settings import Protocol
from kdbench.grid.yaml_tree import preset, presets
from kdbench.registry import lookup

LITERATURE = {
    "semckd": {
        "fitnets": 100, "at": 1000, "sp": 3000, "vid": 1, "cc": 0.02, "rkd": 1, "pkt": 30000,
        "crd": 0.8, "irg": 0.005, "hkd": 1, "semckd": 400, "srrl": 1, "simkd": 1,
        "ft": 200,
    },
    "crd": {
        "fitnets": 100, "at": 1000, "sp": 3000, "vid": 1, "cc": 0.02, "rkd": 1, "pkt": 30000,
        "crd": 0.8, "nst": 50, "ft": 200, "ab": 1, "fsp": 1,
    },
}  # fmt: skip
"""Loss weights of each preset, from its authors' scripts."""


@pytest.mark.parametrize("name", presets())
def test_presets_are_complete_and_their_methods_exist(name: str) -> None:
    protocol = Protocol(**preset(name))
    assert list(protocol_errors(protocol, name)) == []
    assert protocol.source
    written = set(preset(name))
    assert written >= {"epochs", "batch_size", "lr", "schedule", "gamma", "alpha", "temperature"}


@pytest.mark.parametrize("name", LITERATURE)
def test_weights_equal_those_of_the_papers(name: str) -> None:
    methods = Protocol(**preset(name)).methods
    betas = {method: options["beta"] for method, options in methods.items() if "beta" in options}
    assert betas == LITERATURE[name]


def test_objectives_follow_conventions_of_protocols() -> None:
    semckd, crd = (Protocol(**preset(name)) for name in ("semckd", "crd"))
    assert (semckd.gamma, semckd.alpha, semckd.temperature) == (1, 1, 4)
    assert (crd.gamma, crd.alpha, crd.temperature) == (1, 0, 4)
    assert crd.methods["kd"] == {"gamma": 0.1, "alpha": 0.9}
    assert crd.methods["crd+kd"] == {"gamma": 1, "alpha": 1}
    assert semckd.methods["simkd"]["gamma"] == semckd.methods["simkd"]["alpha"] == 0
    assert semckd.methods["fitnets"]["hint_layer"] == 1
    assert crd.methods["fitnets"]["hint_layer"] == 2
    for protocol in (semckd, crd):
        assert (protocol.epochs, protocol.batch_size, protocol.lr) == (240, 64, 0.05)
        assert protocol.schedule.milestones == (150, 180, 210)
        assert not protocol.nesterov and protocol.weight_decay == 5e-4
        for student in ("MobileNetV2", "ShuffleV1", "ShuffleV2"):
            assert protocol.training(student).lr == 0.01
        assert protocol.training("vgg8").lr == 0.05


def test_default_betas_agree_with_the_presets() -> None:
    for method in ("at", "sp", "pkt", "crd", "semckd"):
        for name in ("semckd", "crd"):
            options = preset(name)["methods"].get(method, {})
            assert options.get("beta", lookup.describe(method).beta) == lookup.describe(method).beta
