"""Numbers as a reader sees them; what is not known is a dash."""

import math
from typing import Any

NONE = "–"


def number(value: Any, digits: int = 2) -> str:
    """E.g. ``1,234.50``."""
    return f"{value:,.{digits}f}" if known(value) else NONE


def signed(value: Any, digits: int = 2) -> str:
    """E.g. ``+0.27`` or ``−0.27``; what rounds to 0 has no sign."""
    if not known(value):
        return NONE
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text[1:] if set(text) <= set("+−0.") else text


def interval(low: Any, high: Any, digits: int = 2) -> str:
    """E.g. ``[−1.77, +2.32]``; nothing where there is none."""
    both = known(low) and known(high)
    return f"[{signed(low, digits)}, {signed(high, digits)}]" if both else ""


def spread(mean: Any, sd: Any) -> str:
    """E.g. ``93.08 ± 1.11``."""
    return number(mean) + (f" ± {number(sd)}" if known(sd) else "")


def times(ratio: Any) -> str:
    """E.g. ``1.25 ×``."""
    return f"{ratio:.2f} ×" if known(ratio) else NONE


def p_value(p: Any) -> str:
    """E.g. ``0.032``."""
    if not known(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def known(value: Any) -> bool:
    """Whether there is a finite number; pandas' NA is none."""
    try:
        return value is not None and math.isfinite(value)
    except TypeError:
        return False


def plain(value: Any, digits: int = 6) -> float | None:
    """For JSON: rounded, None where unknown."""
    return round(float(value), digits) if known(value) else None


def listed(names: list[str], most: int = 8) -> str:
    """E.g. ``kd, at and sp``; ``kd, at and 3 more``."""
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)
