"""The kdbench command; parse, call one function, print."""

from kdbench.cli.commands import main

__all__ = ["main"]
