"""Numbers as text: an unknown value is a dash, infinity is ∞, and a minus is typographic (−)."""

import math
from typing import Any

NONE = "–"


def number(value: Any, digits: int = 2) -> str:
    """Format a number, e.g. ``1,234.50``."""
    return _formatted(value, f",.{digits}f")


def signed(value: Any, digits: int = 2) -> str:
    """Format a number with its sign, e.g. ``+0.27`` or ``−0.27``; a rounded 0 has no sign."""
    return _formatted(value, f"+,.{digits}f")


def interval(low: Any, high: Any, digits: int = 2, *, sign: bool = True) -> str:
    """Format an interval, e.g. ``[−1.77, +2.32]``; empty if an end is unknown."""
    if _missing(low) or _missing(high):
        return ""
    text = signed if sign else number
    return f"[{text(low, digits)}, {text(high, digits)}]"


def with_interval(value: Any, low: Any, high: Any, digits: int = 2, *, sign: bool = True) -> str:
    """Format a value and its interval, if known, e.g. ``+0.27 [−1.77, +2.32]``."""
    if _missing(value):
        return NONE
    text = (signed if sign else number)(value, digits)
    return f"{text} {interval(low, high, digits, sign=sign)}".rstrip()


def spread(mean: Any, sd: Any) -> str:
    """Format a mean and its standard deviation, if known, e.g. ``93.08 ± 1.11``."""
    return number(mean) + (f" ± {number(sd)}" if known(sd) else "")


def times(ratio: Any) -> str:
    """Format a ratio, e.g. ``1.25 ×``."""
    return f"{ratio:.2f} ×" if known(ratio) else NONE


def p_value(p: Any) -> str:
    """Format a p-value, e.g. ``0.032`` or ``< 0.001``."""
    if not known(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def known(value: Any) -> bool:
    """Check whether a value is a finite number; None and pandas' NA are not."""
    return not _missing(value) and math.isfinite(value)


def plain(value: Any, digits: int = 6) -> float | None:
    """Round a number for JSON; None if it is unknown or infinite."""
    return round(float(value), digits) if known(value) else None


def listed(names: list[str], most: int = 8) -> str:
    """Join names, e.g. ``kd, at and sp`` or ``kd, at and 3 more``."""
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)


def _formatted(value: Any, spec: str) -> str:
    if _missing(value):
        return NONE
    text = f"{value:{spec}}".replace("-", "−").replace("inf", "∞")
    return text.lstrip("+−") if set(text) <= set("+−0.") else text


def _missing(value: Any) -> bool:
    try:
        return math.isnan(value)
    except TypeError:
        return True
