"""Find the files and folders that a grid names by relative paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench.errors import short_text


def locate(path: Path, folders: Sequence[Path]) -> Path:
    """Return a path in the first folder where it exists, else unchanged."""
    return next((folder / path for folder in folders if (folder / path).exists()), path)


def located_method(name: str, folders: Sequence[Path]) -> str:
    """Return the absolute path of a method's file, and any other name unchanged."""
    if not name.endswith(".py"):
        return name
    return str(locate(Path(name).expanduser(), folders).resolve())


def reason(error: OSError | RuntimeError) -> str:
    """Return why a path cannot be used, without the path."""
    return getattr(error, "strerror", None) or str(error)


def with_root(values: Any, where: str, folders: Sequence[Path]) -> Any:
    """Return settings of images with the ``root`` that they refer to; without one unchanged.

    Raises:
        ValueError: the root is no path; the message begins with the key.
    """
    if not (isinstance(values, dict) and isinstance(values.get("root"), str) and values["root"]):
        return values
    try:
        root = locate(Path(values["root"]).expanduser(), folders)
        root.resolve()
    except (OSError, RuntimeError) as error:  # too long a name, ~ of an unknown user
        message = f"{where}.root: {short_text(values['root'])}: {reason(error)}"
        raise ValueError(message) from error
    return values | {"root": str(root)}
