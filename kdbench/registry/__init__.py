"""Lookup, description and checks of methods."""

from kdbench.registry.lookup import describe, find, folder, hyper, load, names

__all__ = ["describe", "find", "folder", "hyper", "load", "names"]
