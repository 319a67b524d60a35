"""Lookup of methods: by name among built-in methods and plugins, or by the path of a ``.py`` file.

``describe`` parses a file without running it; only ``load`` imports it.
"""

import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kdbench.errors import did_you_mean
from kdbench.registry import description, plugin_import
from kdbench.registry.description import Description, MethodSource, RegistryError
from kdbench.registry.local_imports import local_files

if TYPE_CHECKING:
    from kdbench.method import Method

GROUP = "kdbench.methods"
"""Entry-point group of third-party methods, and package of the built-in ones."""


PLUGIN = "kdbench_plugin_"
"""Beginning of the module names of methods that are given by their paths."""
_stand_ins: dict[str, Description] = {}
_loaded: dict[str, str] = {}
"""Modules of such methods, and the sha256 of what they were loaded from."""


def names() -> list[str]:
    """Return the names of all built-in and installed third-party methods, sorted."""
    return sorted(_places())


def describe(name: str) -> Description:
    """Read a method's file, without running it.

    Raises:
        RegistryError: the method cannot be found or violates the contract.
    """
    if name in _stand_ins:
        return _stand_ins[name]
    source = find(name)
    local: tuple[Path, ...] = ()
    if source.external:
        by_path = source.module.startswith(PLUGIN)
        local = local_files(source.path, "" if by_path else source.module)
    try:
        modified = tuple(file.stat().st_mtime_ns for file in (source.path, *local))
    except OSError as error:
        raise RegistryError(f"{error.filename}: no such file") from None
    return description.read(source, modified, local)


@contextmanager
def standing_in(descriptions: Mapping[str, Description]) -> Iterator[None]:
    """Let ``describe`` return these descriptions by name: the methods' files may be elsewhere."""
    _stand_ins.update(descriptions)
    try:
        yield
    finally:
        for name in descriptions:
            _stand_ins.pop(name, None)


def load(name: str) -> type["Method"]:
    """Load a method's class, the same object that importing ``kdbench.methods.<name>`` gives.

    Raises:
        RegistryError: the method cannot be found or imported, or violates the contract.
    """
    source = find(name)
    about = describe(name)
    label = about.label
    from kdbench.method import ContractBroken, Method  # imports torch
    from kdbench.registry.process_state import kept

    try:
        with kept("the import"):
            module = _import(source, about)
    except ContractBroken as error:
        sys.modules.pop(source.module, None)  # so that the next attempt finds the same
        _loaded.pop(source.module, None)
        raise RegistryError(f"{source.path}: {error}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RegistryError(f"{source.path}: cannot be imported: {reason}") from error

    cls = getattr(module, label, None)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise RegistryError(f"{source.path}: {label} is not a subclass of kdbench.method.Method")
    if inspect.isabstract(cls):
        raise RegistryError(f"{source.path}: {label} defines no loss")
    return cls


def hyper(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all hyper-parameters of a method: the given values, and defaults for the rest.

    A value is converted to the type of its default if nothing is lost (1 to 1.0, a list to a
    tuple).

    Raises:
        RegistryError: a key is unknown, or a value has another type than the default.
    """
    method = describe(name)
    wrong = [_unknown(method, key) for key in given if key not in method.hyper]
    if wrong:
        raise RegistryError("; ".join(wrong))
    return method.hyper | {key: _fit(key, method.hyper[key], given[key]) for key in given}


# --- finding --------------------------------------------------------------------------------------


@cache
def folder() -> Path:
    """Return the folder of the built-in methods, in the package or next to it in a checkout."""
    here = Path(__file__).resolve().parent.parent
    inside = here / "methods"
    return inside if inside.is_dir() else here.parent / "methods"


def _places() -> Mapping[str, Path | EntryPoint]:
    # Without a cache, each call reads the entry points of every installed package: milliseconds.
    return _list_places(entry_points, *map(_modified, (str(folder()), *sys.path)))


def _modified(path: str) -> tuple[str, int]:
    try:
        return path, os.stat(path or ".").st_mtime_ns  # noqa: PTH116
    except OSError:
        return path, 0


@lru_cache(maxsize=4)
def _list_places(
    entry_points: Callable[..., Iterable[EntryPoint]], *state: tuple[str, int]
) -> Mapping[str, Path | EntryPoint]:
    """Return the place of each method by name; a change of ``state`` invalidates the cache."""
    places: dict[str, Path | EntryPoint] = {
        path.stem: path for path in folder().glob("*.py") if not path.stem.startswith("_")
    }
    for point in entry_points(group=GROUP):
        earlier = places.setdefault(point.name, point)
        if isinstance(earlier, Path) or earlier.value != point.value:
            other = "a built-in" if isinstance(earlier, Path) else earlier.value
            raise RegistryError(
                f"{point.name}: defined twice, as {other} and by the entry point {point.value}"
            )
    return places


def find(name: str) -> MethodSource:
    """Find the place of a method, without reading the file.

    Raises:
        RegistryError: no such method exists.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            at = "" if name == str(path) else f" ({path})"
            raise RegistryError(f"{name}: no such file{at}")
        if path.parent == folder().resolve():
            return MethodSource(path.stem, path, f"{GROUP}.{path.stem}")
        # Two plugins with the same file name must not share a module.
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
        stem = re.sub(r"\W", "_", path.stem)
        return MethodSource(name, path, f"{PLUGIN}{stem}_{digest}", external=True)
    places = _places()
    if name not in places:
        raise RegistryError(
            f"{name}: unknown method; accepted: {', '.join(sorted(places))}, or a path ending in "
            f".py{did_you_mean(name, places)}"
        )
    place = places[name]
    if isinstance(place, Path):
        return MethodSource(name, place, f"{GROUP}.{name}")
    spec = _locate(place.module)
    if spec is None or not spec.origin:
        raise RegistryError(f"{name}: the entry point {place.value} leads to no file")
    path = Path(spec.origin)
    return MethodSource(name, path, place.module, place.attr or None, path.parent != folder())


def _locate(module: str) -> ModuleSpec | None:
    """Find a module without running the packages above it."""
    head, *tail = module.split(".")
    spec = importlib.util.find_spec(head)
    for part in tail:
        if spec is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _import(source: MethodSource, about: Description) -> ModuleType:
    if source.module.startswith(PLUGIN):
        # A notebook may load a file, and load it again after a change.
        if _loaded.get(source.module) != about.sha256:
            plugin_import.run_with_local_files(source.module, source.path, about.local)
            _loaded[source.module] = about.sha256
        return sys.modules[source.module]
    if source.module in sys.modules:
        return sys.modules[source.module]
    if source.module.startswith(f"{GROUP}.") and GROUP not in sys.modules:
        # In a checkout, the folder of this package is not on Python's search path.
        plugin_import.run(GROUP, folder() / "__init__.py")
    return importlib.import_module(source.module)


# --- hyper-parameters -----------------------------------------------------------------------------


def _unknown(method: Description, key: str) -> str:
    takes = ", ".join(method.hyper) or "no hyper-parameters"
    return f"{key}: unknown; {method.label} takes {takes}{did_you_mean(key, method.hyper)}"


def _fit(key: str, default: Any, value: Any) -> Any:
    """Convert ``value`` to the type of ``default``; a default of None accepts anything."""
    number = type(value) in (int, float) and math.isfinite(value)
    if isinstance(default, float) and number:
        return float(value)
    if type(default) is int and number and float(value).is_integer():
        return int(value)
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if default is None or (type(default) is type(value) and type(value) is not float):
        return value
    raise RegistryError(f"{key}: expected {type(default).__name__} like {default!r}, not {value!r}")


def built_in_path(name: str) -> str:
    """Return the path of a built-in method, and any other name unchanged.

    Looking up a path is faster: a name makes the registry ask every installed package for plugins,
    and a grid may have many rows.
    """
    file = folder() / f"{name}.py"
    return str(file) if file.is_file() else name
