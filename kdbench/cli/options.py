"""Options and error messages that the commands of ``kdbench`` share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from kdbench.cli.printing import say
from kdbench.errors import UserError, nearest, readable, visible_lines

Function = Callable[..., Any]
Option = Callable[[Function], Function]

PATH = click.Path(path_type=Path)


@contextmanager
def _arguments_shown() -> Iterator[None]:
    """Show control characters in arguments that click quotes in its messages."""
    try:
        yield
    except click.ClickException as error:
        error.message = visible_lines(error.message)  # type: ignore[misc]
        raise


class Commands(click.Group):
    """A group that prints a user's mistakes one a line, exits with 2, and suggests commands."""

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        with _arguments_shown():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _arguments_shown():
                return super().invoke(ctx)
        except UserError as error:
            for line in str(error).splitlines():
                say(f"kdbench: {line}", err=True)
            ctx.exit(2)
        except BrokenPipeError:  # the reader of the output has ended: kdbench plan | head
            raise  # click exits without a message
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            say(f"kdbench: {readable(f'{where}{error.strerror or error}')}", err=True)
            ctx.exit(2)
        except (MemoryError, RuntimeError) as error:
            from kdbench.training.memory import is_out_of_memory  # imports no torch

            if not is_out_of_memory(error):
                raise
            say("kdbench: out of memory", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            say("kdbench: stopped", err=True)
            ctx.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], self.list_commands(ctx))
            hint = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)


class Group(Commands):
    """A group inside the main group, which prints the mistakes."""

    def invoke(self, ctx: click.Context) -> Any:
        return click.Group.invoke(self, ctx)


def combined(*options: Option) -> Option:
    """Return one decorator that adds several options; ``--help`` lists them in this order."""

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def grid_option(name: str = "path", **settings: Any) -> Option:
    """Return --grid, the file of a grid."""
    return click.option("--grid", name, type=PATH, **settings)


def set_option(help: str = "Replace a value of the grid; repeatable.") -> Option:
    """Return --set KEY=VALUE, which may be repeated."""
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=help)


folder_options = combined(
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
"""--runs and --results, for commands that read or write runs."""

replace_option = click.option(
    "--replace", is_flag=True, help="Replace a leaderboard even if results in it are lost."
)
"""--replace, for commands that write leaderboards."""

data_option = click.option(
    "--data", type=PATH, default=Path("data"), show_default=True, help="Folder of data sets."
)
"""--data, for commands that read images."""
