"""Names of a method's other predictions (``Method.answers``), read from its file."""

import ast
from functools import lru_cache
from pathlib import Path

from kdbench.registry.description import Description


def answer_names(method: Description) -> tuple[str, ...] | None:
    """Return the names of the predictions that a method reports; None if the file does not say.

    A file says so if the class has no ``answers``, or one that only returns dictionaries whose
    keys are literals.
    """
    return _read(method.path, method.label, method.sha256)


@lru_cache(maxsize=1024)
def _read(path: Path, label: str, sha256: str) -> tuple[str, ...] | None:
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ClassDef) and node.name == label:
            return _of_class(node)
    return None


def _of_class(cls: ast.ClassDef) -> tuple[str, ...] | None:
    functions = [x for x in cls.body if isinstance(x, ast.FunctionDef) and x.name == "answers"]
    if not functions:
        bases = {ast.unparse(base).rpartition(".")[2] for base in cls.bases}
        return () if bases == {"Method"} else None
    names: dict[str, None] = {}
    for node in ast.walk(functions[0]):
        if not isinstance(node, ast.Return):
            continue
        if not isinstance(node.value, ast.Dict):
            return None
        for key in node.value.keys:
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                return None
            names[key.value] = None
    return tuple(names)
