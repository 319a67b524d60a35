"""Rows, pairs and errors of a grid."""

from small_grids import small

from kdbench.grid.grid import GridError, Pair, Row, short, sorted_name
from kdbench.grid.yaml_tree import presets


def test_rows_have_short_names_and_labels() -> None:
    row = Row(name="semckd+/a/b/mine.py")
    assert (row.parts, row.short, row.label) == (
        ("semckd", "/a/b/mine.py"), "semckd+mine", "semckd+mine",
    )  # fmt: skip
    assert Row(name="at", options={"label": "AT, p=4"}).label == "AT, p=4"
    assert short(r"C:\x\mine.py") == "mine"


def test_combination_has_the_same_name_in_any_order() -> None:
    assert sorted_name("semckd+./a/mine.py+at") == "at+mine+semckd"
    assert Row(name="semckd+/b/mine.py").sorted_name == Row(name="mine.py+semckd").sorted_name


def test_sweep_finds_a_row_by_label_or_by_name_in_any_order() -> None:
    row = Row(name="semckd+/a/mine.py", options={"label": "both"})
    for name in ("both", "semckd+mine", "mine+semckd", "semckd+/a/mine.py"):
        assert row.option(f"{name}.mine.beta") == "mine.beta"
    assert row.option("semckd.beta") is None
    assert Row(name="at").option("at.p") == "p"


def test_error_has_a_line_per_mistake() -> None:
    assert str(GridError(["one", "two"])) == "one\ntwo"


def test_small_grid_has_expected_values() -> None:
    grid = small(pairs=["r8w4 -> r8w3", {"teacher": "r8w4", "student": "v5w4", "lr": 1}])
    assert grid.pairs == (
        Pair(teacher="r8w4", student="r8w3"), Pair(teacher="r8w4", student="v5w4", lr=1.0),
    )  # fmt: skip
    assert str(grid.pairs[1]) == "r8w4 -> v5w4"
    assert grid.title == grid.name == "small"
    assert grid.protocol.epochs == 1
    assert grid.protocol.name == "demo with other epochs"
    assert set(presets()) >= {"semckd", "crd", "demo"}
