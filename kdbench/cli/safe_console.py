"""A console of ``rich`` that shows control characters in texts as escapes."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from kdbench.errors import visible_lines


class SafeConsole(Console):
    """A console that interprets neither markup nor control characters in texts."""

    def __init__(self, **settings: Any) -> None:
        """Create a console with settings of ``rich.console.Console``."""
        super().__init__(**{"markup": False, "highlight": False} | settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Apply ``visible_lines`` to texts before they are wrapped, and to all other segments."""
        if isinstance(renderable, str):
            renderable = visible_lines(renderable)
        elif isinstance(renderable, Text) and visible_lines(renderable.plain) != renderable.plain:
            renderable = Text(visible_lines(renderable.plain), renderable.style)
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible_lines(segment.text))
