"""Files that a method's file imports from its own folder or package, found without running any.

They decide a run's numbers as the file itself does, so they are part of the run's id and of the
snapshots for Slurm jobs. Installed packages are not.
"""

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from kdbench.registry.description import RegistryError

NEVER_LOCAL = frozenset(sys.stdlib_module_names) | {"kdbench"}
"""Top-level names that always mean the standard library or kdbench, whatever files are beside."""


def local_files(path: Path, module: str = "") -> tuple[Path, ...]:
    """List the files that a method's file imports, directly or not, without the file itself.

    Args:
        path: the method's file.
        module: its full name if it is part of an installed package.

    Returns:
        The files, sorted. A package that contains an imported file counts as imported.

    Raises:
        RegistryError: an imported file cannot be read or parsed; or a file of a folder, not of a
            package, is imported inside a function, after the method's own import has ended.
    """
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    root = path.parent
    for _ in package:
        root = root.parent
    found: set[Path] = set()
    pending = [path]
    while pending:
        file = pending.pop()
        try:
            imports = list(_imported_by(file, root, package[0] if package else None))
        except RegistryError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            if file == path:
                return ()  # ``description.read`` says what is wrong with it
            reason = " ".join(str(error).split())
            raise RegistryError(f"{path}: {file}, which it imports: {reason}") from error
        for imported in imports:
            if imported != path and imported not in found:
                found.add(imported)
                pending.append(imported)
    return tuple(sorted(found))


def module_file(root: Path, name: str) -> Path | None:
    """Return the file of the module ``name`` below ``root``; None if there is none."""
    place = root.joinpath(*name.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imported_by(file: Path, root: Path, package: str | None) -> Iterator[Path]:
    """Yield the files that a file imports directly, and the packages that contain them.

    Args:
        root: folder of top-level modules.
        package: the installed package that the file is part of.
    """
    for name, line in _imports(file, file.stat().st_mtime_ns):
        depth = len(name) - len(name.lstrip("."))
        base, rest = (root, name) if depth == 0 else (file.parent, name[depth:])
        for _ in range(depth - 1):
            base = base.parent
        parts = rest.split(".") if rest else []
        if depth == 0 and (parts[0] in NEVER_LOCAL or package not in (None, parts[0])):
            continue
        if depth and not parts and (base / "__init__.py").is_file():
            yield base / "__init__.py"
        for end in range(1, len(parts) + 1):
            imported = module_file(base, ".".join(parts[:end]))
            if imported is None:
                continue
            if line and package is None:
                raise RegistryError(
                    f"{file}:{line}: import {rest} at the top of the file, not in a function"
                )
            yield imported


@lru_cache(maxsize=1024)
def _imports(file: Path, modified: int) -> tuple[tuple[str, int], ...]:
    """Return the dotted names that a file imports, and the lines of those inside functions or 0.

    ``from a import b`` gives ``a.b``: ``b`` may be a module. Relative imports keep their dots.
    """
    tree = ast.parse(file.read_bytes(), str(file))
    inside = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    names: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0) if node in inside else 0
        if isinstance(node, ast.Import):
            names += [(alias.name, line) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (f"{node.module}." if node.module else "")
            names += [(f"{prefix}{alias.name}", line) for alias in node.names]
    return tuple(names)
