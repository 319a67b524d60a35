"""Reading of grid files into trees: YAML, ``extends`` and ``--set``."""

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import answer
from small_grids import tree

from kdbench.errors import short_text
from kdbench.grid.expand import expand
from kdbench.grid.grid import GridError
from kdbench.grid.parsing import load
from kdbench.grid.yaml_tree import (
    ROOT,
    merged,
    option_tree,
    parse_yaml,
    preset,
    presets,
    read,
    set_value,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("5.0e-4", 0.0005), ("-1.5E+2", -150.0), (".5", 0.5), ("1.", 1.0),
        ("3", 3), ("-3", -3), ("1e", "1e"), ("e3", "e3"), ("2020-01-01", "2020-01-01"),
        ("true", True), ("~", None), ("[1, 2e1]", [1, 20.0]), ("{a: 1}", {"a": 1}),
        ("1.2.3", "1.2.3"), (".inf", float("inf")), ("vgg8", "vgg8"),
    ],
)  # fmt: skip
def test_scalars_are_read_as_expected(text: str, value: Any) -> None:
    parsed = parse_yaml(text, "x")
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: [1, 2\nb: 3\n", "g.yaml:2:2"),
        ("a: 1\nb: {c: 1, c: 2}\n", "g.yaml:2:11: not YAML: c is given twice"),
        ("a: &x {k: 1}\nb: {<<: *x, k: 2}\na: 3\n", "g.yaml:3:1: not YAML: a is given twice"),
        ("a: !!python/object:os.system x\n", "g.yaml:1:4: the tag !!python/object:os.system is"),
        ("a: \tb\n\tc: 1", "g.yaml:2:1"),
    ],
)
def test_mistakes_have_a_line_and_a_column(text: str, where: str) -> None:
    with pytest.raises(GridError) as error:
        parse_yaml(text, "g.yaml", file=True)
    assert str(error.value).startswith(where) and len(error.value.lines) == 1


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, ": larger than any grid: the values have more than 1,000,000 characters"),
        ("a: &a {b: *a}", "g.yaml:1:11: the value of &a contains itself"),
        ("a: &a [*a]", "g.yaml:1:8: the value of &a contains itself"),
        ("a: *b", "g.yaml:1:4: not YAML: no anchor &b before its alias"),
        ("a: " + "[" * 500, "g.yaml:1:33: more than 30 levels of lists and mappings"),
        ("a: " + "[" * 100_000, "not YAML: exceeded maximum nesting depth"),
        ("a: " + "9" * 5000, "g.yaml:1:4: a number of 5,000 digits; at most 300 are accepted"),
        ("a: !!int 99x", "g.yaml:1:4: 99x: not of the kind that its tag !!int says"),
        ("a: 0x_", "g.yaml:1:4: 0x_: not a number"),
        ("seeds: [010]", "g.yaml:1:9: 010: octal for some programs and decimal for others; write"),
        ("3: x", "g.yaml:1:1: 3: a key must be text; quote it"),
        ("[a]: x", "g.yaml:1:1: ['a']: a key must be text; quote it"),
        ("null: x", "g.yaml:1:1: None: a key must be text; quote it"),
        ('a: "b\\0c"', "g.yaml:1:4: the control character \\x00 in b\\x00c"),
        ('"\\e[31m": 1', "g.yaml:1:1: the control character \\x1b in \\x1b[31m"),
        ("a: b\u202ec", "g.yaml:1:4: the control character \\u202e in b\\u202ec"),
        ("a: !!set {b}", "g.yaml:1:4: the tag !!set is not accepted: write the value alone"),
        ("a: !!binary aGk=", "g.yaml:1:4: the tag !!binary is not accepted: write the value alone"),
        ("a: !x b", "g.yaml:1:4: the tag !x is not accepted: write the value alone"),
        ("a: {<<: 3}", "g.yaml:1:5: not YAML: << expected a mapping or a list of mappings"),
        ("a: 1\n---\nb: 2", "g.yaml:2:1: not YAML: expected a single document"),
    ],
)
def test_values_that_no_grid_has_are_refused(text: str, problem: str) -> None:
    message = answer(lambda: parse_yaml(text, "g.yaml", file=True))
    assert message.startswith("g.yaml:") and problem in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        ("a: {<<: [{b: 1}, {b: 2, c: 3}]}", {"a": {"b": 1, "c": 3}}),
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
        ("a: 'no'\nb: no\nc: 1:30\nd: 12:30:45\ne: -.INF\nf: 0x1F\ng: 1_000\nh: -0b11",
         {"a": "no", "b": False, "c": "1:30", "d": "12:30:45", "e": -math.inf, "f": 31, "g": 1000,
          "h": -3}),
        ("a: !!str 3\nb: !!int 3\nc: ! 3\nd: '<<'\ne: =", {"a": "3", "b": 3, "c": "3", "d": "<<",
                                                       "e": "="}),
    ],
)  # fmt: skip
def test_other_forms_of_yaml_are_read(text: str, value: Any) -> None:
    assert parse_yaml(text, "x") == value


def test_the_same_yaml_gives_the_same_values_as_pyyaml() -> None:
    for path in (ROOT / "experiments").glob("*.yaml"):
        assert parse_yaml(path.read_text(), "x") == yaml.safe_load(path.read_text()), path


def test_large_and_odd_files_are_refused_or_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("# " + "x" * 1_000_000)
    assert (
        answer(lambda: read(large))
        == f"{large}: larger than any grid file: more than 1,000,000 bytes"
    )
    marked = tmp_path / "marked.yaml"
    marked.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read(marked)[0] == {"name": "x"}
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path in (Path("a\0b"), tmp_path / ("x" * 300), loop, Path("/dev/zero")):
        assert "\n" not in answer(partial(read, path))
    files(tmp_path, **{f"e{i}": f"extends: e{i + 1}.yaml" for i in range(30)})
    assert "more than 20 files" in answer(lambda: read(tmp_path / "e0.yaml"))
    files(tmp_path, far=f"extends: {'x' * 300}")
    assert "no such file" in answer(lambda: read(tmp_path / "far.yaml"))


def files(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    files(
        tmp_path,
        a="x: {p: 1, q: {r: 2}}\nl: [1, 2]\nprotocol: semckd\n"
        "dataset: {name: digits, per_class: 3}",
        b="extends: a.yaml\nx: {q: {s: 3}}\nl: [3]\nprotocol: {epochs: 2}\ndataset: cifar10",
        c="extends: b.yaml\nprotocol: {lr: 1}\nl:\n",
    )
    tree, folders = read(tmp_path / "c.yaml")
    assert tree == {
        "x": {"p": 1, "q": {"r": 2, "s": 3}},
        "l": None,
        "protocol": {"preset": "semckd", "epochs": 2, "lr": 1},
        "dataset": "cifar10",
    }
    assert folders == [tmp_path] * 3


@pytest.mark.parametrize("none", ["{}", "null", ""])
def test_inherited_values_can_be_removed(tmp_path: Path, none: str) -> None:
    (tmp_path / "a.yaml").write_text(
        yaml.safe_dump(tree(methods=["kd", "at"], sweep={"at.beta": [1, 2], "kd.alpha": [1, 3]}))
    )
    files(
        tmp_path,
        b=f"extends: a.yaml\nsweep: {none}",
        c="extends: b.yaml\nsweep: {at.beta: [7]}",
        d="extends: a.yaml\nsweep: {at.beta: [7]}",
    )
    assert len(load(tmp_path / "a.yaml").sweep) == 2
    assert load(tmp_path / "b.yaml").sweep == {}
    assert load(tmp_path / "c.yaml").sweep == {"at.beta": (7,)}
    assert load(tmp_path / "d.yaml").sweep == {"at.beta": (7,), "kd.alpha": (1, 3)}
    labels = {cell.method for cell in expand(load(tmp_path / "b.yaml")).cells}
    assert labels == {"teacher", "student", "kd", "at"}


def test_empty_mapping_replaces_at_any_depth(tmp_path: Path) -> None:
    files(tmp_path, a="x: {p: {r: 1}, q: 2}", b="extends: a.yaml\nx: {p: {}}", c="extends: b.yaml")
    assert read(tmp_path / "c.yaml")[0] == {"x": {"p": {}, "q": 2}}


def test_extends_finds_files_of_the_repository(tmp_path: Path) -> None:
    files(tmp_path, a="extends: experiments/demo.yaml\nname: mine")
    tree, folders = read(tmp_path / "a.yaml")
    assert tree["name"] == "mine" and tree["pairs"]
    assert folders == [tmp_path, ROOT / "experiments"]


@pytest.mark.parametrize(
    ("a", "problem"),
    [
        ("extends: none.yaml", "a.yaml: extends: none.yaml: no such file"),
        ("extends: a.yaml", "a.yaml: extends: files extend each other in a circle: "),
        ("extends: b.yaml", "a.yaml: extends: files extend each other in a circle: "),
        ("extends: [b.yaml]", "a.yaml: extends: expected the name of one file"),
        ("- 1", "a.yaml: expected a mapping of keys to values"),
        ("", "a.yaml: expected a mapping of keys to values"),
    ],
)
def test_mistakes_in_extends_are_reported(tmp_path: Path, a: str, problem: str) -> None:
    files(tmp_path, a=a, b="extends: a.yaml")
    with pytest.raises(GridError) as error:
        read(tmp_path / "a.yaml")
    assert problem in str(error.value) and len(error.value.lines) == 1


def test_unreadable_paths_are_reported(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, problem in (
        ("none.yaml", "none.yaml: no such file"),
        ("binary.yaml", "not UTF-8 text"),
        (".", "cannot be read: Is a directory"),
    ):
        with pytest.raises(GridError, match=problem):
            read(tmp_path / name)


def test_merged_does_not_change_its_arguments() -> None:
    below: dict[str, Any] = {"a": {"b": 1}, "c": [1]}
    above: dict[str, Any] = {"a": {"d": 2}, "c": [2]}
    assert merged(below, above) == {"a": {"b": 1, "d": 2}, "c": [2]}
    assert merged(below, {"a": {}}) == below  # methods without options of their own
    assert merged(below, {"a": {}}, empties=True) == {"a": {}, "c": [1]}
    assert below == {"a": {"b": 1}, "c": [1]} and above == {"a": {"d": 2}, "c": [2]}


def test_option_merges_into_the_options_of_its_part() -> None:
    options = {"at": {"p": 4}, "alpha": 1}
    assert merged(options, option_tree("alpha", 2)) == {"at": {"p": 4}, "alpha": 2}
    assert merged(options, option_tree("at.beta", 5)) == {"at": {"p": 4, "beta": 5}, "alpha": 1}


def test_set_extends_short_forms_and_adds_keys() -> None:
    tree: dict[str, Any] = {"dataset": "digits", "protocol": "demo", "x": {"y": 1}}
    for assignment in (
        "dataset.per_class=10", "protocol.schedule.kind=cosine", "protocol.lr=1e-2", "x.z=[1, 2]",
        "new.deep.key=text", "sweep.semckd+at.semckd.beta=[1, 2]", "empty=",
    ):  # fmt: skip
        set_value(tree, assignment)
    assert tree == {
        "dataset": {"name": "digits", "per_class": 10},
        "protocol": {"preset": "demo", "schedule": {"kind": "cosine"}, "lr": 0.01},
        "x": {"y": 1, "z": [1, 2]},
        "new": {"deep": {"key": "text"}},
        "sweep": {"semckd+at.semckd.beta": [1, 2]},
        "empty": None,
    }


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("epochs", "expected KEY=VALUE"), ("=3", "expected KEY=VALUE"), ("a..b=3", "expected KEY"),
        ("a" + ".a" * 60_000 + "=3", "more than 20 keys with dots between them"),
        ("a.=3", "expected KEY=VALUE"), ("a=[1", "not YAML"), ("a=\udcff", "not UTF-8 text"),
        ("methods.kd.beta=3", "methods is ['kd'], which has no keys; set methods=..."),
        ("name.x=3", "name is 'x', which has no keys; set name=..."),
    ],
)  # fmt: skip
def test_mistakes_in_set_are_reported(assignment: str, problem: str) -> None:
    with pytest.raises(GridError) as error:
        set_value({"methods": ["kd"], "name": "x"}, assignment)
    assert str(error.value).startswith(f"--set {short_text(assignment, 100)}: ") and problem in str(
        error.value
    )


def test_presets_are_read_as_trees() -> None:
    assert preset("semckd")["methods"]["at"] == {"beta": 1000}
    assert all(isinstance(preset(name), dict) for name in presets())
