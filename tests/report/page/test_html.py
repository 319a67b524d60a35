import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import large_page
import pytest
from fake_grids import cell_of, make_cells, make_grid, make_record
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.grid.grid import Report
from kdbench.grid.run import Cell, Teacher
from kdbench.grid.settings import Dataset
from kdbench.report import numbers
from kdbench.report.page import html as page
from kdbench.report.page import main_table
from kdbench.report.plots import pictures
from kdbench.report.tables.table import Table
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import aggregate

SMALL: dict[str, Any] = {
    "methods": ("kd", "at", "fsp", "nst", "crd", "dkd", "reviewkd"),
    "pairs": (("wrn_40_2", "ShuffleV1"), ("ResNet50", "vgg8"), ("resnet56", "resnet20")),
}


class Reader(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.values: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def data_of(text: str) -> dict[str, Any]:
    """Return the JSON embedded in a page."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    values: dict[str, Any] = json.loads(match[1])
    return values


def answer(text: str, question: str) -> str:
    """Return the page's answer to a question."""
    block = text.partition(f"<h3>{question}</h3>")[2].partition("</div>")[0].partition("<h3>")[0]
    return " ".join(" ".join(Reader(block).texts).split())


def cell(data: dict[str, Any], method: str, pair: str) -> dict[str, Any]:
    [details] = [c for c in data["cells"] if c["method"] == method and c["pair"].startswith(pair)]
    details["lines"] = {name: value for _, lines in details["sections"] for name, value in lines}
    return dict(details)


# --- content ---


def test_questions_are_answered() -> None:
    text = large_page.html(large_page.evidence(**SMALL))
    which = answer(text, "Which method would you use?")
    assert which.startswith("at: the highest mean, 72.21 % over 3 pairs, +0.93 over kd [+0.70, ")
    assert " told apart from kd over pairs (" in answer(text, "How sure is that?")
    assert "the training time of kd" in answer(text, "At what cost?")
    assert answer(text, "Would it hold on another pair?") == "3 pairs say little of others."
    measured = answer(text, "How was it measured?")
    assert "7 methods × 3 teacher-student pairs × 5 seeds" in measured
    assert "after the last epoch" in measured
    assert "5 diverged" not in answer(text, "What is missing?")
    assert "6 diverged, 5 failed, 15 skipped and 12 missing" in answer(text, "What is missing?")


def test_nothing_is_missing() -> None:
    text = large_page.html(
        large_page.evidence(("kd", "at"), (("vgg13", "vgg8"),), (0, 1, 2), only_finished=True)
    )
    assert answer(text, "What is missing?") == "Nothing: all 10 runs are done."


def test_page_without_records() -> None:
    evidence = replace(large_page.evidence(**SMALL), records={}, history=lambda run_id: [])
    text = large_page.html(evidence)
    assert answer(text, "Which method would you use?") == "No method has a result yet."
    assert "<svg" not in text and "How sure is that?" not in text
    assert "There are no learning curves." in text
    assert not data_of(text)["curves"]


def test_method_without_results_on_a_pair_is_not_the_answer() -> None:
    evidence = large_page.evidence(("kd", "semckd"), (("vgg13", "vgg8"), ("vgg13", "MobileNetV2")))
    kept = dict(evidence.records)
    for run in cell_of(evidence.cells, "semckd").runs:
        del kept[run.id]
    which = answer(large_page.html(replace(evidence, records=kept)), "Which method would you use?")
    assert which.startswith(
        "kd: the highest mean, 71.11 % over 2 pairs. Nothing is shown to beat kd."
    )


def test_one_seed_each() -> None:
    text = large_page.html(
        large_page.evidence(("kd", "semckd"), (("vgg13", "vgg8"),), (0,), only_finished=True)
    )
    which = answer(text, "Which method would you use?")
    assert which == "One seed each: no difference can be judged."
    assert "How sure is that?" not in text


def test_unknown_baseline_has_no_columns() -> None:
    evidence = large_page.evidence(
        ("kd", "at"), (("vgg13", "vgg8"),), report=Report(baseline="none")
    )
    text = large_page.html(evidence)
    assert '<span class="delta">' not in text
    assert "nan" not in Reader(text).texts


def test_details_match_the_records() -> None:
    evidence = large_page.evidence(**SMALL, report=Report())
    statistics = aggregate(evidence)
    frame = statistics.frame
    data = data_of(page.render(statistics, command=lambda run: f"again {run.id}"))
    details = cell(data, "at", "resnet56")
    row = frame[(frame["method"] == "at") & (frame["student"] == "resnet20")].iloc[0]
    assert (
        details["lines"]["Test accuracy, last epoch, mean ± sd"]
        == f"{row['mean']:.2f} ± {row['sd']:.2f} %"
    )
    contrast = statistics.decision.pairs[row["pair"]].contrasts["at", "kd"]
    assert details["lines"]["95 % interval"] == numbers.interval(contrast.low, contrast.high)
    assert details["lines"]["Degrees of freedom"] == f"{contrast.df:.1f}"
    assert details["lines"]["Standard deviation over seeds"] == f"{contrast.sd:.2f} points"
    assert details["lines"]["p, adjusted for all rows of the pair"] == numbers.p_value(
        contrast.p_adj
    )
    assert details["lines"]["Loss"] == "1 · CE + 1 · T² · KL with T = 4 + 2 · at(p=2)"
    assert details["lines"]["Versions"] == "torch 2.9.0, kdbench 0.1.0"
    runs = next(c for c in evidence.cells if c.method == "at" and c.student == "resnet20").runs
    assert details["command"] == f"again {runs[0].id}"
    assert [run[0] for run in details["runs"]] == [0, 1, 2, 3, 4]
    assert details["runs"][1][3] == pytest.approx(large_page.accuracy(runs[1]), abs=1e-4)
    decides = {key: value for key, value in runs[0].canonical.items() if key != "seed"}
    assert details["config"] == json.dumps(decides, indent=1)
    failed = cell(data, "nst", "wrn_40_2")
    assert failed["runs"][0][2:] == [
        "failed", None, None, None, "OutOfMemoryError: 64 GiB are not there",
    ]  # fmt: skip
    assert cell(data, "reviewkd", "ResNet50")["status"] == "missing: not trained yet"


def test_details_state_the_gpu_and_how_steps_ran() -> None:
    evidence = large_page.evidence(**SMALL, report=Report())
    on_gpu = {
        "device": "NVIDIA H200", "cuda": "13.0", "cudnn": "9.10.2", "driver": "580.65.06",
        "capability": "9.0", "multiprocessors": 132, "gpu_mb": 143771, "tf32": True,
        "deterministic": True, "graphs": "auto",
    }  # fmt: skip
    records = dict(evidence.records)
    runs = next(c for c in evidence.cells if c.method == "at" and c.student == "resnet20").runs
    for run, how in zip(
        runs, [{"graphed": "yes"}] * 4 + [{"graphed": "no", "nondeterministic": ["a", "b"]}],
        strict=True,
    ):  # fmt: skip
        record = records[run.id]
        records[run.id] = replace(record, environment=record.environment | on_gpu | how)
    statistics = aggregate(replace(evidence, records=records))
    data = data_of(page.render(statistics, command=lambda run: ""))
    lines = cell(data, "at", "resnet56")["lines"]
    assert lines["Device"] == "NVIDIA H200"
    assert lines["GPU"] == (
        "CUDA 13.0, cuDNN 9.10.2, driver 580.65.06, capability 9.0, 132 multiprocessors, "
        "143,771 MB, convolutions in TF32"
    )
    assert lines["Steps as CUDA graphs"] == "yes; no"
    assert lines["Operations that may vary in the last bits"] == "a, b"
    assert "GPU" not in cell(data, "kd", "resnet56")["lines"]


def test_page_of_too_many_cells_shows_numbers_and_links_to_the_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence = large_page.evidence(**SMALL)
    full = large_page.html(evidence)
    monkeypatch.setattr(page, "CELLS", len(evidence.cells))
    assert large_page.html(evidence) == full
    monkeypatch.setattr(page, "CELLS", len(evidence.cells) - 1)
    text = large_page.html(evidence)
    page_text = " ".join(" ".join(Reader(text).texts).split())
    assert "too many cells to open them here" in page_text and "kdbench show ID" in page_text
    for part in (
        "Select a cell",
        "Bars of means",
        "cells do not open",
        "Learning curves are drawn",
    ):
        assert part in full and part not in text
    assert "data-c=" not in text and '<svg class="bar' not in text
    assert data_of(text)["cells"] == []

    def table_texts(html: str) -> list[str]:
        table = html.partition('<table id="leaderboard"')[2].partition("</table>")[0]
        return [stripped for part in Reader(table).texts if (stripped := part.strip())]

    assert table_texts(text) == table_texts(full)
    code = re.compile(r"<script>(.*?)</script>", re.DOTALL)
    assert code.findall(text) == code.findall(full)


def test_second_hand_figure_is_marked() -> None:
    report = Report(reference="NORM (ICLR 2023)/README tables 1-2")
    pairs = [("wrn_40_2", "wrn_16_2")]
    grid = make_grid(pairs, report=report, dataset=Dataset(name="cifar100"))
    cells = make_cells(grid, ("kd", "reviewkd"))
    records = {r.id: make_record(r, 75.0) for c in cells for r in c.runs}
    data = data_of(large_page.html(Evidence(grid, cells, records, lambda run_id: [])))
    assert cell(data, "reviewkd", "wrn_40_2")["lines"]["Published"] == "76.12 % (second-hand)"


def test_published_figures_and_imported_teachers() -> None:
    report = Report(reference="CRD / RepDistiller (ICLR 2020)/README table 1")
    grid = make_grid([("vgg13", "vgg8")], report=report, dataset=Dataset(name="cifar100"))
    grid = grid.model_copy(update={"teachers": {"vgg13": "import-1234"}})
    cells = [
        Cell("teacher", c.teacher, c.student, ())
        if c.method == "teacher"
        else replace(
            c,
            runs=tuple(
                replace(r, teacher=Teacher("vgg13", "import-1234") if r.teacher else None)
                for r in c.runs
            ),
        )
        for c in make_cells(grid, ("kd", "at"))
    ]
    records = {r.id: make_record(r, 72.0) for c in cells for r in c.runs}
    data = data_of(large_page.html(Evidence(grid, cells, records, lambda run_id: [])))
    lines = cell(data, "kd", "vgg13")["lines"]
    assert lines["Published"] == "72.98 %"
    assert lines["Here − published"] == "−0.98 points"
    assert cell(data, "teacher", "vgg13")["status"] == "imported checkpoint"


def test_map_shows_every_status() -> None:
    evidence = large_page.evidence(**SMALL)
    statistics = aggregate(evidence)
    table = {row.name: row for row in main_table.rows(statistics)}
    assert [cell.letter for cell in table["kd"].cells] == ["D", "D", "D"]
    assert [cell.letter for cell in table["nst"].cells] == ["F", "D", "D"]
    assert [cell.letter for cell in table["dkd"].cells] == ["D", "X", "D"]
    assert [cell.letter for cell in table["crd"].cells] == ["D", "P", "D"]
    assert [cell.letter for cell in table["fsp"].cells] == ["S", "S", "S"]
    assert [cell.letter for cell in table["reviewkd"].cells] == ["M", "M", "P"]
    assert table["crd"].cells[1].flag == "4 of 5 seeds: 1 diverged"
    assert [column.architecture for column in main_table.columns(statistics)] == [
        "cross", "cross", "same",
    ]  # fmt: skip


# --- bytes, size, security ---


def test_same_evidence_gives_same_bytes() -> None:
    evidence = large_page.evidence(**SMALL)
    backwards = replace(evidence, records=dict(reversed(list(evidence.records.items()))))
    assert large_page.html(evidence) == large_page.html(backwards)


def test_page_of_a_large_grid_is_below_three_megabytes() -> None:
    evidence = large_page.evidence()
    figure = pictures.svg(
        pictures.accuracy(evidence.grid.title, evidence.cells, evidence.records)
    ).decode()
    command = "kdbench train --dataset '{name: cifar100, per_class: 125}' " + "--option a=1 " * 20
    text = large_page.html(
        evidence,
        plots=lambda: {f"Figure {i}": figure for i in range(12)},
        command=lambda run: command,
    )
    assert len(text.encode()) < 3_000_000
    assert len(data_of(text)["curves"]) > 900


def test_page_loads_nothing_and_runs_only_its_own_script() -> None:
    text = large_page.html(
        large_page.evidence(**SMALL), plots=lambda: {"One": "<svg width='9pt'><a id='x'/></svg>"}
    )
    code = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = {
        kind: base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        for kind, [source] in (("script", code), ("style", style))
    }
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    content = policy[1].replace("&#39;", "'")
    assert content.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest['script']}'" in content
    assert f"style-src 'sha256-{digest['style']}'" in content
    reader = Reader(text)
    assert not {"link", "iframe", "object", "embed", "base"} & set(reader.tags)
    assert not [name for name in reader.attributes if name.startswith("on") or name == "style"]
    assert not [value for value in reader.values if re.match(r"(?i)\s*(https?:|//)", value)]


HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><script>alert(1)//",
    "</title></style><b>", "{{ 7 * 7 }}{% raw %}", "<!--", "&lt;&amp;", "]]>", "'\u2028\u2029",
    "\u202eevil", "a\x00b", "$x$ | `y`", "javascript:alert(1)",
)  # fmt: skip
NAMES = st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=20)


def hostile(name: str) -> str:
    """Return a page with a name in every place that a grid, a plugin or a record can fill."""
    method = name.replace("+", " ") or "x"
    grid = make_grid(
        [("vgg13", "vgg8")], (0, 1), title=name, source=name,
        report=Report(baseline="kd", supports=name, against=name),
    )  # fmt: skip
    cells = make_cells(grid, ("kd", "odd"))
    records = {r.id: make_record(r, 70.0 + r.seed) for c in cells for r in c.runs}
    odd = cell_of(cells, "odd")
    renamed = tuple(replace(run, method=method) for run in odd.runs)
    cells[cells.index(odd)] = Cell(method, odd.teacher, odd.student, renamed)
    first = odd.runs[0].id
    records[first] = replace(records[first], status="failed", result=None, reason=name)
    last = odd.runs[1].id
    environment = {"device": name, "commit": name, "versions": {name: name}}
    records[last] = replace(records[last], environment=environment)
    statistics = aggregate(Evidence(grid, cells, records, lambda run_id: []))
    rows = statistics.frame[["method"]].rename(columns={"method": name})
    return page.render(
        replace(statistics, data=name),
        tables=[Table(name, rows, notes=(name,))],
        plots=lambda: {name: f"<svg>{name}</svg>"},
        command=lambda run: name,
    )


PLAIN = Reader(hostile("plain"))


@settings(deadline=None, max_examples=25)
@given(NAMES)
def test_external_text_is_never_markup(name: str) -> None:
    # These names are rows of every page: they would merge rows, not add markup.
    if name.replace("+", " ") in ("kd", "teacher", "student"):
        return
    text = hostile(name)
    reader = Reader(text)
    assert reader.tags == PLAIN.tags
    assert reader.attributes == PLAIN.attributes
    data = data_of(text)
    assert cell(data, name.replace("+", " "), "vgg13")["command"] == name
    if name in HOSTILE and "\x00" not in name:
        assert name in "".join(reader.texts)


def test_lone_surrogate_is_replaced() -> None:
    evidence = large_page.evidence(("kd",), (("vgg13", "vgg8"),), (0,), title="a\ud800b")
    assert "<h1>a?b</h1>" in large_page.html(evidence)


def test_hostile_names_add_no_markup() -> None:
    for name in HOSTILE:
        assert Reader(hostile(name)).tags == PLAIN.tags, name
