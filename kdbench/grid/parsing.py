"""A grid file to a ``Grid``: the tree of values is validated, every mistake told in one message.

Nothing here imports torch: methods are described from their source, models from a table of names.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdbench.grid import name_checks, published
from kdbench.grid.grid import Executor, Grid, GridError, Pair, Report, Row, TeacherSpec, short
from kdbench.grid.mistakes import shorten, unknown, validated
from kdbench.grid.settings import Dataset, Protocol
from kdbench.grid.yaml_tree import SHORT, Tree, merged, preset, presets, read, set_value


def load(path: Path, overrides: Iterable[str] = ()) -> Grid:
    """Read a grid file.

    Args:
        path: YAML file.
        overrides: ``key=value`` with dots between keys, e.g. ``protocol.epochs=2``; values are
            YAML.

    Raises:
        GridError: what is wrong, all of it, one line each.
    """
    tree, folders = read(path)
    for override in overrides:
        set_value(tree, override)
    return parse(tree, source=str(path), folders=folders)


def parse(tree: Tree, *, source: str, folders: Sequence[Path] = ()) -> Grid:
    """A grid from plain values.

    Args:
        tree: as YAML gives it.
        source: where it is from, for messages.
        folders: that relative paths may start from, before the working folder.

    Raises:
        GridError: what is wrong, all of it, one line each.
    """
    errors: list[str] = []
    accepted = [name for name in Grid.model_fields if name != "source"]
    errors += [
        f"{key}: {unknown(key, [*accepted, 'extends'])}" for key in tree if key not in accepted
    ]
    tree = {key: value for key, value in tree.items() if key in accepted and value is not None}
    tree.setdefault("title", str(tree.get("name", "")))
    tree["dataset"] = _dataset(tree.get("dataset"), "dataset", errors, folders)
    protocol = tree["protocol"] = _protocol(tree.get("protocol"), "protocol", errors)
    pairs = _pairs(tree.get("pairs"), errors)
    # A stand-in for none, so that the rest can be checked; there is an error that stops it.
    tree["pairs"] = list(pairs.values()) or [Pair(teacher="r8w16", student="r8w3")]
    rows = tree["methods"] = _rows(tree.get("methods"), errors, folders)
    teacher = tree["teacher"] = _teacher(tree.get("teacher", {}), errors, folders)
    report = tree["report"] = _part(Report, tree.get("report", {}), "report", errors)
    executor = tree["executor"] = _part(Executor, tree.get("executor", {}), "executor", errors)
    grid = validated(Grid, tree | {"source": source}, "", errors)
    errors += _twice(tree.get("seeds"))
    errors += name_checks.pair_errors(pairs)
    errors += name_checks.protocol_errors(protocol, "protocol")
    if teacher.protocol:
        errors += name_checks.protocol_errors(teacher.protocol, "teacher.protocol")
        errors += name_checks.rank_errors(executor, teacher.protocol, "teacher.protocol")
    errors += name_checks.rank_errors(executor, protocol, "protocol")
    errors += name_checks.row_errors(rows)
    if isinstance(tree.get("sweep", {}), dict):
        errors += name_checks.sweep_errors(tree.get("sweep", {}), rows)
    named = {key: getattr(report, key) for key in report.model_fields_set & {"baseline", "ari_of"}}
    errors += name_checks.report_errors({k: v for k, v in named.items() if v}, rows)
    errors += _reference(report)
    if isinstance(tree.get("teachers", {}), dict) and pairs:
        known = [pair.teacher for pair in pairs.values()]
        errors += [
            f"teachers.{arch}: {unknown(arch, known)}"
            for arch in tree.get("teachers", {})
            if arch not in known
        ]
    if errors or grid is None:
        raise GridError([f"{source}: {line}" for line in dict.fromkeys(errors)])
    return grid


def _part(model: type[Any], values: Any, where: str, errors: list[str]) -> Any:
    """One part of a grid; its defaults where it is wrong, so that the rest can be checked."""
    return validated(model, values, where, errors) or model()


def _dataset(value: Any, where: str, errors: list[str], folders: Sequence[Path]) -> Dataset:
    values = {SHORT["dataset"]: value} if isinstance(value, str) else value
    if values is None:
        errors.append(f"{where}: missing")
        return Dataset(name="synthetic")
    if isinstance(values, dict) and isinstance(values.get("root"), str):
        values = values | {"root": str(_placed(Path(values["root"]).expanduser(), folders))}
    return validated(Dataset, values, where, errors) or Dataset(name="synthetic")


def _protocol(value: Any, where: str, errors: list[str]) -> Protocol:
    values = {SHORT["protocol"]: value} if isinstance(value, str) else value
    if not isinstance(values, dict):
        what = (
            "missing" if value is None else f"expected a preset or a mapping, not {shorten(value)}"
        )
        errors.append(f"{where}: {what}; presets: {', '.join(presets())}")
        return Protocol()
    values = dict(values)
    name = values.pop("preset", None)
    if name is not None:
        if name not in presets():
            errors.append(f"{where}.preset: {name}: {unknown(name, presets())}")
            return Protocol()
        changed = sorted(set(values) - {"name"})
        values = merged(preset(name) | {"name": name}, values)
        if changed and values["name"] == name:
            values["name"] = f"{name} with other {', '.join(changed)}"
    return validated(Protocol, values, where, errors) or Protocol()


def _teacher(value: Any, errors: list[str], folders: Sequence[Path]) -> TeacherSpec:
    values = value
    if isinstance(value, dict):
        values = {key: given for key, given in value.items() if given is not None}
        if "dataset" in values:
            values["dataset"] = _dataset(values["dataset"], "teacher.dataset", errors, folders)
        if "protocol" in values:
            values["protocol"] = _protocol(values["protocol"], "teacher.protocol", errors)
    found: TeacherSpec = _part(TeacherSpec, values, "teacher", errors)
    return found


def _list(value: Any, key: str, errors: list[str]) -> list[Any]:
    if value is None or isinstance(value, list):
        return value or []
    errors.append(f"{key}: expected a list, not {shorten(value)}")
    return []


def _pairs(value: Any, errors: list[str]) -> dict[int, Pair]:
    """Those that are of the right form, by their place in the list."""
    found: dict[int, Pair] = {}
    for i, one in enumerate(_list(value, "pairs", errors)):
        where, values = f"pairs.{i}", one
        if isinstance(one, str):
            values = dict(zip(("teacher", "student"), _arrow(one), strict=False))
        if not isinstance(values, dict) or not all(values.values()) or len(values) < 2:
            told = "expected TEACHER -> STUDENT or {teacher: ..., student: ..., lr: ...}"
            errors.append(f"{where}: {shorten(one)}: {told}")
            continue
        pair = validated(Pair, values, where, errors)
        found |= {i: pair} if pair else {}
    if not found and not any(line.startswith("pairs") for line in errors):
        errors.append("pairs: missing; expected a list of TEACHER -> STUDENT")
    return found


def _arrow(text: str) -> list[str]:
    parts = [part.strip() for part in text.split("->")]
    return parts if len(parts) == 2 else []


def _rows(value: Any, errors: list[str], folders: Sequence[Path]) -> list[Row]:
    found = []
    for i, one in enumerate(_list(value, "methods", errors)):
        name: Any = one
        options: Any = {}
        if isinstance(one, dict) and len(one) == 1:
            name, options = next(iter(one.items()))
            options = {} if options is None else options
        names = [part.strip() for part in name.split("+")] if isinstance(name, str) else []
        if not names or not all(names) or not isinstance(options, dict):
            told = "expected NAME, NAME+NAME or {NAME: {key: value}}"
            errors.append(f"methods.{i}: {shorten(one)}: {told}")
            continue
        placed = [
            str(_placed(Path(part).expanduser(), folders).resolve())
            if part.endswith(".py")
            else part
            for part in names
        ]
        odd = [path for path in placed if "+" in path]
        errors += [f"methods.{i}: {path}: a path with a + in it cannot be named" for path in odd]
        options = {
            short(str(key)) if key in names and len(names) > 1 else str(key): given
            for key, given in options.items()
        }
        if not odd:
            found.append(Row(name="+".join(placed), options=options))
    return found


def _placed(path: Path, folders: Sequence[Path]) -> Path:
    """A relative path from the first of the folders where it leads anywhere, else as it is."""
    return next((folder / path for folder in folders if (folder / path).exists()), path)


def _reference(report: Report) -> list[str]:
    try:
        if report.reference:
            published.check(report.reference)
    except ValueError as error:
        return [str(error)]
    return []


def _twice(seeds: Any) -> list[str]:
    if not isinstance(seeds, list | tuple):
        return []
    return [f"seeds: {seed} is given twice" for i, seed in enumerate(seeds) if seed in seeds[:i]]
