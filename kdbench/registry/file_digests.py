"""Digests of a method's file and of the local files that it imports; run ids contain them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def of_files(path: Path, content: bytes, local: Sequence[Path]) -> dict[str, str]:
    """Hash a method's file and the local files that it imports.

    Args:
        path: of the method's file.
        content: of the method's file.
        local: the other files.

    Returns:
        Name, relative to the folder of the method's file -> sha256; the method's own file is first.
    """
    digests = {path.name: hashlib.sha256(content).hexdigest()}
    for file in local:
        name = Path(os.path.relpath(file, path.parent)).as_posix()
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests


def of_all(digests: Mapping[str, str]) -> str:
    """Return the digest of a method's only file, or one digest of all its files and their names."""
    (_, own), *others = digests.items()
    if not others:
        return own
    lines = (own, *(f"{name} {digest}" for name, digest in others))
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
