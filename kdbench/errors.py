"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """Shown as its own text, one line a mistake, without a stack trace; exit code 2."""
