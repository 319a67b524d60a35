"""What the commands of ``kdbench`` share: options, and how a user's mistake is shown."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType


Function = Callable[..., Any]
Option = Callable[[Function], Function]

PATH = click.Path(path_type=Path)


class Commands(click.Group):
    """Shows a user's mistake as one line a mistake, exit code 2, and suggests commands."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            for line in str(error).splitlines():
                click.echo(f"kdbench: {line}", err=True)
            ctx.exit(2)
        except BrokenPipeError:  # whoever read our output has gone: kdbench plan | head
            raise  # click ends quietly
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"kdbench: {where}{error.strerror or error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("kdbench: stopped", err=True)
            ctx.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)


class Group(Commands):
    """A group inside the main one, which shows the mistakes."""

    def invoke(self, ctx: click.Context) -> Any:
        return click.Group.invoke(self, ctx)


def together(*given: Option) -> Option:
    """Several options as one; ``--help`` lists them in this order."""

    def add(function: Function) -> Function:
        for option in reversed(given):
            function = option(function)
        return function

    return add


def gathered(kind: type, *given: Option) -> Option:
    """Options whose values a command gets as one object, its first argument.

    Args:
        kind: a dataclass; its fields are named as the options are.
        given: these options.
    """
    names = [field.name for field in dataclasses.fields(kind)]

    def add(function: Function) -> Function:
        @functools.wraps(function)
        def called(**flags: Any) -> Any:
            return function(kind(**{name: flags.pop(name) for name in names}), **flags)

        return together(*given)(called)

    return add


def grid_option(name: str = "path", **more: Any) -> Option:
    """--grid, a grid's file."""
    return click.option("--grid", name, type=PATH, **more)


def set_option(help: str = "Replace a grid's value.") -> Option:
    """--set KEY=VALUE, as often as wanted."""
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=help)


folders = together(
    click.option(
        "--runs", type=PATH, default=Path("runs"), show_default=True, help="Folder of runs."
    ),
    click.option(
        "--results",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help="Folder of leaderboards.",
    ),
)
"""--runs and --results, of every command that reads or writes runs."""

of_data = click.option(
    "--data", type=PATH, default=Path("data"), show_default=True, help="Folder of data sets."
)
"""--data, where data sets lie."""


# --- what a command prints ------------------------------------------------------------------------


def display(what: "RenderableType") -> None:
    """A text as it is, anything else as ``rich`` draws it; its texts are no markup."""
    if isinstance(what, str):
        click.echo(what)
    else:
        from rich.console import Console

        Console().print(what, highlight=False, markup=False)
