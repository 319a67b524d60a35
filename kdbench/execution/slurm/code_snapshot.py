"""The code as it was when jobs were submitted: kdbench, its methods and the grid's plugins.

A job that starts tomorrow runs what was submitted today, whatever becomes of the checkout. A
snapshot lies in ``runs/.code/<sha256>/`` and is shared by all that were submitted from one state.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import kdbench
from kdbench.files import write_atomically
from kdbench.grid.run import Run
from kdbench.registry import lookup
from kdbench.runs import environment

NAME = "snapshot.json"


def take(runs: Path, todo: Iterable[Run]) -> Path:
    """Copy the code that would train ``todo``, unless that very code lies there.

    Returns:
        The folder; it belongs at the head of ``PYTHONPATH``.

    Raises:
        OSError: it cannot be written.
    """
    files = dict(_files(todo))
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        total.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    target = (runs / ".code" / total.hexdigest()[:16]).resolve()
    if (target / NAME).exists():
        return target
    copy = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    for name, path in files.items():
        place = copy / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    about = environment.commit() | {"snapshot": total.hexdigest()}
    write_atomically(copy / NAME, json.dumps(about, indent=1) + "\n")
    try:
        copy.rename(target)
    except OSError:  # another runner was quicker
        shutil.rmtree(copy, ignore_errors=True)
        if not (target / NAME).exists():
            raise
    return target


def _files(todo: Iterable[Run]) -> Iterator[tuple[str, Path]]:
    """Every file of the code, under its name in the snapshot."""
    package = Path(kdbench.__file__).resolve().parent
    methods = lookup.folder().resolve()
    for root, prefix in ((package, "kdbench"), (methods, "kdbench/methods")):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield f"{prefix}/{path.relative_to(root).as_posix()}", path
    plugins = {(term.source, term.path) for run in todo for term in run.terms}
    for source, plugin in plugins:
        if source and plugin:
            yield _plugin(source, plugin), Path(plugin)


def _plugin(source: str, path: str) -> str:
    return f"plugins/{source[:16]}/{Path(path).name}"


def mapped(run: Run, snapshot: Path) -> Run:
    """A run whose plugins are the snapshot's copies; its id is the same."""
    terms = tuple(
        replace(term, path=str(snapshot / _plugin(term.source, term.path)))
        if term.source and term.path
        else term
        for term in run.terms
    )
    return replace(run, terms=terms)
