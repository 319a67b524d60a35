"""Counts and durations as text."""


def counted(n: int, noun: str) -> str:
    """Format a count with its noun, e.g. ``1 seed`` or ``1,200 seeds``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Format a duration, e.g. ``27.2 h``, ``12.0 min`` or ``3.1 s``; ``?`` for None."""
    if seconds is None:
        return "?"
    if seconds >= 3600:
        hours = seconds / 3600
        return f"{hours:,.1f} h" if hours < 1000 else f"{hours:,.0f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
