"""Checks of the names in a grid: models, methods, options, sweeps."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kdbench.errors import UserError, did_you_mean, short_text
from kdbench.grid.grid import Executor, Pair, Row, named_rows, short
from kdbench.grid.mistakes import LISTED, distinct, repetitions, shorten, unknown, validated
from kdbench.grid.run import BASELINES
from kdbench.grid.settings import OPTIONS, PHASE, MethodOptions, Protocol
from kdbench.grid.yaml_tree import option_tree
from kdbench.models import zoo
from kdbench.registry import lookup
from kdbench.registry.description import Description
from kdbench.registry.lookup import built_in_path

MOST_VALUES = 1_000
"""Values of one key of a sweep, and methods of a protocol."""
MOST_OPTIONS = 100
"""Options of a row, and methods of a combination."""


def model_errors(name: str) -> list[str]:
    """Return the mistake in an architecture's name, if any."""
    if zoo.known(name):
        return []
    near = zoo.suggest(name)
    hint = f" (did you mean {near[0]}?)" if near else ""
    text = short_text(name)
    return [f"{text}: unknown model; accepted: any name in `kdbench models`{hint}"]


def pair_errors(pairs: Mapping[int, Pair]) -> Iterator[str]:
    """Yield unknown architectures and repeated pairs; ``pairs`` are by position in the list."""
    seen: set[tuple[str, str, float | None]] = set()
    for i, pair in pairs.items():
        for role, name in (("teacher", pair.teacher), ("student", pair.student)):
            yield from (f"pairs.{i}.{role}: {line}" for line in model_errors(name))
        key = (pair.teacher, pair.student, pair.lr)
        if key in seen:
            yield f"pairs.{i}: {pair} is given twice"
        seen.add(key)


def pair_option_errors(pairs: Mapping[int, Pair], rows: Sequence[Row], sweep: Any) -> Iterator[str]:
    """Yield mistakes in the options of pairs; ``pairs`` are by position in the list.

    An option must be one that the row itself may have, except for ``label``, and not be swept.
    """
    given = sum(len(pair.options) for pair in pairs.values())
    if given > MOST_VALUES:
        yield f"pairs: {given:,} methods with options; at most {MOST_VALUES:,} over all pairs"
        return
    swept = sweep if isinstance(sweep, dict) else {}
    for i, pair in pairs.items():
        for name, options in pair.options.items():
            where = f"pairs.{i}.options.{short_text(name)}"
            found = named_rows(rows, name)
            if not found:
                accepted = [known for row in rows for known in (row.label, row.short)]
                yield f"{where}: {unknown(name, accepted)}"
            if "label" in options:
                yield f"{where}.label: a row has one label on all pairs"
            lines = [line for row in found for line in options_errors(row.parts, options)]
            lines += [
                f"{option}: also swept, by sweep.{key}"
                for row in found
                for key in swept
                if (option := row.option(str(key))) and _contains(options, option)
            ]
            yield from (f"{where}: {line}" for line in distinct(lines))


def _contains(options: Mapping[str, Any], option: str) -> bool:
    """Check whether options set a dotted option."""
    value: Any = options
    for key in option.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def row_errors(rows: Sequence[Row]) -> Iterator[str]:
    """Yield unknown methods and options, and rows with the same label."""
    taken: dict[str, int] = {}
    for i, row in enumerate(rows):
        where = f"methods.{short_text(row.short)}"
        yield from (f"{where}: {line}" for line in options_errors(row.parts, row.options))
        label = row.label if "label" in row.options else row.sorted_name
        if label in taken:
            yield (
                f"{where}: given twice, as entries {taken[label] + 1} and {i + 1}; "
                "give one of them a `label`"
            )
        if label in BASELINES:
            yield f"{where}: every table already has a row {label}; give another `label`"
        taken.setdefault(label, i)


def sweep_errors(sweep: dict[Any, Any], rows: Sequence[Row]) -> Iterator[str]:
    """Yield sweeps of unknown methods or options, without values, or with repeated values."""
    for key, values in sweep.items():
        where = f"sweep.{short_text(str(key))}"
        swept = [(row, option) for row in rows if (option := row.option(str(key))) is not None]
        if not swept:
            names = [row.label for row in rows]
            hint = did_you_mean(str(key).partition(".")[0], names)
            listed = ", ".join(names[:LISTED]) or "none"
            yield f"{where}: expected METHOD.OPTION; methods: {listed}{hint}"
        elif not isinstance(values, list | tuple) or not values:
            yield f"{where}: expected a list of values, not {shorten(values)}"
        elif len(values) * len(swept) > MOST_VALUES:
            yield f"{where}: {len(values):,} values; at most {MOST_VALUES:,} over all rows"
        else:
            yield from (
                f"{where}: {shorten(value)} is given twice" for value in repetitions(values)
            )
            lines = (
                line
                for row, option in swept
                for value in values
                for line in options_errors(row.parts, option_tree(option, value))
            )
            yield from (f"{where}: {line}" for line in distinct(lines))


def rank_errors(executor: Executor, protocol: Protocol, where: str) -> list[str]:
    """Return mistakes in the number of ranks."""
    ranks, size = executor.ranks, protocol.batch_size
    errors = []
    if size % ranks:
        errors.append(f"executor.ranks: {ranks}: must divide {where}.batch_size, {size}")
    if ranks > 1 and ":" in executor.device:
        errors.append(
            f"executor.device: {executor.device}: one GPU for {ranks} ranks; expected cuda"
        )
    return errors


def protocol_errors(protocol: Protocol, where: str) -> Iterator[str]:
    """Yield unknown methods, options and students in a protocol."""
    for name in protocol.lr_of:
        yield from (f"{where}.lr_of: {line}" for line in model_errors(name))
    if len(protocol.methods) > MOST_VALUES:
        yield f"{where}.methods: {len(protocol.methods):,} entries; at most {MOST_VALUES:,}"
        return
    for name, options in protocol.methods.items():
        lines = options_errors(name.split("+"), options)
        yield from (f"{where}.methods.{short_text(name)}: {line}" for line in lines)


def options_errors(parts: Sequence[str], options: dict[str, Any]) -> list[str]:
    """Return the mistakes in the methods and options of one row."""
    if max(len(options), len(parts)) > MOST_OPTIONS:
        return [f"{len(options):,} options of {len(parts):,} methods; at most {MOST_OPTIONS} each"]
    descriptions, errors = _described(parts)
    if errors:
        return errors
    if len({short(part) for part in parts}) < len(parts):
        errors.append("a method is combined with itself")
    general = {key: value for key, value in options.items() if key in OPTIONS}
    own = {key: value for key, value in options.items() if key not in OPTIONS}
    checked = validated(MethodOptions, general, "", errors)
    if checked is not None:
        errors += _contradictions(checked, list(descriptions.values()))
    if len(parts) == 1:
        return errors + _hyper_errors(parts[0], descriptions[parts[0]], own, OPTIONS)
    if "beta" in general:
        errors.append(f"beta: ambiguous in a combination; write {short(parts[0])}: {{beta: ...}}")
    names = {short(part): part for part in parts}
    for name, values in own.items():
        if name not in names:
            accepted = [*names, *(key for key in OPTIONS if key != "beta")]
            errors.append(f"{short_text(name)}: {unknown(name, accepted)}")
        elif not isinstance(values, dict) or len(values) > MOST_OPTIONS:
            errors.append(f"{name}: expected a mapping of options, not {shorten(values)}")
        else:
            part = names[name]
            beta = {"beta": values["beta"]} if "beta" in values else {}
            lines: list[str] = []
            validated(MethodOptions, beta, "", lines)
            hyper = {key: value for key, value in values.items() if key != "beta"}
            lines += _hyper_errors(part, descriptions[part], hyper, ("beta",))
            errors += [f"{name}.{line}" for line in lines]
    return errors


def _described(parts: Sequence[str]) -> tuple[dict[str, Description], list[str]]:
    """Return the descriptions of methods, and the mistakes in their names or files."""
    descriptions, errors = {}, []
    for part in parts:
        try:
            descriptions[part] = lookup.describe(built_in_path(part))
        except UserError as error:
            errors.append(str(error))
    return descriptions, errors


def _contradictions(options: MethodOptions, descriptions: Sequence[Description]) -> list[str]:
    """Return the options that have no effect with these methods, and mistakes in ``auxiliary``."""
    errors = []
    labels = "+".join(method.label for method in descriptions)
    if not any(method.has_pretrain for method in descriptions):
        given = [key for key in PHASE if getattr(options, key)]
        errors += [f"{key}: {labels} has no pretraining phase" for key in given]
    for student in options.pretrain_lr_of or {}:
        errors += [f"pretrain_lr_of: {line}" for line in model_errors(student)]
    if not any(method.needs_teacher for method in descriptions):
        name = "+".join(short(method.name) for method in descriptions)
        mistake = f"{labels} trains without a teacher; combine it: {name}+kd"
        errors += [f"alpha: {mistake}"] if options.alpha else []
        errors += [f"auxiliary: {mistake}"] if options.auxiliary else []
    if options.auxiliary:
        auxiliary = options.auxiliary
        errors += [f"auxiliary.student: {line}" for line in model_errors(auxiliary.student)]
        lines = options_errors(auxiliary.method.split("+"), {})
        errors += [f"auxiliary.method: {line}" for line in lines]
    return errors


def _hyper_errors(
    part: str, description: Description, given: dict[str, Any], general: Iterable[str]
) -> list[str]:
    """Return unknown hyper-parameters, and values of another type than the defaults.

    Args:
        general: options that are accepted in addition to the hyper-parameters, for messages.
    """
    errors = []
    for key, value in given.items():
        if key not in description.hyper:
            accepted = ", ".join(description.hyper) or "no hyper-parameters"
            hint = did_you_mean(key, [*description.hyper, *general])
            errors.append(
                f"{short_text(str(key))}: unknown; {description.label} takes {accepted}; "
                f"every method takes {', '.join(general)}{hint}"
            )
            continue
        try:
            lookup.hyper(built_in_path(part), {key: value})
            json.dumps(value, allow_nan=False)
        except UserError as error:
            errors.append(str(error))
        except (TypeError, ValueError):
            errors.append(f"{key}: expected a number, text or a list of them, not {shorten(value)}")
    return errors
