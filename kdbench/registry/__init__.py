"""Methods as plugins; found by name or path, described without running them, and checked."""

from kdbench.registry.lookup import describe, find, folder, hyper, load, names

__all__ = ["describe", "find", "folder", "hyper", "load", "names"]
