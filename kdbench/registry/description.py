"""Descriptions of methods, parsed from their files without importing them.

So plans and tables need neither torch nor the plugin.
"""

import ast
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from kdbench.errors import UserError
from kdbench.registry import file_digests

RESERVED = (
    *("alpha", "auxiliary", "beta", "gamma", "label"),
    *("pretrain_epochs", "pretrain_lr", "pretrain_lr_of"),
)
"""Keys that a grid accepts for every method; no hyper-parameter may have such a name.

``temperature`` is not reserved: a method's hyper-parameter ``temperature`` is the objective's.
"""

USED = (
    *("stem", "stages", "preacts", "embedding", "logits", "peers", "views", "last"),
    *("labels", "index", "train_labels", "teacher_head", "student_head"),
    *("teacher_norms", "teacher_from", "student_from"),
)
"""Inputs that a method may read, as the contract names them."""

OBJECTIVE_WEIGHTS = ("gamma", "alpha", "temperature")
"""Arguments of ``Objective``."""


class RegistryError(UserError):
    """A method cannot be found, read or configured; the message is one line."""


@dataclass(frozen=True)
class Description:
    """A method, as its file describes it.

    Attributes:
        name: name in grids: the file's stem, the entry point's name, or the given path.
        label: name of the class.
        family: what the method matches, such as "relation".
        uses: fields of ``Features``, ``Batch`` and ``Setup`` that the file reads.
        path: path of the file.
        sha256: hash of the file's content and of the local files that it imports.
        local: the files that it imports from its own folder or package.
        digests: their contents' hashes, the method's own first; names are relative to its folder.
        beta: default weight of the term.
        needs_teacher: False for a method that trains without a teacher.
        needs_teacher_when: values of hyper-parameters that make a teacher necessary after all.
        objective: the values of gamma, alpha and temperature that the method sets.
        hyper: hyper-parameters and their defaults.
        doc: first line of the file's docstring.
        has_pretrain: whether some hyper-parameters give the method a pretraining phase.
        pretrains_when: values of hyper-parameters with which it has one; empty: with any.
        external: whether the method is not built in.
        capturable: False if a step waits for the device.
        version: of the method's results.
        brings_peers: whether networks learn together in its rows.
        one_rank: whether it cannot train on several ranks.
        looks_ahead: whether it trains modules by looking ahead, which only works with SGD.
        added_later: hyper-parameters that a run's id leaves out at their defaults.
    """

    name: str
    label: str
    family: str
    uses: tuple[str, ...]
    path: Path
    sha256: str
    beta: float
    needs_teacher: bool
    needs_teacher_when: dict[str, Any]
    objective: dict[str, float]
    hyper: dict[str, Any]
    doc: str
    has_pretrain: bool
    external: bool
    capturable: bool = True
    version: int = 1
    pretrains_when: dict[str, Any] = field(default_factory=dict)
    local: tuple[Path, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    brings_peers: bool = False
    one_rank: bool = False
    looks_ahead: bool = False
    added_later: tuple[str, ...] = ()

    def needs_teacher_with(self, hyper: dict[str, Any]) -> bool:
        """Check whether the method needs a teacher with these hyper-parameters."""
        return self.needs_teacher or any(
            hyper.get(key) == value for key, value in self.needs_teacher_when.items()
        )

    def pretrains_with(self, hyper: dict[str, Any]) -> bool:
        """Check whether the method has a pretraining phase with these hyper-parameters."""
        return self.has_pretrain and (
            not self.pretrains_when
            or any(hyper.get(key) == value for key, value in self.pretrains_when.items())
        )


class MethodSource(NamedTuple):
    """The place that a method is loaded from.

    Attributes:
        name: name in grids.
        path: path of the file.
        module: name of the module.
        label: name of the class, if known.
        external: whether the method is not built in.
    """

    name: str
    path: Path
    module: str
    label: str | None = None
    external: bool = False


@lru_cache(maxsize=1024)
def read(
    source: MethodSource, modified: tuple[int, ...], local: tuple[Path, ...] = ()
) -> Description:
    """Read a method's file.

    Args:
        source: place of the file.
        modified: modification times of the file and of ``local``; part of the cache key.
        local: the files that it imports from its own folder or package.

    Raises:
        RegistryError: the file violates the contract.
    """
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
    digests = file_digests.of_files(source.path, content, local)
    return Description(
        name=source.name,
        label=cls.name,
        family=_attribute(source, body, "family", "other", (str,)),
        uses=_uses(tree),
        path=source.path,
        sha256=file_digests.of_all(digests),
        beta=float(_attribute(source, body, "beta", 1.0, (int, float))),
        needs_teacher=_attribute(source, body, "needs_teacher", True, (bool,)),
        needs_teacher_when=_attribute(source, body, "needs_teacher_when", {}, (dict,)),
        objective=_objective(source, body),
        hyper=_hyper(source, cls),
        doc=doc.strip().partition("\n")[0],
        has_pretrain=_function(cls, "pretrain") is not None,
        external=source.external,
        capturable=_attribute(source, body, "capturable", True, (bool,)),
        version=_attribute(source, body, "version", 1, (int,)),
        pretrains_when=_attribute(source, body, "pretrains_when", {}, (dict,)),
        local=local,
        digests=digests,
        brings_peers=_attribute(source, body, "brings_peers", False, (bool,)),
        one_rank=_attribute(source, body, "one_rank", False, (bool,)),
        looks_ahead=_function(cls, "meta") is not None,
        added_later=_attribute(source, body, "added_later", (), (tuple,)),
    )


def _uses(tree: ast.Module) -> tuple[str, ...]:
    """Return the fields of ``Features``, ``Batch`` and ``Setup`` that a file reads."""
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return tuple(name for name in USED if name in attributes)


def _method_class(source: MethodSource, tree: ast.Module) -> ast.ClassDef:
    """Return the file's only subclass of ``Method``."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if source.label:
        named = [node for node in classes if node.name == source.label]
        return named[0] if named else _reject(source, None, f"no class {source.label}")
    bases = {"Method"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "kdbench.method":
            bases |= {a.asname for a in node.names if a.name == "Method" and a.asname}
    methods = []
    for node in classes:
        if any(ast.unparse(base).rpartition(".")[2] in bases for base in node.bases):
            bases.add(node.name)
            methods.append(node)
    if not methods:
        _reject(source, None, "no subclass of Method")
    if len(methods) > 1:
        both = " and ".join(node.name for node in methods)
        _reject(source, methods[1].lineno, f"expected one method per file, not {both}")
    return methods[0]


def _assignments(cls: ast.ClassDef) -> dict[str, ast.expr]:
    """Return class attributes and the expressions assigned to them."""
    assignments: dict[str, ast.expr] = {}
    for node in cls.body:
        if isinstance(node, ast.Assign):
            assignments |= {x.id: node.value for x in node.targets if isinstance(x, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
            assignments[node.target.id] = node.value
    return assignments


def _attribute(
    source: MethodSource,
    body: dict[str, ast.expr],
    name: str,
    default: Any,
    kinds: tuple[type, ...],
) -> Any:
    if name not in body:
        return default
    value = _literal(source, body[name], name)
    if type(value) not in kinds:
        kind = " or ".join(kind.__name__ for kind in kinds)
        _reject(source, body[name].lineno, f"{name} is {value!r}, expected {kind}")
    return value


def _objective(source: MethodSource, body: dict[str, ast.expr]) -> dict[str, float]:
    call = body.get("objective")
    if call is None:
        return {}
    line = call.lineno
    if not (
        isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2] == "Objective"
        and not call.args
    ):
        _reject(source, line, "write objective in the form Objective(gamma=0.0, alpha=0.0)")
    weights: dict[str, float] = {}
    for keyword in call.keywords:
        key = keyword.arg
        if key is None or key not in OBJECTIVE_WEIGHTS:
            takes = ", ".join(OBJECTIVE_WEIGHTS)
            _reject(source, line, f"objective {key}: unknown; Objective takes {takes}")
        value = _literal(source, keyword.value, f"objective {key}")
        if value is not None and type(value) not in (int, float):
            _reject(source, line, f"objective {key} is {value!r}, expected a number")
        if value is not None:
            weights[key] = float(value)
    return weights


def _hyper(source: MethodSource, cls: ast.ClassDef) -> dict[str, Any]:
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
    defaults = {}
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
        defaults[arg.arg] = _literal(source, default, f"the default of {arg.arg}")
    return defaults


def _function(cls: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _literal(source: MethodSource, node: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _reject(source, node.lineno, f"{what} is not a literal: {ast.unparse(node)}")


def _reject(source: MethodSource, line: int | None, reason: str) -> NoReturn:
    where = source.path if line is None else f"{source.path}:{line}"
    raise RegistryError(f"{where}: {reason}") from None
