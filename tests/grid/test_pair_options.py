"""Options of a method's row on single pairs."""

from typing import Any

import pytest
from small_grids import PLUGIN, cell, expanded, small

from kdbench.errors import UserError
from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.runs.archive import _grid
from kdbench.runs.evidence import Evidence


def pair(**options: Any) -> dict[str, Any]:
    return {"teacher": "r8w4", "student": "v5w4", "options": options}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dkd", {"rest": 2, "beta": 0.5, "temperature": 2}),
        ("ft", {"pretrain_epochs": 3, "pretrain_lr": 0.01, "k": 0.25}),
        ("semckd+at", {"alpha": 0, "at": {"beta": 7, "p": 4}}),
        ("hkd", {"auxiliary": {"student": "r8w8", "method": "kd"}}),
        ("tfkd", {"form": "self"}),
    ],
)
def test_runs_equal_those_of_a_row_with_the_same_options(
    method: str, options: dict[str, Any]
) -> None:
    """Only on their pair: the row is one row of the table."""
    pairs = ["r8w4 -> r8w3", pair(**{method: options})]
    expansion = expanded(pairs=pairs, methods=[method, "kd"], seeds=[0, 1])
    direct = expanded(pairs=["r8w4 -> v5w4"], methods=[{method: options}, "kd"], seeds=[0, 1])
    plain = expanded(pairs=["r8w4 -> r8w3"], methods=[method, "kd"], seeds=[0, 1])
    assert cell(expansion, method, 1).runs == cell(direct, method).runs
    assert cell(expansion, method, 0).runs == cell(plain, method).runs
    assert cell(expansion, "kd", 1).runs == cell(direct, "kd").runs
    assert cell(expansion, method, 1).runs[0].id != cell(expansion, method, 0).runs[0].id
    assert [row.method for row in expansion.cells].count(method) == 2


def test_options_of_the_row_hold_unless_the_pair_replaces_them() -> None:
    row = {"dkd": {"rest": 6, "beta": 3}}
    run = cell(expanded(pairs=[pair(dkd={"rest": 2})], methods=[row]), "dkd").runs[0]
    assert (run.terms[0].hyper["rest"], run.terms[0].beta) == (2.0, 3.0)


def test_label_names_one_row_and_a_method_all_its_rows() -> None:
    rows: list[Any] = [{"dkd": {"label": "a"}}, {"dkd": {"label": "b", "rest": 6}}]
    one = expanded(pairs=[pair(a={"rest": 2})], methods=rows)
    both = expanded(pairs=[pair(dkd={"rest": 2}, b={"rest": 3})], methods=rows)

    def rest(expansion: Any, label: str) -> float:
        return float(cell(expansion, label).runs[0].terms[0].hyper["rest"])

    assert (rest(one, "a"), rest(one, "b")) == (2, 6)
    assert (rest(both, "a"), rest(both, "b")) == (2, 3)
    first = expanded(pairs=[pair(dkd={"rest": 2})], methods=["dkd", rows[1]])
    assert (rest(first, "dkd"), rest(first, "b")) == (2, 6)


def test_other_options_can_be_swept() -> None:
    grid = small(pairs=[pair(dkd={"rest": 2})], methods=["dkd"], sweep={"dkd.beta": [1, 2]})
    runs = [row.runs[0] for row in expand(grid).cells if row.method.startswith("dkd")]
    assert [(run.terms[0].beta, run.terms[0].hyper["rest"]) for run in runs] == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"pairs": [pair(dkx={"rest": 2})]},
         "pairs.0.options.dkx: unknown; accepted: a, dkd, kd, semckd+at (did you mean dkd?)"),
        ({"pairs": ["r8w4 -> r8w3", pair(dkd={"rust": 2})]},
         "pairs.1.options.dkd: rust: unknown; DKD takes target, rest, tau, warmup, "),
        ({"pairs": [pair(dkd={"rest": "x"})]},
         "pairs.0.options.dkd: rest: expected float like 8.0, not 'x'"),
        ({"pairs": [pair(dkd={"label": "b"})]},
         "pairs.0.options.dkd.label: a row has one label on all pairs"),
        ({"pairs": [pair(a={"beta": -1})]}, "pairs.0.options.a: beta: expected 0 or more, not -1"),
        ({"pairs": [pair(kd={"pretrain_lr": 1})]},
         "pairs.0.options.kd: pretrain_lr: KD has no pretraining phase"),
        ({"pairs": [pair(**{"semckd+at": {"at": {"q": 1}}})]},
         "pairs.0.options.semckd+at: at.q: unknown; AT takes p; "),
        ({"pairs": [pair(dkd=3)]}, "pairs.0.options.dkd: expected a mapping"),
        ({"pairs": [pair() | {"options": [1]}]}, "pairs.0.options: expected a mapping"),
        ({"pairs": [pair(a={"rest": 2})], "sweep": {"a.rest": [1]}},
         "pairs.0.options.a: rest: also swept, by sweep.a.rest"),
        ({"pairs": [pair(), pair(dkd={"rest": 2})]}, "pairs.1: r8w4 -> v5w4 is given twice"),
    ],
)  # fmt: skip
def test_mistakes_are_reported_in_one_line(changes: dict[str, Any], line: str) -> None:
    rows = ["dkd", {"dkd": {"label": "a"}}, "kd", "semckd+at"]
    with pytest.raises(UserError) as error:
        small(methods=rows, **changes)
    assert [text for text in str(error.value).splitlines() if text.startswith(f"grid.yaml: {line}")]


def test_phase_that_a_row_lacks_on_a_pair_is_refused() -> None:
    grid = small(pairs=[pair(fitnets={"pretrain_epochs": 2})], methods=["fitnets"])
    with pytest.raises(
        UserError, match=r"pairs\.0\.options\.fitnets: pretrain_epochs: FitNets has"
    ):
        expand(grid)


def test_null_and_empty_options_change_nothing() -> None:
    plain = expanded(pairs=["r8w4 -> v5w4"], methods=["dkd"])
    assert expanded(pairs=[pair(dkd=None)], methods=["dkd"]) == plain
    assert expanded(pairs=[pair(dkd={})], methods=["dkd"]) == plain
    assert expanded(pairs=[pair()], methods=["dkd"]) == plain


def test_plugin_is_named_without_its_folder_and_none_is_archived(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "grid.yaml").write_text(
        "name: small\ndataset: synthetic\nprotocol: demo\nseeds: [0]\n"
        "methods: [mine.py, kd+mine.py]\n"
        "pairs: [{teacher: r8w4, student: v5w4, options: {mine.py: {width: 3}, "
        "kd+mine.py: {mine.py: {width: 4}}}}]\n"
    )
    grid = load(tmp_path / "grid.yaml")
    expansion = expand(grid)
    assert cell(expansion, "mine").runs[0].terms[0].hyper["width"] == 3
    assert cell(expansion, "kd+mine").runs[0].terms[1].hyper["width"] == 4
    archived = _grid(Evidence(grid, expansion.cells, {}, lambda _: []))
    assert archived["grid"]["pairs"][0]["options"] == {
        "mine": {"width": 3}, "kd+mine": {"mine": {"width": 4}},
    }  # fmt: skip
    assert str(tmp_path) not in str(archived["grid"]["pairs"])


def test_pairs_without_options_are_archived_as_before() -> None:
    grid = small()
    archived = _grid(Evidence(grid, expand(grid).cells, {}, lambda _: []))
    assert archived["grid"]["pairs"] == [{"teacher": "r8w4", "student": "r8w3"}]


def test_options_in_words() -> None:
    grid = small(pairs=[pair(**{"semckd+at": {"at": {"p": 4}}, "dkd": {"rest": 2, "beta": 3}})],
                 methods=["semckd+at", "dkd"])  # fmt: skip
    assert grid.pairs[0].options_text == "semckd+at: at (p 4); dkd: rest 2, beta 3"
    assert small().pairs[0].options_text == ""
