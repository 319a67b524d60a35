"""Expansion of grids: runs, their order, weights and ids."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_grids import PLUGIN, cell, expanded, first, small, tree

from kdbench.grid.expand import expand
from kdbench.grid.grid import GridError
from kdbench.grid.parsing import load, parse
from kdbench.grid.run import BASELINES, Run
from kdbench.grid.yaml_tree import ROOT
from kdbench.registry import lookup

few = settings(max_examples=25, deadline=None)


def weights(run: Run) -> tuple[float, float, float]:
    return run.gamma, run.alpha, run.temperature


# --- which runs -----------------------------------------------------------------------------------


def test_teachers_come_before_their_students() -> None:
    grid = small(pairs=["r8w4 -> r8w3", "r8w16 -> v5w4"], methods=["kd", "at"], seeds=[0, 1])
    expansion = expand(grid)
    rows = [(row.method, row.teacher, row.student, len(row.runs)) for row in expansion.cells]
    assert expansion.cells[4].pair == str(grid.pairs[1]) == "r8w16 -> v5w4"
    assert rows == [
        ("teacher", "r8w4", "r8w3", 1), ("student", "r8w4", "r8w3", 2),
        ("kd", "r8w4", "r8w3", 2), ("at", "r8w4", "r8w3", 2),
        ("teacher", "r8w16", "v5w4", 1), ("student", "r8w16", "v5w4", 2),
        ("kd", "r8w16", "v5w4", 2), ("at", "r8w16", "v5w4", 2),
    ]  # fmt: skip
    ids = [run.id for run in expansion.runs]
    assert len(set(ids)) == len(ids) == 14
    for run in expansion.runs:
        if run.teacher:
            assert run.teacher.run in ids[: ids.index(run.id)]


def test_student_baseline_is_shared_between_pairs() -> None:
    expansion = expanded(pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"], seeds=[0, 1])
    assert cell(expansion, "student", 0).runs == cell(expansion, "student", 1).runs
    assert len(expansion.runs) == 2 + 2 + 4


def test_teacher_that_is_also_a_student_is_trained_once() -> None:
    expansion = expanded(pairs=["r8w4 -> r8w3", "v5w4 -> r8w4"], seeds=[0, 1])
    teacher, student = cell(expansion, "teacher").runs[0], cell(expansion, "student", 1).runs[0]
    assert teacher.id == student.id
    assert (teacher.method, student.method) == ("teacher", "student")
    assert [run.method for run in expansion.runs if run.id == teacher.id] == ["teacher"]


def test_network_can_be_its_own_teacher() -> None:
    expansion = expanded(pairs=["r8w3 -> r8w3"], seeds=[0])
    assert [run.method for run in expansion.runs] == ["teacher", "kd"]


def test_method_without_teacher_is_shared_between_pairs() -> None:
    expansion = expanded(pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"], methods=["label_smoothing", "kd"])
    [a, b] = [row.runs[0] for row in expansion.cells if row.method == "label_smoothing"]
    assert a.id == b.id and a.teacher is None and weights(a)[:2] == (1.0, 0.0)
    both = first("label_smoothing+kd", methods=[{"label_smoothing+kd": {"alpha": 1}}])
    assert both.teacher is not None and both.alpha == 1.0


def test_auxiliary_is_trained_between_teacher_and_student() -> None:
    row = {"hkd": {"auxiliary": {"student": "r8w8", "method": "pkt"}}}
    expansion = expanded(methods=[row], seeds=[3], teacher={"seed": 1}, protocol="semckd")
    teacher, alone, auxiliary, run = expansion.runs
    assert (teacher.method, alone.method, auxiliary.method, run.method) == (
        "teacher", "student", "pkt", "hkd",
    )  # fmt: skip
    assert auxiliary.student == "r8w8" and auxiliary.seed == 1
    assert auxiliary.terms[0].beta == 30000
    assert auxiliary.teacher is not None and auxiliary.teacher.run == teacher.id
    assert run.teacher is not None
    assert (run.teacher.arch, run.teacher.run, run.seed) == ("r8w8", auxiliary.id, 3)
    assert [row.method for row in expansion.cells] == ["teacher", "student", "hkd"]


def test_imported_teachers_are_not_trained() -> None:
    expansion = expanded(teachers={"r8w4": "import-abc"})
    assert cell(expansion, "teacher").runs == ()
    run = cell(expansion, "kd").runs[0]
    assert run.teacher is not None and run.teacher.run == "import-abc"
    assert {run.method for run in expansion.runs} == {"student", "kd"}


def test_teachers_can_have_other_settings() -> None:
    spec = {"seed": 7, "dataset": {"name": "synthetic", "per_class": 9}, "protocol": "semckd"}
    teacher = first("teacher", teacher=spec)
    assert (teacher.seed, teacher.dataset.per_class, teacher.training.epochs) == (7, 9, 240)
    assert first("student").training.epochs == 1


def test_learning_rates_are_set_per_pair_or_student() -> None:
    pairs = [{"teacher": "r8w4", "student": "r8w3", "lr": 0.3}, "r8w3 -> v5w4"]
    expansion = expanded(pairs=pairs, protocol={"preset": "demo", "lr_of": {"v5w4": 0.2}})
    rates = {(run.student, run.method): run.training.lr for run in expansion.runs}
    assert rates["r8w3", "student"] == rates["r8w3", "kd"] == 0.3
    assert rates["r8w3", "teacher"] == 0.05
    assert rates["v5w4", "kd"] == 0.2


def test_pretraining_settings_come_from_protocol_or_method() -> None:
    protocol = {"preset": "demo", "pretrain_epochs": 5}
    assert first("ft", methods=["ft"], protocol=protocol).pretrain == (5, 0.05)
    own = {"ft": {"pretrain_epochs": 0, "pretrain_lr": 1}}
    assert first("ft", methods=[own], protocol=protocol).pretrain == (0, 1.0)
    assert first("kd").pretrain is None


def test_versions_of_built_in_methods_are_their_classes() -> None:
    assert {name: first(name, methods=[name]).terms[0].version for name in ("kd", "crd")} == {
        "kd": 1, "crd": 2,
    }  # fmt: skip


def test_only_runs_that_pretrain_have_the_phase() -> None:
    """FitNets has a phase in its two-stage form only; the other form has the same id without it."""
    assert first("fitnets", methods=["fitnets"]).pretrain is None
    two = {"fitnets": {"stages": "two"}}
    assert first("fitnets", methods=[two]).pretrain == (10, 0.05)
    assert first("fitnets+at", methods=["fitnets+at"]).pretrain is None
    both = {"fitnets+at": {"fitnets": {"stages": "two"}}}
    assert first("fitnets+at", methods=[both]).pretrain == (10, 0.05)
    with pytest.raises(
        GridError, match=r"methods\.fitnets: pretrain_epochs: FitNets has .* only w"
    ):
        expand(small(methods=[{"fitnets": {"pretrain_epochs": 3}}]))


# --- weights --------------------------------------------------------------------------------------


def test_weights_come_from_grid_then_protocol_then_method() -> None:
    def simkd(**options: Any) -> Run:
        table = options.pop("table", {})
        protocol = {"gamma": 0.7, "alpha": 0.6, "temperature": 3, "methods": {"simkd": table}}
        return first("simkd", methods=[{"simkd": options}], protocol=protocol)

    assert weights(simkd()) == (0.0, 0.0, 3.0)
    assert weights(simkd(table={"gamma": 0.2})) == (0.2, 0.0, 3.0)
    assert weights(simkd(table={"gamma": 0.2}, gamma=0.3, temperature=2)) == (0.3, 0.0, 2.0)
    assert weights(first("at", methods=["at"], protocol={"gamma": 0.7, "alpha": 0.6})) == (
        0.7, 0.6, 4.0,
    )  # fmt: skip


def test_presets_give_kd_different_weights() -> None:
    assert weights(first("kd", protocol="crd")) == (0.1, 0.9, 4.0)
    assert weights(first("kd", protocol="semckd")) == (1.0, 1.0, 4.0)
    assert weights(first("at", methods=["at"], protocol="crd")) == (1.0, 0.0, 4.0)
    both = first("kd+crd", methods=["kd+crd"], protocol="crd")
    assert weights(both) == (1.0, 1.0, 4.0)
    assert [(term.method, term.beta) for term in both.terms] == [("crd", 0.8), ("kd", 0.0)]


def test_betas_and_hyper_parameters_of_combinations() -> None:
    row = {"semckd+at": {"semckd": {"beta": 20, "factor": 2}, "at": {"beta": 5}, "alpha": 0.5}}
    run = first("semckd+at", methods=[row], protocol="semckd")
    assert [(term.method, term.beta) for term in run.terms] == [("at", 5.0), ("semckd", 20.0)]
    assert run.terms[1].hyper["factor"] == 2 and run.alpha == 0.5
    mixed = {"preset": "semckd", "methods": {"at+semckd": {"at": {"p": 4}, "gamma": 0.5}}}
    run = first("semckd+at", methods=["semckd+at"], protocol=mixed)
    assert (run.terms[0].beta, run.terms[0].hyper["p"], run.gamma) == (1000.0, 4, 0.5)
    assert run.terms[1].beta == 400.0


def test_methods_with_different_weights_need_an_explicit_weight() -> None:
    grid = small(methods=["simkd+kd", "dkd+simkd"], protocol="crd")
    with pytest.raises(GridError) as error:
        expand(grid)
    assert len(error.value.lines) == 2
    assert error.value.lines[0] == (
        "grid.yaml: methods.simkd+kd: gamma: the methods differ (simkd 0, kd 0.1); "
        "set gamma for this row"
    )
    explicit = {"simkd+kd": {"gamma": 0, "alpha": 1}}
    assert weights(first("simkd+kd", methods=[explicit], protocol="crd"))[:2] == (0.0, 1.0)


def test_temperature_of_method_is_that_of_objective() -> None:
    for row, protocol in (({"kd": {"temperature": 2}}, {}), ("kd", {"temperature": 2})):
        run = first("kd", methods=[row], protocol={"preset": "demo", **protocol})
        assert run.temperature == 2.0 and run.terms[0].hyper["temperature"] == 2.0
    both = {"kd+at": {"kd": {"temperature": 2}}}
    run = first("kd+at", methods=[both])
    assert run.temperature == 2.0 and run.terms[1].hyper["temperature"] == 2.0


# --- sweeps ---------------------------------------------------------------------------------------


def test_sweep_creates_a_labelled_row_per_combination() -> None:
    expansion = expanded(
        methods=["kd", "semckd", "semckd+at"],
        sweep={"semckd.beta": [1, 2.5], "semckd.factor": [2, 4], "at+semckd.at.beta": [3]},
        seeds=[0, 1],
    )
    assert [row.method for row in expansion.cells[2:]] == [
        "kd", "semckd(beta=1, factor=2)", "semckd(beta=1, factor=4)",
        "semckd(beta=2.5, factor=2)", "semckd(beta=2.5, factor=4)", "semckd+at(at.beta=3)",
    ]  # fmt: skip
    run = cell(expansion, "semckd(beta=2.5, factor=2)").runs[1]
    assert (run.terms[0].beta, run.terms[0].hyper["factor"], run.seed) == (2.5, 2, 1)
    assert cell(expansion, "semckd+at(at.beta=3)").runs[0].terms[0].beta == 3.0


def test_swept_row_and_label_must_differ() -> None:
    grid = small(methods=["kd", {"at": {"label": "kd(alpha=1)"}}], sweep={"kd.alpha": [1, 2]})
    with pytest.raises(GridError) as error:
        expand(grid)
    assert error.value.lines == ("grid.yaml: methods: 2 rows have the label kd(alpha=1)",)


def test_sweeps_of_weights_and_of_labelled_rows() -> None:
    rows = [{"at": {"label": "four", "p": 4}}, {"at": {"label": "two"}}]
    expansion = expanded(methods=rows, sweep={"four.alpha": [0, 1]})
    assert [row.method for row in expansion.cells[2:]] == ["four(alpha=0)", "four(alpha=1)", "two"]
    assert [row.runs[0].alpha for row in expansion.cells[2:]] == [0.0, 1.0, 1.0]


# --- ids ------------------------------------------------------------------------------------------


def test_plugin_content_and_not_its_folder_determines_the_id(tmp_path: Path) -> None:
    ids = []
    for folder, text in (("a", PLUGIN), ("b", PLUGIN), ("c", PLUGIN + "\n# changed\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
        grid = parse(tree(methods=["./mine.py"]), source="g", folders=[tmp_path / folder])
        [*_, last] = expand(grid).cells
        assert last.method == last.runs[0].method == "mine"
        assert last.runs[0].terms[0].method == "mine"
        assert last.runs[0].terms[0].where == str(tmp_path / folder / "mine.py")
        ids.append(last.runs[0].id)
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("name", ["kd", "dkd", "ttm"])
def test_hyper_parameters_added_later_change_no_id_at_their_defaults(name: str) -> None:
    later = lookup.describe(name).added_later
    assert later == ("entropy_weighting", "entropy_tau")

    def run(**options: Any) -> Run:
        return first(name, methods=[{name: options}])

    plain = run()
    assert not set(later) & set(plain.terms[0].hyper)
    assert run(entropy_weighting=False, entropy_tau=4).id == plain.id
    weighted = run(entropy_weighting=True)
    assert weighted.terms[0].hyper == plain.terms[0].hyper | {"entropy_weighting": True}
    others = {run(entropy_weighting=True, entropy_tau=x).id for x in (2, 4, 8)}
    assert weighted.id in others and plain.id not in others and len(others) == 3
    assert Run.from_json(weighted.to_json()) == weighted


def test_id_of_kd_is_that_of_earlier_versions() -> None:
    """The value was computed before kd had entropy weighting."""
    assert first("kd").id == "bbadfcc89066f359"


@few
@given(st.permutations(["kd", "at", "semckd+at"]), st.permutations([0, 1, 2]), st.randoms())
def test_order_changes_no_id(methods: list[str], seeds: list[int], random: Any) -> None:
    shuffled = list(tree(methods=methods, seeds=seeds, protocol="semckd").items())
    random.shuffle(shuffled)
    mixed = expand(parse(dict(shuffled), source="g"))
    plain = expanded(methods=["kd", "at", "at+semckd"], seeds=[0, 1, 2], protocol="semckd")
    assert {run.id for run in mixed.runs} == {run.id for run in plain.runs}


@few
@given(
    beta=st.integers(0, 1000),
    epochs=st.integers(1, 300),
    lr=st.sampled_from([1, 2]),
    limit=st.none() | st.integers(0, 9),
)
def test_equal_integers_and_floats_give_the_same_id(
    beta: int, epochs: int, lr: int, limit: int | None
) -> None:
    def run(kind: Any) -> Run:
        return first(
            "fitnets+confidence_penalty",
            methods=[
                {
                    "fitnets+confidence_penalty": {
                        "fitnets": {"beta": kind(beta), "hint_layer": kind(1)},
                        "confidence_penalty": {"threshold": None if limit is None else kind(limit)},
                        "alpha": kind(1),
                    }
                }
            ],
            protocol={"preset": "demo", "epochs": kind(epochs), "lr": kind(lr)},
        )

    assert run(int).id == run(float).id


def test_labels_titles_and_the_executor_change_no_id() -> None:
    plain = {run.id for run in expanded().runs}
    other = expanded(
        name="b", title="B", methods=[{"kd": {"label": "Hinton"}}], executor={"workers": 3},
        report={"baseline": "student"}, protocol={"preset": "demo", "epochs": 1, "name": "p"},
    )  # fmt: skip
    assert {run.id for run in other.runs} == plain
    written = [{"kd": {"temperature": 4, "beta": 0, "gamma": 1.0, "alpha": 1}}]
    assert {run.id for run in expanded(methods=written).runs} == plain
    assert first("kd", seeds=[1]).id not in plain


@pytest.mark.parametrize(
    "row",
    [
        {"kd": {"alpha": 0.5}}, {"kd": {"gamma": 0.5}}, {"kd": {"temperature": 2}},
        {"kd": {"beta": 1}}, "at",
    ],
)  # fmt: skip
def test_weights_and_methods_change_the_id(row: Any) -> None:
    plain, other = expanded(), expanded(methods=[row])
    assert plain.cells[2].runs[0].id != other.cells[2].runs[0].id
    assert plain.cells[1].runs[0].id == other.cells[1].runs[0].id


def test_large_grid_expands_completely() -> None:
    expansion = expanded(seeds=list(range(2000)), methods=["kd", "at", "sp", "vid"])
    assert len({run.id for run in expansion.runs}) == len(expansion.runs) == 1 + 5 * 2000


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem
)
def test_included_experiments_expand(path: Path) -> None:
    grid = load(path)
    expansion = expand(grid)
    rows = 2 + len({row.method for row in expansion.cells} - set(BASELINES))
    assert len(expansion.cells) == len(grid.pairs) * rows
    assert len({run.id for run in expansion.runs}) == len(expansion.runs)


def test_few_shot_and_label_noise_grids_share_a_teacher() -> None:
    """Only the students have fewer images or wrong labels, so all these grids share a teacher."""
    folder = ROOT / "experiments"
    teachers, students = set(), set()
    for name in ("few_shot_25", "few_shot_50", "few_shot_75", "label_noise_10", "label_noise_30",
                 "label_noise_50"):  # fmt: skip
        expansion = expand(load(folder / f"{name}.yaml"))
        teachers |= {run.id for run in cell(expansion, "teacher").runs}
        (data,) = {run.dataset for run in expansion.runs if run.method != "teacher"}
        students.add(data.title)
    assert len(teachers) == 1
    assert students == {
        "cifar100, 125 per class", "cifar100, 250 per class", "cifar100, 375 per class",
        "cifar100, 10% label noise", "cifar100, 30% label noise", "cifar100, 50% label noise",
    }  # fmt: skip
    by_class = load(folder / "label_noise_30.yaml", ("dataset.noise_by=class",))
    assert by_class.dataset.title == "cifar100, 30% label noise by class"
    assert teachers == {
        run.id for run in cell(expand(load(folder / "table1.yaml")), "teacher", 6).runs
    }


def test_too_many_runs_are_refused_before_they_are_expanded() -> None:
    values = list(range(1, 101))
    sweep = {"kd.alpha": values, "kd.temperature": values, "kd.gamma": values}
    with pytest.raises(
        GridError, match=r"1,000,001 runs \(1 pair, 1,000,001 rows, 1 seed\); at most"
    ):
        expanded(sweep=sweep)
