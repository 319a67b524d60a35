"""Parse a grid file into a ``Grid``, and report all mistakes in one message.

Imports no torch: methods are described from their source, models from a table of names.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kdbench.errors import short_text
from kdbench.grid import name_checks, published, report_checks
from kdbench.grid.grid import Executor, Grid, Pair, Report, Row, TeacherSpec, short
from kdbench.grid.locating import located_method, reason, with_root
from kdbench.grid.mistakes import Mistakes, repetitions, shorten, unknown, validated
from kdbench.grid.settings import Dataset, Protocol
from kdbench.grid.yaml_tree import SHORT, Tree, merged, preset, presets, read, set_value

LENGTHS = {"seeds": 100_000, "pairs": 10_000, "methods": 1_000, "sweep": 100}
"""Key -> largest number of entries."""
PARTS = 20
"""Methods of a combination."""


def load(path: Path, overrides: Iterable[str] = ()) -> Grid:
    """Load a grid from a YAML file.

    Args:
        path: YAML file.
        overrides: ``key=value`` with dots between keys, e.g. ``protocol.epochs=2``; values are
            YAML.

    Raises:
        GridError: all mistakes, one line each.
    """
    tree, folders = read(path)
    for override in overrides:
        set_value(tree, override)
    return parse(tree, source=str(path), folders=folders)


def parse(tree: Tree, *, source: str, folders: Sequence[Path] = ()) -> Grid:
    """Build a grid from plain values.

    Args:
        tree: the values, as read from YAML.
        source: file or command that the values are from, for messages.
        folders: to which relative paths may refer, before the working folder.

    Raises:
        GridError: all mistakes, one line each.
    """
    errors = Mistakes(source)
    accepted = [name for name in Grid.model_fields if name != "source"]
    errors.extend(
        f"{short_text(str(key))}: {unknown(key, [*accepted, 'extends'])}"
        for key in tree
        if key not in accepted
    )
    tree = {key: value for key, value in tree.items() if key in accepted and value is not None}
    tree.setdefault("title", str(tree.get("name", "")))
    tree["dataset"] = _dataset(tree.get("dataset"), "dataset", errors, folders)
    protocol = tree["protocol"] = _protocol(tree.get("protocol"), "protocol", errors)
    pairs = _pairs(tree.get("pairs"), errors)
    # A placeholder if there are no pairs, so that the rest can be checked; the error is recorded.
    tree["pairs"] = list(pairs.values()) or [Pair(teacher="r8w16", student="r8w3")]
    before = len(errors)
    rows = tree["methods"] = _rows(tree.get("methods"), errors, folders)
    complete = len(errors) == before
    teacher = tree["teacher"] = _teacher(tree.get("teacher", {}), errors, folders)
    report = tree["report"] = _part(Report, tree.get("report", {}), "report", errors)
    executor = tree["executor"] = _part(Executor, tree.get("executor", {}), "executor", errors)
    _check_lengths(tree, errors)
    grid = validated(Grid, tree | {"source": source}, "", errors)
    errors.extend(_repeated_seeds(tree.get("seeds")))
    errors.extend(name_checks.pair_errors(pairs))
    errors.extend(name_checks.protocol_errors(protocol, "protocol"))
    if teacher.protocol:
        errors.extend(name_checks.protocol_errors(teacher.protocol, "teacher.protocol"))
        errors.extend(name_checks.rank_errors(executor, teacher.protocol, "teacher.protocol"))
    errors.extend(name_checks.rank_errors(executor, protocol, "protocol"))
    errors.extend(name_checks.row_errors(rows))
    sweep = tree.get("sweep", {})
    if complete:  # otherwise a name may be that of a row with a mistake
        if isinstance(sweep, dict):
            errors.extend(name_checks.sweep_errors(sweep, rows))
        errors.extend(name_checks.pair_option_errors(pairs, rows, sweep))
        named = {key: getattr(report, key) for key in ("baseline", "ari_of")}
        given = {key: named[key] for key in report.model_fields_set & set(named) if named[key]}
        errors.extend(report_checks.report_errors(given, rows))
        answers = report_checks.answer_errors(report.answers, rows, sweep, tree["dataset"])
        errors.extend(answers)
    errors.extend(_reference(report))
    if isinstance(tree.get("teachers", {}), dict) and pairs:
        known = {pair.teacher for pair in pairs.values()}
        errors.extend(
            f"teachers.{short_text(arch)}: {unknown(arch, known)}"
            for arch in tree.get("teachers", {})
            if arch not in known
        )
    if errors or grid is None:
        raise errors.error()
    return grid


def _check_lengths(tree: Tree, errors: Mistakes) -> None:
    """Refuse lists that no grid has, before checks that would take long.

    Raises:
        GridError: a list is too long.
    """
    for key, most in LENGTHS.items():
        value = tree.get(key)
        if isinstance(value, list | dict) and len(value) > most:
            errors.append(f"{key}: {len(value):,} entries; at most {most:,} are accepted")
            raise errors.error()


def _part(model: type[Any], values: Any, where: str, errors: Mistakes) -> Any:
    """Validate one part of a grid; return its defaults on errors, so that the rest is checked."""
    return validated(model, values, where, errors) or model()


def _dataset(value: Any, where: str, errors: Mistakes, folders: Sequence[Path]) -> Dataset:
    """Validate a data set, given by name or as a mapping."""
    values = {SHORT["dataset"]: value} if isinstance(value, str) else value
    if values is None:
        errors.append(f"{where}: missing")
        return Dataset(name="synthetic")
    try:
        values = with_root(values, where, folders)
        if isinstance(values, dict) and values.get("transfer") is not None:
            part = with_root(values["transfer"], f"{where}.transfer", folders)
            values = values | {"transfer": part}
    except ValueError as error:
        errors.append(str(error))
        return Dataset(name="synthetic")
    return validated(Dataset, values, where, errors) or Dataset(name="synthetic")


def _protocol(value: Any, where: str, errors: Mistakes) -> Protocol:
    """Validate a protocol: a preset, a preset with changes, or a mapping."""
    values = {SHORT["protocol"]: value} if isinstance(value, str) else value
    if not isinstance(values, dict):
        mistake = (
            "missing" if value is None else f"expected a preset or a mapping, not {shorten(value)}"
        )
        errors.append(f"{where}: {mistake}; presets: {', '.join(presets())}")
        return Protocol()
    values = dict(values)
    name = values.pop("preset", None)
    if name is not None:
        if name not in presets():
            errors.append(f"{where}.preset: {short_text(str(name))}: {unknown(name, presets())}")
            return Protocol()
        changed = sorted(set(values) - {"name"})
        values = merged(preset(name) | {"name": name}, values)
        if changed and values["name"] == name:
            values["name"] = f"{name} with other {', '.join(changed)}"
    return validated(Protocol, values, where, errors) or Protocol()


def _teacher(value: Any, errors: Mistakes, folders: Sequence[Path]) -> TeacherSpec:
    values = value
    if isinstance(value, dict):
        values = {key: given for key, given in value.items() if given is not None}
        if "dataset" in values:
            data = _dataset(values["dataset"], "teacher.dataset", errors, folders)
            if data.transfer:
                errors.append("teacher.dataset.transfer: teachers learn from labels; leave it out")
            values["dataset"] = data.labelled
        if "protocol" in values:
            values["protocol"] = _protocol(values["protocol"], "teacher.protocol", errors)
    spec: TeacherSpec = _part(TeacherSpec, values, "teacher", errors)
    return spec


def _list(value: Any, key: str, errors: Mistakes) -> list[Any]:
    if value is None or isinstance(value, list):
        return value or []
    errors.append(f"{key}: expected a list, not {shorten(value)}")
    return []


def _pairs(value: Any, errors: Mistakes) -> dict[int, Pair]:
    """Return the valid pairs by their position in the list."""
    pairs: dict[int, Pair] = {}
    for i, entry in enumerate(_list(value, "pairs", errors)[: LENGTHS["pairs"] + 1]):
        where, values = f"pairs.{i}", entry
        if isinstance(entry, str):
            values = dict(zip(("teacher", "student"), _split_arrow(entry), strict=False))
        named = isinstance(values, dict) and {k: v for k, v in values.items() if k != "options"}
        if not named or not all(named.values()) or len(named) < 2:
            expected = "expected TEACHER -> STUDENT or {teacher: ..., student: ..., lr: ...}"
            errors.append(f"{where}: {shorten(entry)}: {expected}")
            continue
        if isinstance(values.get("options"), dict):
            values = values | {"options": _short_names(values["options"])}
        pair = validated(Pair, values, where, errors)
        pairs |= {i: pair} if pair else {}
    if not pairs and not any(line.startswith("pairs") for line in errors):
        errors.append("pairs: missing; expected a list of TEACHER -> STUDENT")
    return pairs


def _short_names(options: dict[Any, Any]) -> dict[str, Any]:
    """Return a pair's options under names without folders, and mappings in place of null."""
    return {
        "+".join(short(part.strip()) for part in str(row).split("+"))
        if str(row).endswith(".py")
        else str(row): {
            short(str(key)) if str(key).endswith(".py") else str(key): value
            for key, value in given.items()
        }
        if isinstance(given, dict)
        else ({} if given is None else given)
        for row, given in options.items()
    }


def _split_arrow(text: str) -> list[str]:
    parts = [part.strip() for part in text.split("->")]
    return parts if len(parts) == 2 else []


def _rows(value: Any, errors: Mistakes, folders: Sequence[Path]) -> list[Row]:
    """Return the rows of the right form, with absolute paths for plugins."""
    rows = []
    for i, entry in enumerate(_list(value, "methods", errors)[: LENGTHS["methods"] + 1]):
        name: Any = entry
        options: Any = {}
        if isinstance(entry, dict) and len(entry) == 1:
            name, options = next(iter(entry.items()))
            options = {} if options is None else options
        names = [part.strip() for part in name.split("+")] if isinstance(name, str) else []
        if not names or not all(names) or not isinstance(options, dict):
            expected = "expected NAME, NAME+NAME or {NAME: {key: value}}"
            errors.append(f"methods.{i}: {shorten(entry)}: {expected}")
            continue
        if len(names) > PARTS:
            errors.append(f"methods.{i}: {len(names):,} methods; at most {PARTS} can be combined")
            continue
        try:
            parts = [located_method(part, folders) for part in names]
            auxiliary = options.get("auxiliary")
            if isinstance(auxiliary, dict) and isinstance(auxiliary.get("method"), str):
                of_auxiliary = (part.strip() for part in auxiliary["method"].split("+"))
                method = "+".join(located_method(part, folders) for part in of_auxiliary)
                options = options | {"auxiliary": auxiliary | {"method": method}}
        except (OSError, RuntimeError) as error:  # too long a name, ~ of an unknown user
            errors.append(f"methods.{i}: {short_text(name)}: {reason(error)}")
            continue
        with_plus = [path for path in parts if "+" in path]
        errors.extend(
            f"methods.{i}: {path}: a path must not contain +, which combines methods"
            for path in with_plus
        )
        options = {
            short(str(key)) if key in names and len(names) > 1 else str(key): option
            for key, option in options.items()
        }
        if not with_plus:
            rows.append(Row(name="+".join(parts), options=options))
    return rows


def _reference(report: Report) -> list[str]:
    try:
        if report.reference:
            published.full_name(report.reference)
    except ValueError as error:
        return [str(error)]
    return []


def _repeated_seeds(seeds: Any) -> Iterator[str]:
    if isinstance(seeds, list | tuple):
        repeated = repetitions(seeds)
        yield from (f"seeds: {shorten(seed)} is given twice" for seed in repeated)
