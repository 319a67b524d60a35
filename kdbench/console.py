"""What a command prints."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


def display(what: "RenderableType") -> None:
    """A text as it is, anything else as ``rich`` draws it; its texts are no markup."""
    if isinstance(what, str):
        click.echo(what)
    else:
        from rich.console import Console

        Console().print(what, highlight=False, markup=False)
