"""Tests that every method keeps the contract, in each of its variants."""

from typing import Any

import pytest
from method_variants import ALL, OTHERS, label

from kdbench.registry import checks, lookup

# Left out: the zoo's IRG, whose channels must double from stage to stage, unlike the checks' nets
# (see tests/methods/test_irg.py), and hard attention, whose argmax passes no gradient.
CHECKED = [(n, h) for n, h in ALL if h not in ({"variant": "zoo"}, {"attention": "hard"})]


@pytest.mark.parametrize(
    "check", [pytest.param(f, id=n.replace(" ", "-")) for n, f in checks.CHECKS]
)
@pytest.mark.parametrize(("name", "hyper"), [pytest.param(*c, id=label(*c)) for c in CHECKED])
def test_contract(name: str, hyper: dict[str, Any], check: checks.Check) -> None:
    resolved = lookup.hyper(name, hyper) if hyper else {}
    subject = checks.MethodUnderTest(lookup.describe(name), lookup.load(name), resolved)
    result = checks.result("", check, subject)
    assert result.ok, result.message


def test_variants_belong_to_registered_methods() -> None:
    assert set(OTHERS) <= set(lookup.names())


def test_every_method_has_a_family_and_uses() -> None:
    families = {lookup.describe(name).family for name in lookup.names()}
    assert families == {"logit", "feature map", "embedding", "relation", "contrastive", "online"}
    assert all(lookup.describe(name).uses for name in lookup.names())
