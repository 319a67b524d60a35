"""Facts about the methods of a row: papers, links, BibTeX, and where their code is."""

from collections.abc import Mapping
from dataclasses import replace

from fake_grids import make_cells, make_grid

from kdbench.grid.run import Term
from kdbench.registry import references
from kdbench.report.page import method_facts
from kdbench.report.page.method_facts import MethodFacts
from kdbench.runs.evidence import Evidence, PluginFacts

SOURCE = "0123456789abcdef" * 4


def evidence(*methods: str, plugins: Mapping[str, PluginFacts] | None = None) -> Evidence:
    """Return evidence whose methods outside kdbench are those with a name like ``mine.py``."""
    grid = make_grid()
    cells = []
    for cell in make_cells(grid, methods):
        runs = []
        for run in cell.runs:
            terms = [
                replace(term, method=term.method[:-3], path=f"/PATH/{term.method}", source=SOURCE)
                if term.method.endswith(".py")
                else term
                for term in run.terms
            ]
            runs.append(replace(run, terms=tuple(terms)))
        cells.append(replace(cell, runs=tuple(runs)))
    return Evidence(grid, cells, {}, lambda run_id: [], plugins or {})


def test_facts_of_a_built_in_method() -> None:
    row = method_facts.facts("at", evidence("at"))
    entry = references.of_built_in("at")
    assert entry is not None and row == MethodFacts(
        family="feature map",
        year="2017",
        paper="Attention transfer (Zagoruyko & Komodakis, ICLR 2017, arXiv:1612.03928), Eq. 2.",
        links=(
            ("paper", "https://arxiv.org/abs/1612.03928"),
            ("code", "https://github.com/szagoruyko/attention-transfer"),
        ),
        bibtex=entry.bibtex,
        source="included in kdbench",
    )
    for baseline in ("teacher", "student"):
        assert method_facts.facts(baseline, evidence("at")) == MethodFacts("baseline")


def test_facts_of_a_combination_name_the_method_of_each_link() -> None:
    row = method_facts.facts("semckd+at", evidence("semckd+at"))
    assert (row.family, row.year) == ("feature map", "2021 + 2017")
    assert [text for text, _ in row.links] == [
        "semckd: paper", "semckd: code", "at: paper", "at: code",
    ]  # fmt: skip
    assert [line for line in row.bibtex.split("\n") if line.startswith("@")] == [
        "@inproceedings{chen2021semckd,", "@inproceedings{zagoruyko2017at,",
    ]  # fmt: skip
    assert "}\n\n@" in row.bibtex
    assert row.source == "included in kdbench"


def test_facts_of_a_plugin_come_from_the_records() -> None:
    doc = "Mine (Doe, CVPR 2024, arXiv:2401.00001)."
    plugins = {SOURCE: PluginFacts("relation", doc)}
    row = method_facts.facts("mine.py+kd", evidence("mine.py+kd", plugins=plugins))
    assert (row.family, row.year) == ("relation + logit", "2024 + 2014")
    assert row.links[0] == ("mine: paper", "https://arxiv.org/abs/2401.00001")
    assert row.bibtex.startswith("@misc{mine2024,")
    assert row.source == "mine.py (sha256 0123456789abcdef); included in kdbench"
    digests = {"mine.py": "a" * 64, "parts/layers.py": "b" * 64}
    several = {SOURCE: PluginFacts("relation", doc, digests)}
    row = method_facts.facts("mine.py", evidence("mine.py", plugins=several))
    assert row.source == f"mine.py (sha256 {'a' * 16}), parts/layers.py (sha256 {'b' * 16})"


def test_facts_of_a_row_whose_file_is_another_on_another_pair() -> None:
    """Two grids with a row of one label may be reported together."""
    grid = make_grid(pairs=(("big", "small"), ("big", "tiny")))
    cells = [
        replace(cell, runs=tuple(replace(run, terms=(term,)) for run in cell.runs))
        for cell, source in zip(
            [cell for cell in make_cells(grid, ["mine"]) if cell.method == "mine"],
            "ab",
            strict=True,
        )
        for term in [Term("mine", 1.0, path="/PATH/mine.py", source=source * 64)]
    ]
    plugins = {source * 64: PluginFacts("logit", f"Idea {source}.") for source in "ab"}
    row = method_facts.facts("mine", Evidence(grid, cells, {}, lambda run_id: [], plugins))
    assert (row.family, row.paper) == ("logit", "Idea a.; Idea b.")
    assert row.source == f"mine.py (sha256 {'a' * 16}); mine.py (sha256 {'b' * 16})"


def test_source_of_a_method_from_a_package() -> None:
    """Its folder is not known, so the package's files are named by themselves."""
    before = evidence("mine.py")
    cells = [
        replace(
            cell,
            runs=tuple(
                replace(run, terms=tuple(replace(term, path=None) for term in run.terms))
                for run in cell.runs
            ),
        )
        for cell in before.cells
    ]
    digests = {"mine_method.py": "a" * 64, "parts.py": "b" * 64}
    for plugins, files in (
        ({}, "mine (sha256 0123456789abcdef)"),
        (
            {SOURCE: PluginFacts("logit", "", digests)},
            f"mine_method.py (sha256 {'a' * 16}), parts.py (sha256 {'b' * 16})",
        ),
    ):
        row = method_facts.facts("mine.py", replace(before, cells=cells, plugins=plugins))
        assert row.source == f"mine from a package: {files}"


def test_method_of_another_kdbench() -> None:
    row = method_facts.facts("from_the_future", evidence("from_the_future"))
    assert row == MethodFacts("unknown", source="not part of this kdbench")


def test_plugin_that_the_records_do_not_describe() -> None:
    row = method_facts.facts("mine.py", evidence("mine.py"))
    assert row == MethodFacts("unknown", source="mine.py (sha256 0123456789abcdef)")
    assert method_facts.facts("nobody", evidence("at")) == MethodFacts("unknown")
