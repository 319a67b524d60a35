"""Errors for mistakes that the user can fix, and suggestions of what was meant."""

from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user: printed without a stack trace, one line per mistake; exit code 2."""


def nearest(name: object, accepted: Iterable[str], *, n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the accepted names most like ``name``, the best first, whatever their capitals.

    Args:
        name: a name that is not accepted.
        accepted: names to choose from.
        n: number of names at most.
        cutoff: likeness that a name needs, from 0 to 1.
    """
    import difflib  # most commands need no suggestion

    folded = {word.casefold(): word for word in accepted}
    matches = difflib.get_close_matches(str(name).casefold(), folded, n=n, cutoff=cutoff)
    return [folded[match] for match in matches]


def did_you_mean(name: object, accepted: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `` (did you mean ...?)`` for an error message, or "" if nothing is near."""
    names = nearest(name, accepted, cutoff=cutoff)
    return f" (did you mean {names[0]}?)" if names else ""
