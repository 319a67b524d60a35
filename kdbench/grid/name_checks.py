"""Whether the names in a grid mean something: models, methods, their options, what is swept."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdbench.errors import UserError, did_you_mean
from kdbench.grid.grid import Executor, Pair, Row, short, sorted_name
from kdbench.grid.mistakes import shorten, unknown, validated
from kdbench.grid.run import BASELINES
from kdbench.grid.settings import OPTIONS, MethodOptions, Protocol
from kdbench.grid.yaml_tree import option_tree
from kdbench.models import zoo
from kdbench.registry import lookup
from kdbench.registry.description import Description
from kdbench.registry.lookup import built_in_path


def model_errors(name: str) -> list[str]:
    """What is wrong with an architecture's name."""
    if zoo.known(name):
        return []
    near = zoo.suggest(name)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return [f"{name}: unknown model; accepted: what `kdbench models` lists{hint}"]


def pair_errors(pairs: Mapping[int, Pair]) -> list[str]:
    """Unknown architectures, and pairs that are given twice; ``pairs`` by their place."""
    out = []
    seen: set[Pair] = set()
    for i, pair in pairs.items():
        for role, name in (("teacher", pair.teacher), ("student", pair.student)):
            out += [f"pairs.{i}.{role}: {line}" for line in model_errors(name)]
        if pair in seen:
            out.append(f"pairs.{i}: {pair} is given twice")
        seen.add(pair)
    return out


def row_errors(rows: Sequence[Row]) -> list[str]:
    """Methods and options that do not exist, and rows that cannot be told apart."""
    out = []
    taken: dict[str, int] = {}
    for i, row in enumerate(rows):
        where = f"methods.{row.short}"
        out += [f"{where}: {line}" for line in options_errors(row.parts, row.options)]
        label = row.label if "label" in row.options else row.sorted_name
        if label in taken:
            out.append(
                f"{where}: given twice, as number {taken[label] + 1} and {i + 1}; "
                "give one of them a `label`"
            )
        if label in BASELINES:
            out.append(f"{where}: every table has a row {label} already; give another `label`")
        taken.setdefault(label, i)
    return out


def sweep_errors(sweep: dict[Any, Any], rows: Sequence[Row]) -> list[str]:
    """Axes of no method in the grid, of no option, or without values."""
    out = []
    for key, values in sweep.items():
        where = f"sweep.{key}"
        found = [(row, option) for row in rows if (option := row.option(str(key))) is not None]
        if not found:
            names = [row.label for row in rows]
            hint = did_you_mean(str(key).partition(".")[0], names)
            out.append(
                f"{where}: expected METHOD.OPTION; methods: {', '.join(names) or 'none'}{hint}"
            )
        elif not isinstance(values, list | tuple) or not values:
            out.append(f"{where}: expected a list of values, not {shorten(values)}")
        else:
            out += [
                f"{where}: {shorten(value)} is given twice"
                for i, value in enumerate(values)
                if value in values[:i]
            ]
            told = [
                line
                for row, option in found
                for value in values
                for line in options_errors(row.parts, option_tree(option, value))
            ]
            out += [f"{where}: {line}" for line in dict.fromkeys(told)]
    return out


def rank_errors(executor: Executor, protocol: Protocol, where: str) -> list[str]:
    """What keeps several ranks from training together."""
    ranks, size = executor.ranks, protocol.batch_size
    errors = []
    if size % ranks:
        errors.append(f"executor.ranks: {ranks}: must divide {where}.batch_size, {size}")
    if ranks > 1 and ":" in executor.device:
        errors.append(f"executor.device: {executor.device}: one GPU for {ranks} ranks; give cuda")
    return errors


def protocol_errors(protocol: Protocol, where: str) -> list[str]:
    """Methods, options and students that a protocol speaks of and that do not exist."""
    out = [f"{where}.lr_of: {line}" for name in protocol.lr_of for line in model_errors(name)]
    for name, options in protocol.methods.items():
        told = options_errors(name.split("+"), options)
        out += [f"{where}.methods.{name}: {line}" for line in told]
    return out


def report_errors(named: dict[str, str], rows: Sequence[Row]) -> list[str]:
    """Methods that the report is to be about and that have no row; sweeps make several of one."""
    known = {name for row in rows for name in (row.label, row.short, row.name)}
    known |= {row.sorted_name for row in rows}
    out = []
    for key, name in named.items():
        wanted = sorted_name(name)
        base = name.partition("(")[0]  # of a swept row: semckd(beta=100)
        if not {name, wanted, base} & {*known, *BASELINES}:
            accepted = [row.label for row in rows]
            out.append(f"report.{key}: {name}: {unknown(name, accepted)}")
    return out


def options_errors(parts: Sequence[str], options: dict[str, Any]) -> list[str]:
    """What is wrong with the options of one row of methods."""
    about, out = _described(parts)
    if out:
        return out
    if len({short(part) for part in parts}) < len(parts):
        out.append("a method is combined with itself")
    general = {key: value for key, value in options.items() if key in OPTIONS}
    own = {key: value for key, value in options.items() if key not in OPTIONS}
    checked = validated(MethodOptions, general, "", out)
    if checked is not None:
        out += _contradictions(checked, list(about.values()))
    if len(parts) == 1:
        return out + _hyper_errors(parts[0], about[parts[0]], own, OPTIONS)
    if "beta" in general:
        out.append(f"beta: of which term? write {short(parts[0])}: {{beta: ...}}")
    names = {short(part): part for part in parts}
    for name, values in own.items():
        if name not in names:
            takes = [*names, *(key for key in OPTIONS if key != "beta")]
            out.append(f"{name}: {unknown(name, takes)}")
        elif not isinstance(values, dict):
            out.append(f"{name}: expected a mapping of options, not {shorten(values)}")
        else:
            part = names[name]
            beta = {"beta": values["beta"]} if "beta" in values else {}
            told: list[str] = []
            validated(MethodOptions, beta, "", told)
            rest = {key: value for key, value in values.items() if key != "beta"}
            told += _hyper_errors(part, about[part], rest, ("beta",))
            out += [f"{name}.{line}" for line in told]
    return out


def _described(parts: Sequence[str]) -> tuple[dict[str, Description], list[str]]:
    """What the methods say of themselves; or what is wrong with their names or files."""
    about, out = {}, []
    for part in parts:
        try:
            about[part] = lookup.describe(built_in_path(part))
        except UserError as error:
            known = lookup.names()
            bare = not part.endswith(".py") and part not in known
            hint = did_you_mean(part, known)
            accepted = f"accepted: {', '.join(known)}, or a path ending in .py{hint}"
            out.append(f"{part}: unknown method; {accepted}" if bare else str(error))
    return about, out


def _contradictions(options: MethodOptions, about: Sequence[Description]) -> list[str]:
    """Options that are of no use to these methods."""
    out = []
    labels = "+".join(one.label for one in about)
    if not any(one.has_pretrain for one in about):
        given = [key for key in ("pretrain_epochs", "pretrain_lr") if getattr(options, key)]
        out += [f"{key}: {labels} has no phase before training" for key in given]
    if not any(one.needs_teacher for one in about):
        name = "+".join(short(one.name) for one in about)
        told = f"{labels} trains without a teacher; combine it: {name}+kd"
        out += [f"alpha: {told}"] if options.alpha else []
        out += [f"auxiliary: {told}"] if options.auxiliary else []
    if options.auxiliary:
        helper = options.auxiliary
        out += [f"auxiliary.student: {line}" for line in model_errors(helper.student)]
        told_of = options_errors(helper.method.split("+"), {})
        out += [f"auxiliary.method: {line}" for line in told_of]
    return out


def _hyper_errors(
    part: str, about: Description, given: dict[str, Any], also: Iterable[str]
) -> list[str]:
    """Hyper-parameters that the method has not, or values of another kind than its defaults."""
    out = []
    for key, value in given.items():
        if key not in about.hyper:
            takes = ", ".join(about.hyper) or "no hyper-parameters"
            hint = did_you_mean(key, [*about.hyper, *also])
            out.append(
                f"{key}: unknown; {about.label} takes {takes}; always: {', '.join(also)}{hint}"
            )
            continue
        try:
            lookup.hyper(built_in_path(part), {key: value})
            json.dumps(value, allow_nan=False)
        except UserError as error:
            out.append(str(error))
        except (TypeError, ValueError):
            out.append(f"{key}: {shorten(value)} is no plain value")
    return out
