"""Values that methods trace, once per epoch: ``runs/<id>/trace.csv``.

A method names small tensors (``Method.trace``). Each of their entries becomes a column with a name
such as ``semckd.attention[0][2]``. Tracing changes no result and no run id.
"""

import csv
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import one_line
from kdbench.files import Permission, write_atomically
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
    """Return the values that a run's methods trace on a batch; the methods are unchanged."""
    import torch

    values: dict[str, float] = {}
    for term, module in zip(terms, methods, strict=True):
        modes = {part: part.training for part in module.modules()}
        module.eval()
        with torch.no_grad():
            for name, tensor in module.trace(s, t).items():
                value = tensor.double().cpu()
                for index in itertools.product(*map(range, value.shape)):
                    brackets = "".join(f"[{i}]" for i in index)
                    values[f"{term.method}.{name}{brackets}"] = float(value[index])
        for part, training in modes.items():
            part.training = training
    return values


def write(
    folder: Path,
    history: Sequence[Mapping[str, float]],
    *,
    permission: Permission = nullcontext,
) -> None:
    """Write the traced values among a history's rows; no file if there are none.

    Args:
        folder: of the run.
        history: rows of the run's learning curve.
        permission: as in ``files.write_atomically``.
    """
    columns = [name for name in (history[0] if history else ()) if "." in name]
    if not columns:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *columns], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(folder / NAME, text.getvalue(), permission=permission)


def read(folder: Path) -> dict[str, "np.ndarray[Any, Any]"]:
    """Read a run's traced values: name -> [epochs, *shape], epochs ascending; {} without a file.

    Raises:
        RecordError: the file is damaged; the message names it.
    """
    import numpy as np

    path = folder / NAME
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path}: not a trace: {one_line(error)}") from error
    entries: dict[str, dict[tuple[int, ...], list[float]]] = {}  # name -> index -> of each epoch
    try:
        for column in rows[0] if rows else ():
            match = _COLUMN.fullmatch(column or "")
            if column is None:
                raise ValueError("a line has more fields than the first")
            if match and column != "epoch":
                index = tuple(map(int, re.findall(r"\d+", match["index"])))
                values = [float(row[column]) for row in rows]
                entries.setdefault(match["name"], {})[index] = values
        arrays = {}
        for name, parts in entries.items():
            shape = tuple(max(axis) + 1 for axis in zip(*parts, strict=True))
            if math.prod(shape) != len(parts):
                raise ValueError(f"entries of {name} are missing")
            arrays[name] = np.full((len(rows), *shape), np.nan)
            for index, values in parts.items():
                all_epochs: tuple[slice | int, ...] = (slice(None), *index)
                arrays[name][all_epochs] = values
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path}: not a trace: {one_line(error)}") from error
    return arrays
