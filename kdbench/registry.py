"""Find a method: by name among our files and installed plugins, or by the path of a ``.py`` file.

What a file says of itself is read without running it (``describe``), so plans and tables need
neither torch nor the plugin; only ``load`` imports.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from kdbench.method import Method

GROUP = "kdbench.methods"
"""Entry-point group of third-party methods, and the package of our own."""

RESERVED = ("alpha", "auxiliary", "beta", "gamma", "label", "pretrain_epochs", "pretrain_lr")
"""What a grid may say of every method: no hyper-parameter may have such a name.

``temperature`` is not among them: where a method has one, it is the objective's, told once.
"""

WEIGHTS = ("gamma", "alpha", "temperature")
"""What an ``Objective`` takes."""


class RegistryError(ValueError):
    """A method that cannot be found, read or configured; the message is one line."""


@dataclass(frozen=True)
class Description:
    """What a method's file says of it.

    Attributes:
        name: the name in grids: the file's stem, the entry point's name, or the path given.
        label: the class's name.
        path: of the file.
        sha256: of the file's content.
        beta: default weight of the term.
        needs_teacher: False for a method that trains without one.
        objective: those of gamma, alpha and temperature that the method asks for.
        hyper: hyper-parameters and their defaults.
        doc: first line of the file's docstring.
        has_pretrain: there is a phase before training.
        external: not one of our own.
    """

    name: str
    label: str
    path: Path
    sha256: str
    beta: float
    needs_teacher: bool
    objective: dict[str, float]
    hyper: dict[str, Any]
    doc: str
    has_pretrain: bool
    external: bool


class Source(NamedTuple):
    """Where a method comes from: its name, file, module, and its class if that is known."""

    name: str
    path: Path
    module: str
    label: str | None = None


def names() -> list[str]:
    """Every built-in and every installed third-party method, sorted."""
    return sorted(_known())


def describe(name: str) -> Description:
    """Read a method's file, without running it.

    Raises:
        RegistryError: it cannot be found, or does not keep the contract.
    """
    source = _find(name)
    try:
        modified = source.path.stat().st_mtime_ns
    except OSError:
        raise RegistryError(f"{source.path}: no such file") from None
    return _describe(source, modified)


def load(name: str) -> type["Method"]:
    """A method's class; importing ``kdbench.methods.<name>`` gives the same object.

    Raises:
        RegistryError: it cannot be found or imported, or does not keep the contract.
    """
    source = _find(name)
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


def folder() -> Path:
    """Where our own methods lie: inside the package, or in a checkout beside it."""
    here = Path(__file__).resolve().parent
    inside = here / "methods"
    return inside if inside.is_dir() else here.parent / "methods"


def _known() -> dict[str, Path | EntryPoint]:
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


def _find(name: str) -> Source:
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise RegistryError(f"{name}: no such file ({path})")
        if path.parent == folder().resolve():
            return Source(path.stem, path, f"{GROUP}.{path.stem}")
        # Two plugins of the same file name must not share a module.
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
        stem = re.sub(r"\W", "_", path.stem)
        return Source(name, path, f"kdbench_plugin_{stem}_{digest}")
    known = _known()
    if name not in known:
        raise RegistryError(
            f"{name}: unknown method{_mean(name, known)}; there are {', '.join(sorted(known))}, "
            "or a path ending in .py"
        )
    found = known[name]
    if isinstance(found, Path):
        return Source(name, found, f"{GROUP}.{name}")
    spec = _locate(found.module)
    if spec is None or not spec.origin:
        raise RegistryError(f"{name}: the entry point {found.value} leads to no file")
    return Source(name, Path(spec.origin), found.module, found.attr or None)


def _locate(module: str) -> ModuleSpec | None:
    """Where a module lies, without running the packages above it."""
    head, *tail = module.split(".")
    spec = importlib.util.find_spec(head)
    for part in tail:
        if spec is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _import(source: Source) -> ModuleType:
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


# --- reading --------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _describe(source: Source, modified: int) -> Description:
    content = source.path.read_bytes()
    try:
        tree = ast.parse(content)
    except SyntaxError as error:
        _reject(source, error.lineno, error.msg)
    except ValueError as error:
        _reject(source, None, str(error))
    cls = _method_class(source, tree)
    body = _assignments(cls)
    doc = ast.get_docstring(tree) or ast.get_docstring(cls) or ""
    return Description(
        name=source.name,
        label=cls.name,
        path=source.path,
        sha256=hashlib.sha256(content).hexdigest(),
        beta=float(_attribute(source, body, "beta", 1.0, (int, float))),
        needs_teacher=_attribute(source, body, "needs_teacher", True, (bool,)),
        objective=_objective(source, body),
        hyper=_hyper(source, cls),
        doc=doc.strip().partition("\n")[0],
        has_pretrain=_function(cls, "pretrain") is not None,
        external=source.path.parent != folder(),
    )


def _method_class(source: Source, tree: ast.Module) -> ast.ClassDef:
    """The file's one subclass of ``Method``."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if source.label:
        named = [node for node in classes if node.name == source.label]
        return named[0] if named else _reject(source, None, f"there is no class {source.label}")
    bases = {"Method"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "kdbench.method":
            bases |= {a.asname for a in node.names if a.name == "Method" and a.asname}
    found = []
    for node in classes:
        if any(ast.unparse(base).rpartition(".")[2] in bases for base in node.bases):
            bases.add(node.name)
            found.append(node)
    if not found:
        _reject(source, None, "there is no subclass of Method")
    if len(found) > 1:
        both = " and ".join(node.name for node in found)
        _reject(source, found[1].lineno, f"one method a file, but here are {both}")
    return found[0]


def _assignments(cls: ast.ClassDef) -> dict[str, ast.expr]:
    """Class attributes and the expressions they are set to."""
    found: dict[str, ast.expr] = {}
    for node in cls.body:
        if isinstance(node, ast.Assign):
            found |= {x.id: node.value for x in node.targets if isinstance(x, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
            found[node.target.id] = node.value
    return found


def _attribute(
    source: Source, body: dict[str, ast.expr], name: str, default: Any, kinds: tuple[type, ...]
) -> Any:
    if name not in body:
        return default
    value = _literal(source, body[name], name)
    if type(value) not in kinds:
        kind = " or ".join(kind.__name__ for kind in kinds)
        _reject(source, body[name].lineno, f"{name} is {value!r}, expected {kind}")
    return value


def _objective(source: Source, body: dict[str, ast.expr]) -> dict[str, float]:
    call = body.get("objective")
    if call is None:
        return {}
    line = call.lineno
    if not (
        isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2] == "Objective"
        and not call.args
    ):
        _reject(source, line, "objective is to be written as Objective(gamma=0.0, alpha=0.0)")
    found: dict[str, float] = {}
    for keyword in call.keywords:
        key = keyword.arg
        if key is None or key not in WEIGHTS:
            takes = ", ".join(WEIGHTS)
            _reject(source, line, f"objective {key}: unknown; Objective takes {takes}")
        value = _literal(source, keyword.value, f"objective {key}")
        if value is not None and type(value) not in (int, float):
            _reject(source, line, f"objective {key} is {value!r}, expected a number")
        if value is not None:
            found[key] = float(value)
    return found


def _hyper(source: Source, cls: ast.ClassDef) -> dict[str, Any]:
    init = _function(cls, "__init__")
    if init is None:
        return {}
    args, line = init.args, init.lineno
    positional = [*args.posonlyargs, *args.args]
    if len(positional) < 2:
        _reject(source, line, f"{cls.name}.__init__ takes self, setup, *, hyper-parameters")
    for extra in (*positional[2:], args.vararg, args.kwarg):
        if extra is not None:
            _reject(source, line, f"hyper-parameter {extra.arg} is not keyword-only")
    found = {}
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if default is None:
            _reject(source, arg.lineno, f"hyper-parameter {arg.arg} has no default")
        if arg.arg in RESERVED:
            _reject(
                source,
                arg.lineno,
                f"hyper-parameter {arg.arg} needs another name: grids use "
                f"{', '.join(RESERVED)} for every method",
            )
        found[arg.arg] = _literal(source, default, f"the default of {arg.arg}")
    return found


def _function(cls: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _literal(source: Source, node: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _reject(source, node.lineno, f"{what} is no literal: {ast.unparse(node)}")


def _reject(source: Source, line: int | None, reason: str) -> NoReturn:
    where = source.path if line is None else f"{source.path}:{line}"
    raise RegistryError(f"{where}: {reason}") from None


# --- hyper-parameters -----------------------------------------------------------------------------


def _unknown(about: Description, key: str) -> str:
    takes = ", ".join(about.hyper) or "no hyper-parameters"
    return f"{key}: unknown; {about.label} takes {takes}{_mean(key, about.hyper)}"


def _mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


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
