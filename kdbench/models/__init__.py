"""Student and teacher networks, by name."""

from kdbench.models.zoo import create, entry, family, known, names, suggest

__all__ = ["create", "entry", "family", "known", "names", "suggest"]
