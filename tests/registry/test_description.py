import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_grids import GOOD, write

from kdbench.grid.settings import OPTIONS
from kdbench.method import Method, Objective
from kdbench.registry import describe, load, lookup, names
from kdbench.registry.description import RESERVED, RegistryError


@pytest.mark.parametrize("name", names())
def test_description_agrees_with_the_class(name: str) -> None:
    description, cls = describe(name), load(name)
    assert description.name == name
    assert description.label == cls.__name__
    assert description.path.stem == name
    assert description.path == Path(inspect.getfile(cls))
    assert description.beta == cls.beta
    assert description.needs_teacher == cls.needs_teacher
    assert Objective(**description.objective) == cls.objective
    assert description.has_pretrain == (cls.pretrain is not Method.pretrain)
    assert description.pretrains_when == cls.pretrains_when
    assert description.version == cls.version
    assert description.added_later == cls.added_later
    assert set(description.added_later) <= set(description.hyper)
    assert not description.external
    parameters = [*inspect.signature(cls).parameters.values()][1:]
    assert description.hyper == {p.name: p.default for p in parameters}
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)


def test_describing_imports_no_torch() -> None:
    code = (
        "import sys; from kdbench.registry import lookup as registry\n"
        "[registry.describe(name) for name in registry.names()]\n"
        "registry.hyper('kd', {'temperature': 2})\n"
        "sys.exit('torch' in sys.modules or any('kdbench.methods' in m for m in sys.modules))"
    )
    root = Path(lookup.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    before = describe(path)
    write(tmp_path, GOOD.replace("beta = 2", "beta = 3"))
    os.utime(path, ns=(1, 1))
    assert (before.beta, describe(path).beta) == (2, 3)
    assert before.sha256 != describe(path).sha256


def test_alias_of_the_base_class_is_recognised(tmp_path: Path) -> None:
    text = GOOD.replace("Features, Method,", "Features, Method as Base,").replace(
        "(Method)", "(Base)"
    )
    assert describe(write(tmp_path, text)).label == "Mine"
    assert load(str(tmp_path / "mine.py")).__name__ == "Mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Mine(Method)", "class Mine", "no subclass of Method"),
        (
            "class Mine(Method):",
            "class A(Method):\n    pass\n\n\nclass Mine(A):",
            "expected one method per file, not A and Mine",
        ),
        ("class Mine(Method):", "class Mine(Method)", r"mine\.py:6: expected ':'"),
        ("width: int = 8", "width: int", r"mine\.py:11: hyper-parameter width has no default"),
        ("*, width", "width", "hyper-parameter width is not keyword-only"),
        ("(1, 2)):", "(1, 2), **more):", "hyper-parameter more is not keyword-only"),
        ("int = 8", "int = 2 ** 3", r"the default of width is not a literal: 2 \*\* 3"),
        ("width", "beta", "hyper-parameter beta needs another name"),
        ("setup: Setup, ", "", "takes self, setup, "),
        ("beta = 2", "beta = '2'", r"mine\.py:7: beta is '2', expected int or float"),
        ("beta = 2", "beta = two", "beta is not a literal: two"),
        ("needs_teacher = False", "needs_teacher = 0", "needs_teacher is 0, expected bool"),
        (
            "Objective(gamma=0.5",
            "Objective(ce=0.5",
            "objective ce: unknown; Objective takes gamma, al",
        ),
        ("Objective(gamma=0.5", "Objective(gamma='a'", "objective gamma is 'a', expected a number"),
        ("Objective(gamma=0.5, alpha=None)", "NONE", "write objective in the form Objective"),
    ],
)
def test_files_that_violate_the_contract_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(RegistryError, match=message) as caught:
        describe(path)
    assert "\n" not in str(caught.value)
    assert path in str(caught.value)
    with pytest.raises(RegistryError):
        load(path)


def test_reserved_names_are_the_options_of_every_method() -> None:
    assert {*RESERVED, "temperature"} == {*OPTIONS}
