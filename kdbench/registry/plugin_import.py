"""Import of methods given by their paths, with the files that they import from their own folder.

Two methods may be beside different files of one name, so such modules are found only while the
method that they belong to is imported, and are then forgotten by Python.
"""

import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import packages_distributions
from pathlib import Path
from types import CodeType, ModuleType

from kdbench.registry.local_imports import module_file


class FromSource(SourceFileLoader):
    """Loader that reads the source: bytecode of the same second and size would be taken for it."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the source file."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class LocalFinder(MetaPathFinder):
    """Finder of the modules in one folder with the given top-level names."""

    def __init__(self, folder: Path, names: frozenset[str]) -> None:
        self.folder, self.names = folder, names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a module in the folder; None for all others."""
        if fullname.partition(".")[0] not in self.names:
            return None
        file = module_file(self.folder, fullname)
        return _specification(fullname, file) if file else None


def run_with_local_files(name: str, path: Path, local: Sequence[Path]) -> ModuleType:
    """Run a method's file as the module ``name``.

    Args:
        local: the files that it imports from its folder.

    Raises:
        ImportError: it imports a file that is neither one of those nor installed.
        Exception: whatever the file raises.
    """
    folder = path.parent
    names = frozenset(file.relative_to(folder).with_suffix("").parts[0] for file in local)
    search_path = list(sys.path)
    before = set(sys.modules)
    finder = LocalFinder(folder, names)
    with _hidden(names):
        sys.meta_path.insert(0, finder)
        try:
            module = run(name, path)
            _check_known(_unknown(before, path, local), path)
        except BaseException:
            # Otherwise a second attempt would find them, and succeed.
            for key in (name, *_unknown(before, path, local)):
                sys.modules.pop(key, None)
            raise
        finally:
            sys.meta_path.remove(finder)
            sys.path[:] = search_path
    return module


def run(name: str, path: Path) -> ModuleType:
    """Run a file as the module ``name``, an ``__init__.py`` as a package."""
    spec = _specification(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
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


def _specification(name: str, path: Path) -> ModuleSpec | None:
    search = [str(path.parent)] if path.name == "__init__.py" else None
    loader = FromSource(name, str(path))
    return importlib.util.spec_from_file_location(
        name, path, loader=loader, submodule_search_locations=search
    )


@contextmanager
def _hidden(names: frozenset[str]) -> Iterator[None]:
    """Hide modules with these top-level names, and afterwards forget those imported meanwhile."""

    def present() -> list[str]:
        return [key for key in sys.modules if key.partition(".")[0] in names]

    hidden = {key: sys.modules.pop(key) for key in present()}
    try:
        yield
    finally:
        for key in present():
            del sys.modules[key]
        sys.modules.update(hidden)


def _unknown(before: set[str], path: Path, local: Sequence[Path]) -> dict[str, str]:
    """Return the files of modules imported since ``before`` that no id and no package names."""
    known = {str(file) for file in (path, *local)}
    files = {
        name: getattr(sys.modules[name], "__file__", None) or ""
        for name in sorted(sys.modules.keys() - before)
    }
    return {
        name: file
        for name, file in files.items()
        if file and file not in known and not _installed(name, Path(file).resolve())
    }


def _check_known(unknown: dict[str, str], path: Path) -> None:
    for file in unknown.values():
        raise ImportError(
            f"{file} is imported, but a change of it would go unnoticed: write an import statement "
            f"for a file in {path.parent}, or install it as a package"
        )


def _installed(name: str, file: Path) -> bool:
    folders = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    folders |= {sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[1])}
    if any(file.is_relative_to(Path(folder).resolve()) for folder in folders):
        return True
    # A package that is installed in place, by ``pip install --editable``.
    return name.partition(".")[0] in packages_distributions()
