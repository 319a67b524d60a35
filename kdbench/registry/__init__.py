"""Lookup, description and checks of methods."""

from kdbench.registry.lookup import RegistryError, describe, find, folder, hyper, load, names

__all__ = ["RegistryError", "describe", "find", "folder", "hyper", "load", "names"]
