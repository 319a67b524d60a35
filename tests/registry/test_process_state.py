"""The process's state is restored, and what was changed is named."""

import os
import warnings

import pytest
import torch

from kdbench.method import ContractBroken
from kdbench.registry.process_state import QUICK, SETTINGS, Setting, kept


def test_several_changes_are_undone_and_named() -> None:
    threads = torch.get_num_threads()
    with (
        pytest.raises(
            ContractBroken, match=r"^KD changes torch.set_grad_enabled and torch.set_num"
        ),
        kept("KD"),
    ):
        torch.set_num_threads(threads + 1)
        torch.set_grad_enabled(False)
    assert torch.is_grad_enabled() and torch.get_num_threads() == threads


def test_state_is_restored_after_an_error_which_stays() -> None:
    with pytest.raises(KeyError), kept("KD"):
        torch.set_default_dtype(torch.float64)
        raise KeyError
    assert torch.get_default_dtype() == torch.float32


def test_a_change_explains_another_breach_of_the_contract() -> None:
    with pytest.raises(ContractBroken, match="set_grad_enabled"), kept("KD"):
        torch.set_grad_enabled(False)
        raise ContractBroken("no gradient")


def test_filters_and_environment_are_restored_without_an_error() -> None:
    before = list(warnings.filters), dict(os.environ)
    with kept("KD"):
        warnings.simplefilter("ignore")
        os.environ["KDBENCH_TEST"] = "1"
        os.environ.pop("PATH")
    assert (list(warnings.filters), dict(os.environ)) == before
    with kept("KD", silent=True):
        torch.set_grad_enabled(False)
    assert torch.is_grad_enabled()


def test_open_autocast_is_closed_and_its_casts_are_forgotten() -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    with pytest.raises(ContractBroken, match=r"KD changes torch.autocast"), kept("KD", QUICK):
        torch.autocast_increment_nesting()
    with torch.autocast("cpu", torch.bfloat16):
        torch.mm(weight, weight)
        with torch.no_grad():
            weight.mul_(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.mm(weight, weight).max() == 8


def test_every_setting_can_be_read_and_put_back() -> None:
    before = [setting.get() for setting in SETTINGS]
    for setting, value in zip(SETTINGS, before, strict=True):
        setting.set(value)
    assert [
        setting.get() for setting in SETTINGS if not setting.name.startswith("torch.backends: ")
    ] == [
        value
        for setting, value in zip(SETTINGS, before, strict=True)
        if not setting.name.startswith("torch.backends: ")
    ]


def test_setting_that_cannot_be_put_back_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(value: int) -> None:
        raise RuntimeError("no")

    values = [1]
    stuck = Setting("a switch", lambda: values[0], refuse)
    with pytest.raises(ContractBroken, match="KD changes a switch"), kept("KD", (stuck,)):
        values[0] = 2
    assert "a switch cannot be put back: later runs use 2" in caplog.text
