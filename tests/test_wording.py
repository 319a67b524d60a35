"""Counts and durations as text."""

import pytest

from kdbench.wording import counted, duration


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 seeds"), (1, "1 seed"), (3, "3 seeds"), (1200, "1,200 seeds")]
)
def test_count_agrees_with_its_noun(n: int, text: str) -> None:
    assert counted(n, "seed") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0.0 s"),
        (3.6, "3.6 s"),
        (60, "1.0 min"),
        (1800, "30.0 min"),
        (3723, "1.0 h"),
        (27.16 * 3600, "27.2 h"),
        (1234.5 * 3600, "1,234 h"),
    ],
)
def test_duration_has_a_readable_unit(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
