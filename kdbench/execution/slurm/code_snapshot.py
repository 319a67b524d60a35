"""Copies of the code at submission: kdbench, its methods and the grid's plugins.

Queued jobs run the code that was submitted, even if the checkout changes. A snapshot is stored in
``runs/.code/<sha256>/`` and shared by all jobs that were submitted with the same code.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import kdbench
from kdbench.files import write_atomically
from kdbench.grid.run import Run
from kdbench.registry import lookup
from kdbench.runs import environment

NAME = "snapshot.json"
COPY_SECONDS = 86_400
"""A copy that was begun longer ago was left by a killed process."""


def take(runs: Path, todo: Iterable[Run]) -> Path:
    """Copy the code that trains ``todo``, unless a snapshot of it exists.

    Returns:
        The folder of the snapshot, to be put first in ``PYTHONPATH``.

    Raises:
        OSError: the snapshot cannot be written.
        RegistryError: a plugin cannot be read.
    """
    files = dict(_files(todo))
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    target = (runs / ".code" / digest.hexdigest()[:16]).resolve()
    if (target / NAME).exists():
        return target
    _sweep(target.parent)
    copy = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    for name, path in files.items():
        destination = copy / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination)
    origin = environment.commit() | {"snapshot": digest.hexdigest()}
    write_atomically(copy / NAME, json.dumps(origin, indent=1) + "\n")
    try:
        copy.rename(target)
    except OSError:  # another runner has created it meanwhile
        shutil.rmtree(copy, ignore_errors=True)
        if not (target / NAME).exists():
            raise
    return target


def _sweep(folder: Path) -> None:
    """Delete copies that killed processes have left."""
    for copy in folder.glob(".*"):
        with suppress(OSError):
            if time.time() - copy.stat().st_mtime > COPY_SECONDS:
                shutil.rmtree(copy)


def _files(todo: Iterable[Run]) -> Iterator[tuple[str, Path]]:
    """Yield each file of the code: its name in the snapshot, and its path."""
    package = Path(kdbench.__file__).resolve().parent
    methods = lookup.folder().resolve()
    for root, prefix in ((package, "kdbench"), (methods, "kdbench/methods")):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield f"{prefix}/{path.relative_to(root).as_posix()}", path
    plugins = {(term.source, term.path) for run in todo for term in run.terms}
    for source, plugin in plugins:
        if source and plugin:
            name, path = _plugin_name(source, plugin), Path(plugin)
            yield name, path
            for file in lookup.describe(plugin).local:
                beside = file.relative_to(path.resolve().parent).as_posix()
                yield f"{name.rpartition('/')[0]}/{beside}", file


def _plugin_name(source: str, path: str) -> str:
    return f"plugins/{source[:16]}/{Path(path).name}"


def with_plugins_of(run: Run, snapshot: Path) -> Run:
    """Return the run with its plugins replaced by the snapshot's copies; its id is the same."""
    terms = tuple(
        replace(term, path=str(snapshot / _plugin_name(term.source, term.path)))
        if term.source and term.path
        else term
        for term in run.terms
    )
    return replace(run, terms=terms)
