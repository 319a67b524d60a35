"""Find a method: by name among our files and installed plugins, or by the path of a ``.py`` file.

What a file says of itself is read without running it (``describe``); only ``load`` imports.
"""

import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kdbench.errors import did_you_mean
from kdbench.registry import description
from kdbench.registry.description import Description, MethodSource, RegistryError

if TYPE_CHECKING:
    from kdbench.method import Method

GROUP = "kdbench.methods"
"""Entry-point group of third-party methods, and the package of our own."""


def names() -> list[str]:
    """Every built-in and every installed third-party method, sorted."""
    return sorted(_known())


def describe(name: str) -> Description:
    """Read a method's file, without running it.

    Raises:
        RegistryError: it cannot be found, or does not keep the contract.
    """
    source = find(name)
    try:
        modified = source.path.stat().st_mtime_ns
    except OSError:
        raise RegistryError(f"{source.path}: no such file") from None
    return description.read(source, modified)


def load(name: str) -> type["Method"]:
    """A method's class; importing ``kdbench.methods.<name>`` gives the same object.

    Raises:
        RegistryError: it cannot be found or imported, or does not keep the contract.
    """
    source = find(name)
    label = describe(name).label
    try:
        module = _import(source)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RegistryError(f"{source.path}: cannot be imported: {reason}") from error
    from kdbench.method import Method  # imports torch

    found = getattr(module, label, None)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise RegistryError(f"{source.path}: {label} is no subclass of kdbench.method.Method")
    if inspect.isabstract(found):
        raise RegistryError(f"{source.path}: {label} defines no loss")
    return found


def hyper(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a method's hyper-parameters: the given values, the defaults for the rest.

    A value takes its default's type where nothing is lost (1 for 1.0, a list for a tuple).

    Raises:
        RegistryError: an unknown key, or a value of another kind than the default.
    """
    about = describe(name)
    wrong = [_unknown(about, key) for key in given if key not in about.hyper]
    if wrong:
        raise RegistryError("; ".join(wrong))
    return about.hyper | {key: _fit(key, about.hyper[key], given[key]) for key in given}


# --- finding --------------------------------------------------------------------------------------


@cache
def folder() -> Path:
    """Where our own methods lie: inside the package, or in a checkout beside it."""
    here = Path(__file__).resolve().parent.parent
    inside = here / "methods"
    return inside if inside.is_dir() else here.parent / "methods"


def _known() -> Mapping[str, Path | EntryPoint]:
    # Importlib reads every installed package's entry points at each call, some milliseconds.
    return _listed(entry_points, *map(_modified, (str(folder()), *sys.path)))


def _modified(path: str) -> tuple[str, int]:
    try:
        return path, os.stat(path or ".").st_mtime_ns  # noqa: PTH116
    except OSError:
        return path, 0


@lru_cache(maxsize=4)
def _listed(
    entry_points: Callable[..., Iterable[EntryPoint]], *state: tuple[str, int]
) -> Mapping[str, Path | EntryPoint]:
    """Name -> where it is; listed again when a folder of ``state`` has changed."""
    found: dict[str, Path | EntryPoint] = {
        path.stem: path for path in folder().glob("*.py") if not path.stem.startswith("_")
    }
    for point in entry_points(group=GROUP):
        known = found.setdefault(point.name, point)
        if isinstance(known, Path) or known.value != point.value:
            other = "a built-in" if isinstance(known, Path) else known.value
            raise RegistryError(
                f"{point.name}: defined twice, as {other} and by the entry point {point.value}"
            )
    return found


def find(name: str) -> MethodSource:
    """Where a method comes from; its file is not read.

    Raises:
        RegistryError: there is no such method.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise RegistryError(f"{name}: no such file ({path})")
        if path.parent == folder().resolve():
            return MethodSource(path.stem, path, f"{GROUP}.{path.stem}")
        # Two plugins of the same file name must not share a module.
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
        stem = re.sub(r"\W", "_", path.stem)
        return MethodSource(name, path, f"kdbench_plugin_{stem}_{digest}", external=True)
    known = _known()
    if name not in known:
        raise RegistryError(
            f"{name}: unknown method{did_you_mean(name, known)}; there are "
            f"{', '.join(sorted(known))}, or a path ending in .py"
        )
    found = known[name]
    if isinstance(found, Path):
        return MethodSource(name, found, f"{GROUP}.{name}")
    spec = _locate(found.module)
    if spec is None or not spec.origin:
        raise RegistryError(f"{name}: the entry point {found.value} leads to no file")
    path = Path(spec.origin)
    return MethodSource(name, path, found.module, found.attr or None, path.parent != folder())


def _locate(module: str) -> ModuleSpec | None:
    """Where a module lies, without running the packages above it."""
    head, *tail = module.split(".")
    spec = importlib.util.find_spec(head)
    for part in tail:
        if spec is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _import(source: MethodSource) -> ModuleType:
    if source.module in sys.modules:
        return sys.modules[source.module]
    if source.module.startswith("kdbench_plugin_"):
        return _run(source.module, source.path)
    if source.module.startswith(f"{GROUP}.") and GROUP not in sys.modules:
        # In a checkout the package lies where Python would not look for it.
        _run(GROUP, folder() / "__init__.py")
    return importlib.import_module(source.module)


def _run(name: str, path: Path) -> ModuleType:
    """Run a file as the module ``name``; an ``__init__.py`` as a package."""
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    package, _, last = name.rpartition(".")
    if package in sys.modules:
        setattr(sys.modules[package], last, module)
    return module


# --- hyper-parameters -----------------------------------------------------------------------------


def _unknown(about: Description, key: str) -> str:
    takes = ", ".join(about.hyper) or "no hyper-parameters"
    return f"{key}: unknown; {about.label} takes {takes}{did_you_mean(key, about.hyper)}"


def _fit(key: str, default: Any, value: Any) -> Any:
    """``value`` in the type of ``default``; None as a default takes anything."""
    number = type(value) in (int, float) and math.isfinite(value)
    if isinstance(default, float) and number:
        return float(value)
    if type(default) is int and number and float(value).is_integer():
        return int(value)
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if default is None or (type(default) is type(value) and type(value) is not float):
        return value
    raise RegistryError(f"{key}: {value!r} is no {type(default).__name__} like {default!r}")


def built_in_path(name: str) -> str:
    """The path of one of our own methods, any other name as it is; the registry is faster so.

    A name makes it ask every installed package for plugins, and a grid may have many rows.
    """
    file = folder() / f"{name}.py"
    return str(file) if file.is_file() else name
