"""Every method keeps the contract."""

import pytest

from kdbench import checks, registry


@pytest.mark.parametrize(
    "check", [pytest.param(f, id=n.replace(" ", "-")) for n, f in checks.CHECKS]
)
@pytest.mark.parametrize("name", registry.names())
def test_contract(name: str, check: checks.Check) -> None:
    subject = checks.Subject(registry.describe(name), registry.load(name), {})
    found = checks.result("", check, subject)
    assert found.ok, found.message
