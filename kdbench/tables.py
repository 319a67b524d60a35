"""Cells and records to tables: one tidy frame, and from it the tables of a page, as text.

``tidy`` computes; every other table only selects from it and formats, so that the CSV says all
that the page says. ``markdown`` is one way to write a ``Table``.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdbench import published, stats
from kdbench.grid import Grid
from kdbench.records import Record
from kdbench.run import Cell
from kdbench.stats import Difference, Summary

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("teacher", "student")
COLUMNS = (
    *("method", "teacher", "student", "pair", "dataset", "protocol"),
    *("n", "expected", "mean", "sd", "best_mean", "status"),
    *("diverged", "failed", "skipped", "missing"),
    *("diff", "diff_sd", "diff_n", "lo", "hi", "p", "p_holm", "top"),
    *("ari_ratio", "ari_unreliable", "recovered_gap", "test_se"),
    *("seconds", "teacher_seconds", "time_ratio", "step_ms"),
    *("params", "params_extra", "params_deployed", "macs", "peak_mb"),
    *("published_mean", "published_sd", "published_source", "published_notes"),
    *("reason", "bad_runs", "runs"),
)
MARKS = re.compile(r"[\\&<|`*~$_]|\][(\[:]|[^\S ]|  |^ | $|^(?:>|\d+[.)](?= |$)|[#+=-]+(?= |$))")
"""What ``escape`` looks at more closely."""
COUNTS = ("params", "params_extra", "params_deployed", "macs", "diff_n")


@dataclass(frozen=True)
class Table:
    """A table to show; all of it is plain text that is still to be escaped.

    Attributes:
        title: heading; empty: none.
        rows: text, the first column names the row.
        bold: (row, column name) of what stands out.
        notes: said below.
    """

    title: str
    rows: "pd.DataFrame"
    bold: frozenset[tuple[int, str]] = frozenset()
    notes: tuple[str, ...] = ()


def tidy(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> "pd.DataFrame":
    """One row per method and pair, rows ``teacher`` and ``student`` included: ``COLUMNS``.

    ``diff`` to ``p_holm`` compare with the report's baseline, Holm-adjusted over a pair's methods;
    ``top``: the best of its pair or not distinguishable from it; ``ari_ratio``: gain of the
    report's ``ari_of`` over this row; ``time_ratio``: training time over the baseline's.

    Raises:
        ValueError: the report's reference is no published table.
    """
    import pandas as pd

    baseline = find(cells, grid.report.baseline)
    reference = find(cells, grid.report.ari_of) if grid.report.ari_of else None
    rows: list[dict[str, Any]] = []
    for pair, members in stats.by_pair(cells).items():
        rows += _pair(grid, pair, members, records, baseline, reference)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(COUNTS, "Int64"))


def find(cells: Iterable[Cell], name: str) -> str | None:
    """The row that a report means by ``name``: its label, or its terms; None if none or several."""
    terms: dict[str, str] = {}
    for cell in cells:
        if cell.runs and cell.method not in terms:
            # A plugin's name is its path without the ending.
            parts = [re.split(r"[/\\]", term.method)[-1] for term in cell.runs[0].terms]
            terms[cell.method] = "+".join(sorted(part.removesuffix(".py") for part in parts))
    if name in terms:
        return name
    wanted = "+".join(
        sorted(re.split(r"[/\\]", p)[-1].removesuffix(".py") for p in name.split("+"))
    )
    found = [label for label, made_of in terms.items() if made_of == wanted]
    return found[0] if len(found) == 1 else None


def _pair(
    grid: Grid,
    pair: str,
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    baseline: str | None,
    reference: str | None,
) -> list[dict[str, Any]]:
    """The tidy rows of one pair."""
    found = {cell.method: stats.summarise(cell.runs, records) for cell in cells}
    nothing = Summary(0, {}, {}, math.nan, (), ())
    student, base = found.get("student", nothing), found.get(baseline or "", nothing)
    best_of = {name: s.accuracies for name, s in found.items() if name != "teacher"}
    top = stats.not_distinguishable_from_best(best_of)
    differences = {
        name: stats.difference(s.accuracies, base.accuracies) for name, s in found.items()
    }
    family = [name for name in found if name not in (*BASELINES, baseline)]
    adjusted = stats.holm([differences[name].p for name in family])
    p_holm = dict(zip(family, adjusted, strict=True))
    teacher = stats.teacher_accuracy(cells, records)
    base_seconds = _cost(base, "seconds") + _cost(base, "teacher_seconds")
    rows = []
    for cell in cells:
        name, summary = cell.method, found[cell.method]
        is_teacher = name == "teacher"
        compared = not is_teacher and name != baseline
        accuracy = teacher if is_teacher else summary.mean
        seconds = _cost(summary, "seconds")
        teacher_seconds = _cost(summary, "teacher_seconds")
        row: dict[str, Any] = {
            "method": name,
            "teacher": cell.teacher,
            "student": cell.student,
            "pair": pair,
            "dataset": grid.dataset.title,
            "protocol": grid.protocol.name,
            "n": summary.n,
            "expected": summary.expected,
            "mean": accuracy,
            "sd": summary.sd,
            "best_mean": summary.best,
            "status": summary.status,
            **{s: summary.statuses.get(s, 0) for s in stats.STATUSES if s != "done"},
            "top": name in top,
            "recovered_gap": stats.recovered_gap(accuracy, student.mean, teacher),
            "test_se": stats.standard_error(accuracy, _n_test(summary)),
            "seconds": seconds,
            "teacher_seconds": teacher_seconds,
            "time_ratio": math.nan
            if is_teacher
            else _share(seconds + teacher_seconds, base_seconds),
            "step_ms": _cost(summary, "step_ms"),
            "peak_mb": _cost(summary, "peak_mb"),
            **{count: _count(summary, count) for count in COUNTS[:4]},
            "reason": "; ".join(dict.fromkeys(reason for _, reason, _ in summary.reasons)),
            "bad_runs": " ".join(run for _, _, run in summary.reasons),
            "runs": " ".join(run.id for run in cell.runs),
        }
        if is_teacher:
            row |= _teacher(grid, cell, summary, accuracy)
        if compared and baseline:
            row |= _difference(differences[name], p_holm.get(name, math.nan))
        if reference and name not in (*BASELINES, reference):
            row |= _ari(found.get(reference, nothing), summary, student)
        rows.append(row | _published(grid, cell))
    return rows


def _teacher(grid: Grid, cell: Cell, summary: Summary, accuracy: float) -> dict[str, Any]:
    """What the row of a teacher says otherwise than a student's."""
    if not cell.runs:
        known = not math.isnan(accuracy)
        runs = grid.teachers.get(cell.teacher, "")
        return {"n": int(known), "expected": 1, "status": "imported", "sd": math.nan, "runs": runs}
    protocol = grid.teacher.protocol or grid.protocol
    dataset = grid.teacher.dataset or grid.dataset
    return {"protocol": protocol.name, "dataset": dataset.title}


def _difference(difference: Difference, p_holm: float) -> dict[str, Any]:
    return {
        "diff": difference.mean,
        "diff_sd": difference.sd,
        "diff_n": difference.n,
        "lo": difference.low,
        "hi": difference.high,
        "p": difference.p,
        "p_holm": p_holm,
    }


def _ari(reference: Summary, method: Summary, student: Summary) -> dict[str, Any]:
    [ratio] = stats.relative_improvements([reference.mean], [method.mean], [student.mean])
    se = stats.difference(method.accuracies, student.accuracies).se
    known = reference.n and method.n and student.n
    return {
        "ari_ratio": ratio,
        "ari_unreliable": stats.unreliable(method.mean, student.mean, se) if known else None,
    }


def _published(grid: Grid, cell: Cell) -> dict[str, Any]:
    if not grid.report.reference:
        return {}
    data = grid.dataset.label or grid.dataset.name
    figure = published.lookup(
        grid.report.reference, cell.method, cell.teacher, cell.student, dataset=data
    )
    if figure is None:
        return {}
    return {
        "published_mean": figure.mean,
        "published_sd": figure.sd,
        "published_source": figure.source,
        "published_notes": figure.notes,
    }


def _cost(summary: Summary, field: str) -> float:
    """Mean over seeds; of memory, the most."""
    values = [getattr(record.cost, field) for record in summary.records if record.cost]
    return max(values, default=math.nan) if field == "peak_mb" else stats.mean(values)


def _count(summary: Summary, field: str) -> int | None:
    return next((getattr(r.cost, field) for r in summary.records if r.cost), None)


def _share(seconds: float, of: float) -> float:
    return seconds / of if of else math.nan


def _n_test(summary: Summary) -> int:
    return next((r.result.n_test for r in summary.records if r.result), 0)


# --- tables to show ---


def accuracy(frame: "pd.DataFrame", *, ari_of: str | None = None) -> Table:
    """The paper's layout: teacher, student and methods down, pairs across, ARI last.

    Args:
        frame: of ``tidy``. ari_of: the row whose ARI is shown; None: no such column.
    """
    table = _wide(frame, {key: _cell(row) for key, row in _rows(frame)})
    bold = frozenset(
        (i, pair)
        for i, method in enumerate(_methods(frame))
        for pair in frame.loc[(frame["method"] == method) & frame["top"], "pair"]
    )
    notes = [
        "Test accuracy of the last epoch in percent, mean ± standard deviation over seeds; "
        "(k/n): k of n seeds are done, and the mean is over these.",
        "Bold: the best of its column, teacher aside, and all that is not distinguishable from it: "
        "paired t test on common seeds, two-sided, p below 0.05 after Holm's adjustment over the "
        "column. Fewer than two common seeds distinguish nothing.",
    ]
    if ari_of:
        column = f"ARI of {ari_of}, %"
        values = average_improvements(frame)
        pairs = frame["pair"].nunique()
        table[column] = [_ari_cell(values.get(method), pairs) for method in table["Method"]]
        others = [name for name in values if ari_of not in re.split(r"[+(]", name)]
        known = [values[name][0] for name in others]
        if known:
            average = sum(known) / len(known)
            table.loc[table["Method"] == ari_of, column] = f"mean {_number(average, 2)}"
        notes.append(
            f"ARI: gain of {ari_of} over this row in percent of this row's gain over the student, "
            f"mean over pairs (Chen et al., AAAI 2021); mean: over {', '.join(others) or 'none'}. "
            "†: in at least one pair this row's gain over the student is below 2 standard errors "
            "of the paired difference (or one seed cannot tell), and ARI is not to be relied upon."
        )
    return Table("Accuracy", table, bold, tuple(notes))


def average_improvements(frame: "pd.DataFrame") -> dict[str, tuple[float, int, bool]]:
    """Of each method: ARI of the reference over it, the pairs it is over, whether one is marked."""
    out = {}
    rows = frame[frame["ari_unreliable"].notna()]
    for method, group in rows.groupby("method", sort=False):
        ratios = [float(ratio) for ratio in group["ari_ratio"]]
        marked = bool(group["ari_unreliable"].astype(bool).any())
        out[str(method)] = (sum(ratios) / len(ratios), len(ratios), marked)
    return out


def improvements(frame: "pd.DataFrame", ari_of: str) -> Table:
    """What ARI averages: the ratio of each pair, and two companions that are less easily moved."""
    rows = frame[frame["ari_unreliable"].notna()]
    texts = {
        key: _number(row.ari_ratio, 1) + (" †" if row.ari_unreliable else "")
        for key, row in _rows(rows)
    }
    table = _wide(rows, texts)
    reference = frame[frame["method"] == ari_of].set_index("pair")["mean"]
    medians, points = [], []
    for method in table["Method"]:
        of = rows[rows["method"] == method]
        gains = [
            reference[pair] - value for pair, value in zip(of["pair"], of["mean"], strict=True)
        ]
        medians.append(_number(float(of["ari_ratio"].median()), 1))
        points.append(f"{stats.mean(gains):+.2f}")
    table["Median, %"], table["Mean difference, points"] = medians, points
    note = (
        f"100 · ({ari_of} − row) / (row − student) of each pair, in percent; †: the denominator is "
        f"below 2 standard errors. Mean difference: {ari_of} − row over the same pairs."
    )
    return Table(f"What ARI of {ari_of} averages", table, notes=(note,))


def differences(frame: "pd.DataFrame", baseline: str) -> Table:
    """Every row's paired difference to the baseline, with its interval and adjusted p."""
    rows = frame[frame["diff_n"].notna()]
    table = _wide(rows, {key: _difference_cell(row) for key, row in _rows(rows)})
    count = int(rows["p"].notna().sum())
    notes = (
        f"Row − {baseline} in points, over the seeds that both have done, [95 % t interval of the "
        "paired difference, for one comparison], p: paired t test, two-sided, Holm-adjusted over "
        f"the methods of the pair; not over pairs. {count} comparisons in all. The student is "
        "shown and not one of the adjusted comparisons.",
        "No interval: fewer than two common seeds, or differences that are all the same.",
    )
    return Table(f"Difference to {baseline}", table, notes=notes)


def costs(frame: "pd.DataFrame", baseline: str | None) -> Table:
    """What training and deploying each row takes."""
    import pandas as pd

    # A teacher is trained once, for all its students.
    again = (frame["method"] == "teacher") & frame["runs"].duplicated()
    rows = frame[frame["seconds"].notna() & ~again]
    columns: dict[str, list[str]] = {
        "Method": list(rows["method"]),
        "Pair": list(rows["pair"]),
        f"Time / {baseline or 'baseline'}": [_number(v, 2) for v in rows["time_ratio"]],
        "Seconds": [
            _number(a + b, 1) for a, b in zip(rows["seconds"], rows["teacher_seconds"], strict=True)
        ],
        "Step, ms": [_number(v, 2) for v in rows["step_ms"]],
        "Extra parameters in training": [_integer(v) for v in rows["params_extra"]],
        "Parameters deployed": [_integer(v) for v in rows["params_deployed"]],
        "Peak MB": [_number(v, 0) for v in rows["peak_mb"]],
    }
    table = pd.DataFrame(columns)
    notes = (
        "Time and seconds: training and evaluation with the teacher's forward counted whole, as if "
        "a run had been alone; mean over seeds. Step: without the teacher. Peak: of the process, "
        "which runs trained together share; the largest of the seeds.",
    )
    return Table("Cost", table, notes=notes)


def best_epoch(frame: "pd.DataFrame") -> Table:
    """The best epoch's accuracy, which is no result."""
    texts = {key: _number(row.best_mean, 2) for key, row in _rows(frame)}
    title = "Best epoch (selected on the test set; not the headline)"
    note = (
        "Highest test accuracy of any epoch, mean over seeds: too high by selection; only to "
        "compare with papers that report it."
    )
    return Table(title, _wide(frame, texts), notes=(note,))


def published_figures(frame: "pd.DataFrame", reference: str) -> Table:
    """Published accuracies, and how far ours is from them."""
    rows = frame[frame["published_mean"].notna()]
    texts = {}
    for key, row in _rows(rows):
        sd = "" if math.isnan(row.published_sd) else f" ± {row.published_sd:.2f}"
        ours = "" if math.isnan(row.mean) else f" (ours {row.mean - row.published_mean:+.2f})"
        texts[key] = f"{row.published_mean:.2f}{sd}{ours}"
    table = _wide(rows, texts)
    notes = ["In brackets: this page's mean less the published one, in points."]
    for column, word in (("published_source", "Source"), ("published_notes", "The source's notes")):
        for text in dict.fromkeys(str(text) for text in rows[column] if text):
            notes.append(f"{word}: {text}.")
    return Table(f"Published: {reference}", table, notes=tuple(notes))


def objectives(cells: Iterable[Cell]) -> Table:
    """The weights of every row's objective, as its first run has them."""
    import pandas as pd

    rows = []
    first = {cell.method: cell.runs[0] for cell in reversed(list(cells)) if cell.runs}
    for method, run in reversed(first.items()):
        weights = [f"{run.gamma:g}"]
        weights += [f"{run.alpha:g}", f"{run.temperature:g}"] if run.alpha else ["0", "–"]
        terms = []
        for term in run.terms:
            hyper = ", ".join(f"{key}={value}" for key, value in sorted(term.hyper.items()))
            terms.append(f"{term.beta:g} · {term.method}" + (f"({hyper})" if hyper else ""))
        phase = (
            f"; first phase: {run.pretrain[0]} epochs at {run.pretrain[1]:g}"
            if run.pretrain
            else ""
        )
        rows.append([method, *weights, " + ".join(terms) + phase])
    columns = ["Method", "gamma (CE)", "alpha (T²·KL)", "T", "beta · term"]
    return Table("Objectives", pd.DataFrame(rows, columns=columns))


def reasons(frame: "pd.DataFrame") -> list[str]:
    """A line for each way in which runs ended badly: row, how, why, where, and a run to look at."""
    lines: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for _, row in _rows(frame[frame["bad_runs"] != ""]):
        key = (row.method, _troubles(row), row.reason)
        lines.setdefault(key, []).append((row.pair, row.bad_runs.split()[0]))
    out = []
    for (method, how, reason), places in lines.items():
        pairs = list(dict.fromkeys(pair for pair, _ in places))
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        out.append(
            f"{method}, {how}: {reason} ({'; '.join(pairs[:5])}{more}; kdbench show {places[0][1]})"
        )
    return out


def markdown(table: Table) -> str:
    """A table with its heading and notes, everything in it escaped."""
    lines = [f"## {escape(table.title)}", ""] if table.title else []
    columns = [str(name) for name in table.rows.columns]
    lines.append(_line(escape(name) for name in columns))
    lines.append(_line("---" if i == 0 else "---:" for i in range(len(columns))))
    for i, row in enumerate(table.rows.itertuples(index=False)):
        texts = [escape(str(text)) for text in row]
        lines.append(
            _line(
                f"**{text}**" if (i, name) in table.bold and text else text
                for name, text in zip(columns, texts, strict=True)
            )
        )
    for note in table.notes:
        lines += ["", escape(note)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it stands: no cell ends early, no tag opens, no link forms.

    What needs no escape where it stands has none, so that the page can be read as a text, too.
    """
    if not MARKS.search(text):
        return text
    text = " ".join(text.split()).replace("\\", "\\\\")
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    text = re.sub(r"([|`*~$])", r"\\\1", text)
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)
    # Inside a word an underscore is itself: wrn_40_2 stays readable.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # What would be a heading, a quotation or a list at the start of a line.
    text = re.sub(r"^(\d+)([.)](?=\s|$))", r"\1\\\2", text)
    return re.sub(r"^(>|[#+=-]+(?=\s|$))", r"\\\1", text)


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _methods(frame: "pd.DataFrame") -> list[str]:
    """Rows in their order, teacher and student first."""
    names = list(dict.fromkeys(frame["method"]))
    return sorted(names, key=lambda name: BASELINES.index(name) if name in BASELINES else 2)


def _rows(frame: "pd.DataFrame") -> Iterable[tuple[tuple[str, str], Any]]:
    rows: Iterable[Any] = frame.itertuples(index=False)
    for row in rows:
        yield (row.method, row.pair), row


def _wide(frame: "pd.DataFrame", texts: Mapping[tuple[str, str], str]) -> "pd.DataFrame":
    """Methods down, pairs across."""
    import pandas as pd

    methods, pairs = _methods(frame), list(dict.fromkeys(frame["pair"]))
    columns = {pair: [texts.get((method, pair), "") for method in methods] for pair in pairs}
    return pd.DataFrame({"Method": methods} | columns, dtype=object)


def _cell(row: Any) -> str:
    if row.status == "imported":
        return "imported" if math.isnan(row.mean) else f"{row.mean:.2f} (imported)"
    if row.n:
        shown = _number(row.mean, 2) + (f" ± {row.sd:.2f}" if row.n > 1 else "")
        if row.n == row.expected:
            return shown
        troubles = _troubles(row)
        after = f", {troubles}" if troubles else ""
        return f"{shown} ({row.n}/{row.expected}{after})"
    if row.skipped and row.skipped == row.expected:
        return f"skipped: {row.reason if len(row.reason) <= 60 else row.reason[:59] + '…'}"
    if row.expected in (row.failed, row.missing):
        return row.status
    missing = f"missing {row.missing}/{row.expected}" if row.missing else ""
    return ", ".join(text for text in (_troubles(row), missing) if text)


def _troubles(row: Any) -> str:
    """E.g. ``diverged 1/3, failed 1/3``."""
    counts = {status: getattr(row, status) for status in ("diverged", "failed", "skipped")}
    return ", ".join(f"{status} {k}/{row.expected}" for status, k in counts.items() if k)


def _ari_cell(value: tuple[float, int, bool] | None, pairs: int) -> str:
    if value is None:
        return ""
    average, n, marked = value
    over = f" ({n}/{pairs} pairs)" if n < pairs else ""
    return f"{_number(average, 2)}{' †' if marked else ''}{over}"


def _difference_cell(row: Any) -> str:
    if not row.diff_n:
        return "–"
    text = f"{row.diff:+.2f}"
    if not math.isnan(row.lo):
        text += f" [{row.lo:+.2f}, {row.hi:+.2f}]"
    elif row.diff_n == 1:
        text += " (1 seed)"
    else:
        text += " (no spread)"
    if not math.isnan(row.p_holm):
        text += ", p < 0.001" if row.p_holm < 0.001 else f", p = {row.p_holm:.3f}"
    return text


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _integer(value: Any) -> str:
    import pandas as pd

    return "–" if pd.isna(value) else f"{int(value):,}"
