"""Printing: control characters in a text are shown as escapes, so that no terminal obeys them.

Titles, reasons, file names and messages of exceptions come from users and from files, so everything
that kdbench prints passes through here.
"""

from typing import TYPE_CHECKING

import click

from kdbench.errors import visible_lines

if TYPE_CHECKING:
    from rich.console import RenderableType


def say(text: object, *, err: bool = False) -> None:
    """Print lines of text, to stderr if ``err``."""
    click.echo(visible_lines(str(text)), err=err)


def display(output: "RenderableType") -> None:
    """Print text, or anything else with ``rich``."""
    if isinstance(output, str):
        say(output)
    else:
        from kdbench.cli.safe_console import SafeConsole

        SafeConsole().print(output)
