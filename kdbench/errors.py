"""Errors for mistakes that the user can fix, and suggestions of what was meant."""

import re
from collections.abc import Iterable

LONGEST = 1500
"""Characters of a line of a message; the middle of a longer one is left out."""
INVISIBLE = re.compile(r"[^ -~]")


class UserError(ValueError):
    """A mistake of the user: printed without a stack trace, one line per mistake; exit code 2.

    A message may quote a file's content: control characters in it are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(readable, str(message).split("\n"))))


def visible(text: str) -> str:
    """Return text in one line that is safe to print: what cannot be seen is shown as an escape.

    A terminal obeys control characters such as ESC (shown as ``\\x1b``), and characters that
    reverse the direction of text hide what it says. Unusual spaces become spaces.
    """
    if text.isprintable():
        return text
    return INVISIBLE.sub(lambda match: _escaped(match[0]), text)


def visible_lines(text: str) -> str:
    """Return lines of text with control characters as escapes; tabs become spaces."""
    if text.isprintable():
        return text
    return "\n".join(visible(line.expandtabs()) for line in text.split("\n"))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if character.isspace() and ord(character) >= 0xA0 and character not in "\u2028\u2029":
        return " "
    return character.encode("unicode_escape").decode()


def readable(line: str) -> str:
    """Return a line of a message, ``visible`` and not too long to be read."""
    line = visible(line)
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def short_text(value: object, most: int = 60) -> str:
    """Return a value as visible text of at most ``most`` characters; text without quotes."""
    text = value[: most + 1] if isinstance(value, str) else str(value)
    text = visible(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(message: object, most: int = 300) -> str:
    """Return a message of another library as visible text of at most ``most`` characters."""
    return short_text(" ".join(str(message).split()), most)


def nearest(name: object, accepted: Iterable[str], *, n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the accepted names most like ``name``, the best first, whatever their capitals.

    Args:
        name: a name that is not accepted.
        accepted: names to choose from; one with the same letters in other capitals is the best.
        n: number of names at most.
        cutoff: likeness that a name needs, from 0 to 1.
    """
    import difflib  # most commands need no suggestion

    given = str(name).casefold()
    if len(given) > 200:  # no name is so long, and comparing it with all would take long
        return []
    folded = {word.casefold(): word for word in accepted}
    matches = difflib.get_close_matches(given, folded, n=n, cutoff=cutoff)
    return [folded[match] for match in matches]


def did_you_mean(name: object, accepted: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `` (did you mean ...?)`` for an error message, or "" if nothing is near."""
    names = nearest(name, accepted, cutoff=cutoff)
    return f" (did you mean {names[0]}?)" if names else ""
