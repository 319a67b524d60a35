"""Consecutive steps issue the same operations, as a CUDA graph replays them.

A graph repeats the operations and arguments of the step that it captured; only the contents of
tensors may differ. Arguments that change within an epoch would keep their captured value.
"""

from typing import Any

import pytest
from method_variants import ALL, label
from step_operations import difference, learner, steps

from kdbench.registry import lookup

TEACHER, STUDENT = "r14w8", "r8w8"
VARIANTS = [pytest.param(*case, id=label(*case)) for case in ALL]
FAMILIES = ("r8w4", "ResNet18", "wrn_16_1", "v5w8", "MobileNetV2", "ShuffleV1", "ShuffleV2")


@pytest.mark.parametrize(("name", "hyper"), VARIANTS)
def test_two_steps_of_a_method_are_the_same_operations(name: str, hyper: dict[str, Any]) -> None:
    if name == "fcfd" and hyper.get("mixed") != "none":
        pytest.skip("it draws the modules of a step")
    one = learner(name, hyper, TEACHER, STUDENT)
    for phase in dict.fromkeys((str(one.phase), "train")):
        # The first step makes the momentum and CRD's normalisers. If it changes Python state, as
        # CRD's does, a copy takes the second step, too. A GPU takes both steps eagerly.
        _, _, third, fourth = steps(one, TEACHER, 4)
        assert one.phase == phase
        assert not difference(third, fourth)
        one.next_epoch()


@pytest.mark.parametrize("arch", FAMILIES)
def test_two_steps_of_a_model_are_the_same_operations(arch: str) -> None:
    _, second, third = steps(learner("kd", {}, TEACHER, arch), TEACHER, 3)
    assert not difference(second, third)


def test_a_method_that_reads_the_progress_is_found() -> None:
    """The test above notices a factor that depends on the step."""
    one = learner("at", {}, TEACHER, STUDENT)
    [term] = one.terms
    given = term.loss
    vars(term)["loss"] = lambda s, t, batch: given(s, t, batch) * (1 + batch.progress)
    _, second, third = steps(one, TEACHER, 3)
    assert "mul" in difference(second, third)


def test_a_method_that_waits_for_the_device_says_so() -> None:
    refusing = [name for name in lookup.names() if not lookup.load(name).capturable]
    assert refusing == ["fcfd", "kdsvd"]
