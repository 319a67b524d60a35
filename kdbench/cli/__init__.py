"""The ``kdbench`` command: it parses options, calls one function and prints its result."""

from kdbench.cli.commands import main

__all__ = ["main"]
