"""What methods keep of their training, epoch by epoch: ``runs/<id>/trace.csv``.

A method names small tensors (``Method.trace``); here they become numbers with names such as
``semckd.attention[0][2]``, one column each. Nothing of it moves a number or stands in an id.
"""

import csv
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.files import write_atomically
from kdbench.grid.run import Term
from kdbench.runs.records import RecordError

if TYPE_CHECKING:
    import numpy as np

    from kdbench.method import Features, Method

NAME = "trace.csv"
_COLUMN = re.compile(r"(?P<name>[^\[\]]+)(?P<index>(\[\d+\])*)")


def traced_values(
    terms: Sequence[Term], methods: Sequence["Method"], s: "Features", t: "Features"
) -> dict[str, float]:
    """What the methods of a run's terms keep of a batch; leaves them as they were."""
    import torch

    values: dict[str, float] = {}
    for term, module in zip(terms, methods, strict=True):
        modes = {part: part.training for part in module.modules()}
        module.eval()
        with torch.no_grad():
            for name, tensor in module.trace(s, t).items():
                value = tensor.double().cpu()
                for index in itertools.product(*map(range, value.shape)):
                    place = "".join(f"[{i}]" for i in index)
                    values[f"{term.method}.{name}{place}"] = float(value[index])
        for part, training in modes.items():
            part.training = training
    return values


def write(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the traces among a history's rows, unless there are none."""
    columns = [name for name in (history[0] if history else ()) if "." in name]
    if not columns:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *columns], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(folder / NAME, text.getvalue())


def read(folder: Path) -> dict[str, "np.ndarray[Any, Any]"]:
    """What a run kept: name -> [epochs, *shape], epochs ascending from the first; {} if nothing.

    Raises:
        RecordError: the file is damaged; the message names it.
    """
    import numpy as np

    path = folder / NAME
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return {}
    places: dict[str, dict[tuple[int, ...], list[float]]] = {}
    try:
        for column in rows[0] if rows else ():
            match = _COLUMN.fullmatch(column)
            if match and column != "epoch":
                index = tuple(map(int, re.findall(r"\d+", match["index"])))
                values = [float(row[column]) for row in rows]
                places.setdefault(match["name"], {})[index] = values
        made = {}
        for name, parts in places.items():
            shape = tuple(max(axis) + 1 for axis in zip(*parts, strict=True))
            made[name] = np.full((len(rows), *shape), np.nan)
            for index, values in parts.items():
                place: tuple[slice | int, ...] = (slice(None), *index)
                made[name][place] = values
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path}: not a trace: {error}") from error
    return made
