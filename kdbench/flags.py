"""What the commands of ``kdbench`` share: options, and how a user's mistake is shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kdbench.errors import UserError

Function = Callable[..., Any]


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


def folders(function: Function) -> Function:
    """--runs and --results, of every command that reads or writes runs."""
    for option in (
        click.option(
            "--results",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("results"),
            show_default=True,
            help="Folder of leaderboards.",
        ),
        click.option(
            "--runs",
            type=click.Path(path_type=Path),
            default=Path("runs"),
            show_default=True,
            help="Folder of runs.",
        ),
    ):
        function = option(function)
    return function


def of_grid(function: Function) -> Function:
    """--grid and --set, of every command about a grid."""
    for option in (
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a grid's value."
        ),
        click.option(
            "--grid",
            "path",
            required=True,
            type=click.Path(path_type=Path),
            help="Grid file, e.g. experiments/demo.yaml.",
        ),
    ):
        function = option(function)
    return function


def of_data(function: Function) -> Function:
    """--data, where data sets lie."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        default=Path("data"),
        show_default=True,
        help="Folder of data sets.",
    )(function)
