"""The choice among swept values as text, and as plain values."""

import math
from collections.abc import Iterator
from typing import Any

import yaml

from kdbench.report.numbers import number
from kdbench.report.selection import Selection, Sweep, SweptValue, is_number
from kdbench.wording import counted

WIDTH = 100
"""Characters of a line, beyond which the values of a sweep continue in another block."""
FEWEST_SEEDS = 3
"""With fewer, standard errors are too uncertain to choose by."""
END = {"low": ("smallest", "smaller"), "high": ("largest", "larger")}


def lines(selection: Selection) -> list[str]:
    """Return a table and the choice for each row, and the line for a grid file."""
    out: list[str] = []
    for sweep in selection.sweeps:
        out += [*_table(sweep), *_conclusion(sweep), *_remarks(sweep), ""]
    return [*out, _budget(selection), *_warnings(selection), methods_line(selection)]


def _table(sweep: Sweep) -> Iterator[str]:
    """Yield a column for each value: the swept keys, held-out accuracy, distance to the best."""
    heads = [f"{sweep.row.label}: {sweep.keys[0]}"]
    heads += [" " * (len(sweep.row.label) + 2) + key for key in sweep.keys[1:]]
    heads += ["held out, %", "behind the best"]
    columns = [
        [*(value_text(v) for _, v in value.point), number(value.mean), _behind(sweep, value)]
        for value in sweep.values
    ]
    first = max(map(len, heads))
    widths = [max(map(len, column)) + 2 for column in columns]
    start = 0
    while start < len(columns):
        end, total = start + 1, first + widths[start]
        while end < len(columns) and total + widths[end] <= WIDTH:
            total += widths[end]
            end += 1
        for row, head in enumerate(heads):
            cells = zip(columns[start:end], widths[start:end], strict=True)
            yield head.ljust(first) + "".join(column[row].rjust(width) for column, width in cells)
        start = end


def value_text(value: Any) -> str:
    """Format a swept value, e.g. ``10,000``, ``0.002`` or ``layer3``."""
    if is_number(value):
        return f"{int(value) if float(value).is_integer() else value:,}"
    return value if isinstance(value, str) else _yaml(value)


def _behind(sweep: Sweep, value: SweptValue) -> str:
    choice = sweep.choice
    if value.label not in choice.mean or choice.best is None:
        return "not ranked"
    if value.label == choice.best:
        return "-"
    distance = number(choice.mean[choice.best] - choice.mean[value.label])
    se = choice.se[value.label]
    return distance if math.isnan(se) else f"{distance}±{number(se)}"


def _conclusion(sweep: Sweep) -> Iterator[str]:
    choice = sweep.choice
    if choice.best is None:
        yield "No value can be chosen: none has a result on every pair and no bad run."
        return
    text = f"best: {_best(sweep, choice.best)}."
    smallest = next(value.label for value in sweep.values if value.label in choice.mean)
    untested = all(math.isnan(se) for label, se in choice.se.items() if label != choice.best)
    if untested or choice.best == smallest:
        yield text
    elif choice.simplest == choice.best:
        yield f"{text} No smaller value is within one standard error."
    else:
        yield f"{text} Within one standard error: {_named(sweep, str(choice.simplest))}."


def _best(sweep: Sweep, label: str) -> str:
    """Return the best value, and what to try if it is at an end of its range."""
    ends = {
        key: "the {} tried: try {} ones".format(*END[edge]) for key, edge in sweep.edges.items()
    }
    if len(sweep.keys) == 1:
        return ", ".join([_named(sweep, label), *ends.values()])
    point = sweep.value(label).point
    return ", ".join(
        f"{key} {value_text(value)}" + (f" ({ends[key]})" if key in ends else "")
        for key, value in point
    )


def _named(sweep: Sweep, label: str) -> str:
    """Return the values of a row, e.g. ``10,000``, or ``beta 10, gamma 1`` of several keys."""
    point = sweep.value(label).point
    if len(point) == 1:
        return value_text(point[0][1])
    return ", ".join(f"{key} {value_text(value)}" for key, value in point)


def _remarks(sweep: Sweep) -> Iterator[str]:
    for value in sweep.values:
        name = _named(sweep, value.label)
        for status, count in value.bad.items():
            yield (
                f"{name}: {count} of {counted(value.expected, 'run')} {status}, counted as 0; "
                "not chosen."
            )
        if value.lacking:
            yield f"{name}: no result on {', '.join(value.lacking)}; not chosen."
        elif value.n + sum(value.bad.values()) < value.expected:
            yield f"{name}: {value.n} of {counted(value.expected, 'run')} finished so far."
    if sweep.not_begun:
        yield f"No results on {', '.join(sweep.not_begun)}: left out."


def _budget(selection: Selection) -> str:
    text = f"{counted(len(selection.grid.seeds), 'seed')} x {counted(len(selection.pairs), 'pair')}"
    if not selection.images:
        return f"{text}."
    images = f"{counted(selection.images, 'image')} held out"
    if math.isnan(selection.image_error):
        return f"{text}, {images}."
    up_to = "up to " if len(selection.sweeps) > 1 else ""
    error = f"{up_to}{number(selection.image_error, 1)} points for one accuracy"
    return f"{text}, {images} ({error}, which more seeds do not reduce)."


def _warnings(selection: Selection) -> Iterator[str]:
    seeds = min((s.seeds for s in selection.sweeps if s.choice.best is not None), default=0)
    if 0 < seeds < FEWEST_SEEDS:
        why = "no standard errors" if seeds == 1 else "standard errors are very uncertain"
        yield f"Fewer than {FEWEST_SEEDS} seeds: {why}."


def methods_line(selection: Selection) -> str:
    """Return the line for a grid file: the grid's methods with the best values.

    A comment names the simplest values within one standard error, where they differ. A row without
    a choice keeps the options that it has in the grid.
    """
    chosen = {sweep.row.label: sweep for sweep in selection.sweeps}
    rows = [
        _entry(chosen[row.label], chosen[row.label].choice.best)
        if row.label in chosen
        else ({row.name: row.options} if row.options else row.name)
        for row in selection.grid.methods
    ]
    simpler = [
        _yaml(_entry(sweep, sweep.choice.simplest))
        for sweep in selection.sweeps
        if sweep.choice.simplest != sweep.choice.best
    ]
    text = f"methods: {_yaml(rows)}"
    note = f"        # or the simplest within one standard error: {', '.join(simpler)}"
    return text + (note if simpler else "")


def _entry(sweep: Sweep, label: str | None) -> Any:
    options = sweep.row.options if label is None else sweep.options(label)
    return {sweep.row.name: options} if options else sweep.row.name


def _yaml(value: Any) -> str:
    """Write a value in one line of YAML."""
    text = yaml.safe_dump(_lists(value), default_flow_style=True, sort_keys=False, width=math.inf)
    return str(text).removesuffix("...\n").strip()


def _lists(value: Any) -> Any:
    """Turn tuples into lists, for YAML."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def as_json(selection: Selection) -> dict[str, Any]:
    """Return the numbers behind the text; what is unknown is nan, or None."""
    return {
        "grid": selection.grid.name,
        "seeds": list(selection.grid.seeds),
        "pairs": list(selection.pairs),
        "images_held_out": selection.images,
        "image_error": selection.image_error,
        "sweeps": [_sweep_json(sweep) for sweep in selection.sweeps],
        "warnings": list(_warnings(selection)),
        "methods": methods_line(selection),
    }


def _sweep_json(sweep: Sweep) -> dict[str, Any]:
    choice = sweep.choice
    return {
        "row": sweep.row.label,
        "keys": list(sweep.keys),
        "values": [
            {
                "label": value.label,
                "value": dict(value.point),
                "mean": value.mean,
                "se": choice.se.get(value.label),
                "behind": _distance(sweep, value.label),
                "per_pair": dict(value.per_pair),
                "n": value.n,
                "expected": value.expected,
                "bad": dict(value.bad),
                "lacking": list(value.lacking),
            }
            for value in sweep.values
        ],
        "best": choice.best,
        "simplest": choice.simplest,
        "edge": dict(sweep.edges),
        "seeds": sweep.seeds,
        "remarks": [*_conclusion(sweep), *_remarks(sweep)],
    }


def _distance(sweep: Sweep, label: str) -> float | None:
    choice = sweep.choice
    if choice.best is None or label not in choice.mean:
        return None
    return choice.mean[choice.best] - choice.mean[label]
