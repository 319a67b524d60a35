"""Resolve a row of a grid under a protocol: its terms, weights and options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdbench.errors import UserError
from kdbench.grid.grid import Row, short, sorted_name
from kdbench.grid.run import Term
from kdbench.grid.settings import OPTIONS, PHASE, MethodOptions, Protocol
from kdbench.grid.yaml_tree import merged
from kdbench.registry import lookup
from kdbench.registry.description import OBJECTIVE_WEIGHTS, Description
from kdbench.registry.lookup import built_in_path


@dataclass(frozen=True)
class RowPlan:
    """A row of the table under one protocol: the values that all pairs and seeds share."""

    label: str
    terms: tuple[Term, ...]
    gamma: float
    alpha: float
    temperature: float
    needs_teacher: bool
    pretrains: bool
    options: MethodOptions


def check_phase(options: dict[str, Any], row: Row, plan: RowPlan) -> None:
    """Refuse settings of a pretraining phase that the row does not have.

    Raises:
        UserError: the options set the phase's length or rate.
    """
    given = [key for key in PHASE if options.get(key) is not None]
    if given and not plan.pretrains:
        about = [lookup.describe(built_in_path(part)) for part in row.parts]
        phases = [
            f"{method.label} has a pretraining phase only with "
            + " or ".join(f"{key}: {value}" for key, value in method.pretrains_when.items())
            for method in about
            if method.has_pretrain
        ]
        raise UserError(f"{given[0]}: {'; '.join(phases)}")


def check_peers(row: Row) -> None:
    """Refuse a row in which two methods bring peers: a student is one group of networks.

    Raises:
        UserError: two of them do.
    """
    found = [short(part) for part in row.parts if lookup.describe(built_in_path(part)).brings_peers]
    if len(found) > 1:
        raise UserError(f"{' and '.join(found)} both bring peers; expected one of them in a row")


def check_ranks(row: Row, ranks: int) -> None:
    """Refuse several ranks for a method that trains on one.

    Raises:
        UserError: a method of the row cannot train on ``ranks`` ranks.
    """
    found = [short(part) for part in row.parts if lookup.describe(built_in_path(part)).one_rank]
    if ranks > 1 and found:
        raise UserError(f"{found[0]} trains on one rank; executor.ranks is {ranks}, expected 1")


def check_optimizer(row: Row, protocol: Protocol) -> None:
    """Refuse an optimiser with which a method of the row cannot look ahead.

    Raises:
        UserError: the protocol's optimiser is not SGD, and a method looks ahead.
    """
    found = [short(part) for part in row.parts if lookup.describe(built_in_path(part)).looks_ahead]
    if protocol.optimizer and found:
        raise UserError(
            f"{found[0]} looks ahead with SGD; protocol.optimizer is {protocol.optimizer}, "
            "expected null"
        )


LABELS = {"labels", "train_labels"}
"""Inputs of a method that are labels of training images."""


def check_needs_no_labels(row: Row, plan: RowPlan) -> None:
    """Refuse a row that cannot learn from the images of a transfer set, which have no labels.

    Raises:
        UserError: it has no teacher, a weight of cross-entropy, or a method that reads labels.
    """
    about = [lookup.describe(built_in_path(part)) for part in row.parts]
    reading = [method.label for method in about if LABELS & {*method.uses}]
    why = "the images of dataset.transfer have no labels"
    if reading:
        methods = map(lookup.describe, lookup.names())
        without = [m.name for m in methods if m.needs_teacher and not LABELS & {*m.uses}]
        raise UserError(
            f"{' and '.join(reading)} {'read' if len(reading) > 1 else 'reads'} labels, but {why}; "
            f"accepted: {', '.join(without)}"
        )
    if plan.gamma:
        raise UserError(f"gamma: {plan.gamma:g}, but {why}; accepted: 0 (set gamma: 0)")
    if not plan.needs_teacher:
        raise UserError(f"a row without a teacher learns nothing, since {why}")


def plan_row(protocol: Protocol, row: Row, given: dict[str, Any]) -> RowPlan:
    """Resolve a row's values: the grid's, else the protocol's, else the methods' defaults."""
    preset = next(
        (
            options
            for name, options in protocol.methods.items()
            if sorted_name(name) == row.sorted_name
        ),
        {},
    )
    own = merged(preset, given)
    options = MethodOptions(**{key: value for key, value in own.items() if key in OPTIONS})
    methods = {part: lookup.describe(built_in_path(part)) for part in row.parts}
    of_part = {
        part: own if len(row.parts) == 1 else _of_part(protocol, part, own) for part in row.parts
    }
    weights = {key: _weight(key, options, protocol, methods, of_part) for key in OBJECTIVE_WEIGHTS}
    terms = [_term(part, methods[part], of_part[part], weights) for part in row.parts]
    return RowPlan(
        label=row.label,
        terms=tuple(sorted(terms, key=lambda term: term.method)),
        needs_teacher=any(
            methods[part].needs_teacher_with(term.hyper)
            for part, term in zip(row.parts, terms, strict=True)
        ),
        pretrains=any(
            methods[part].pretrains_with(term.hyper)
            for part, term in zip(row.parts, terms, strict=True)
        ),
        options=options,
        **weights,
    )


def _of_part(protocol: Protocol, part: str, own: dict[str, Any]) -> dict[str, Any]:
    """Return one method's options in a combination, over the protocol's for the method alone."""
    return merged(protocol.methods.get(part, {}), own.get(short(part), {}))


def _weight(
    key: str,
    options: MethodOptions,
    protocol: Protocol,
    methods: Mapping[str, Description],
    of_part: Mapping[str, dict[str, Any]],
) -> float:
    """Return gamma, alpha or temperature of a row.

    Raises:
        UserError: the row sets none, and its methods have different ones.
    """
    value = getattr(options, key)
    if value is None:
        given = {
            part: of_part[part].get(key, method.objective.get(key))
            for part, method in methods.items()
        }
        weights = {part: float(weight) for part, weight in given.items() if weight is not None}
        if len(set(weights.values())) > 1:
            listed = ", ".join(f"{short(part)} {weight:g}" for part, weight in weights.items())
            raise UserError(f"{key}: the methods differ ({listed}); set {key} for this row")
        value = next(iter(weights.values()), getattr(protocol, key))
    return float(value)


def _term(
    part: str, method: Description, own: dict[str, Any], weights: Mapping[str, float]
) -> Term:
    """Return one method's term with defaults."""
    # A method's temperature is always the objective's.
    given = {key: own[key] for key in method.hyper if key in own} | {
        key: value for key, value in weights.items() if key == "temperature" and key in method.hyper
    }
    hyper = lookup.hyper(built_in_path(part), given)
    beta = own.get("beta")
    path = str(method.path) if method.external and part.endswith(".py") else None
    return Term(
        method=short(method.name),
        beta=float(method.beta if beta is None else beta) + 0.0,
        hyper={
            key: _normalised(value, method.hyper[key])
            for key, value in hyper.items()
            if key not in method.added_later or value != method.hyper[key]
        },
        source=method.sha256 if method.external else None,
        path=path,
        version=1 if method.external else method.version,
    )


def _normalised(value: Any, default: Any) -> Any:
    """Turn 2.0 into 2 if the default has no type, so that equal numbers give equal ids."""
    if default is None and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return tuple(_normalised(item, None) for item in value)
    return value
