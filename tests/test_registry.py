import importlib
import inspect
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench import registry
from kdbench.method import Method, Objective
from kdbench.registry import RegistryError, describe, hyper, load, names
from kdbench.spec import OPTIONS

GOOD = '''"""Mine (Somebody, 2024)."""

from kdbench.method import Batch, Features, Method, Objective, Setup


class Mine(Method):
    beta = 2
    needs_teacher = False
    objective = Objective(gamma=0.5, alpha=None)

    def __init__(self, setup: Setup, *, width: int = 8, scale: float = -1.0, where: tuple = (1, 2)):
        super().__init__(setup)

    def loss(self, s, t, batch):
        return s.logits.mean()
'''


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", names())
def test_description_agrees_with_the_class(name: str) -> None:
    about, cls = describe(name), load(name)
    assert about.name == name
    assert about.label == cls.__name__
    assert about.path.stem == name
    assert about.path == Path(inspect.getfile(cls))
    assert about.beta == cls.beta
    assert about.needs_teacher == cls.needs_teacher
    assert Objective(**about.objective) == cls.objective
    assert about.has_pretrain == (cls.pretrain is not Method.pretrain)
    assert not about.external
    parameters = [*inspect.signature(cls).parameters.values()][1:]
    assert about.hyper == {p.name: p.default for p in parameters}
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)


def test_describing_imports_no_torch() -> None:
    code = (
        "import sys; from kdbench import registry\n"
        "[registry.describe(name) for name in registry.names()]\n"
        "registry.hyper('kd', {'temperature': 2})\n"
        "sys.exit('torch' in sys.modules or any('kdbench.methods' in m for m in sys.modules))"
    )
    root = Path(registry.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_loaded_and_imported_are_the_same_class() -> None:
    cls = load("sp")
    assert cls.__module__ == "kdbench.methods.sp"
    assert importlib.import_module("kdbench.methods.sp").SP is cls
    assert load(str(registry.folder() / "sp.py")) is cls
    assert describe(str(registry.folder() / "sp.py")).name == "sp"


def test_in_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    """The folder beside the package is found, and imports under the package's name."""
    root = Path(registry.__file__).parents[1]
    for name in ("kdbench", "methods"):
        (tmp_path / name).symlink_to(root / name)
    code = (
        "from kdbench import registry; cls = registry.load('sp')\n"
        "import kdbench.methods.sp; assert kdbench.methods.sp.SP is cls, cls"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert done.returncode == 0


def test_a_file_of_anybody_s(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    about = describe(path)
    assert (about.name, about.label, about.beta, about.external) == (path, "Mine", 2.0, True)
    assert about.doc == "Mine (Somebody, 2024)."
    assert about.objective == {"gamma": 0.5}
    assert about.hyper == {"width": 8, "scale": -1.0, "where": (1, 2)}
    assert not about.needs_teacher
    assert not about.has_pretrain
    cls = load(path)
    assert issubclass(cls, Method)
    assert load(path) is cls


def test_two_files_of_the_same_name_are_two_modules(tmp_path: Path) -> None:
    paths: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name, GOOD.replace("beta = 2", f"beta = {len(paths)}")))
    assert [load(path).beta for path in paths] == [0, 1]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    before = describe(path)
    write(tmp_path, GOOD.replace("beta = 2", "beta = 3"))
    os.utime(path, ns=(1, 1))
    assert (before.beta, describe(path).beta) == (2, 3)
    assert before.sha256 != describe(path).sha256


def test_an_alias_of_the_base_class(tmp_path: Path) -> None:
    text = GOOD.replace("Features, Method,", "Features, Method as Base,").replace(
        "(Method)", "(Base)"
    )
    assert describe(write(tmp_path, text)).label == "Mine"
    assert load(str(tmp_path / "mine.py")).__name__ == "Mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Mine(Method)", "class Mine", "there is no subclass of Method"),
        (
            "class Mine(Method):",
            "class A(Method):\n    pass\n\n\nclass Mine(A):",
            "here are A and Mine",
        ),
        ("class Mine(Method):", "class Mine(Method)", r"mine\.py:6: expected ':'"),
        ("width: int = 8", "width: int", r"mine\.py:11: hyper-parameter width has no default"),
        ("*, width", "width", "hyper-parameter width is not keyword-only"),
        ("(1, 2)):", "(1, 2), **more):", "hyper-parameter more is not keyword-only"),
        ("int = 8", "int = 2 ** 3", r"the default of width is no literal: 2 \*\* 3"),
        ("width", "beta", "hyper-parameter beta needs another name"),
        ("setup: Setup, ", "", "takes self, setup, "),
        ("beta = 2", "beta = '2'", r"mine\.py:7: beta is '2', expected int or float"),
        ("beta = 2", "beta = two", "beta is no literal: two"),
        ("needs_teacher = False", "needs_teacher = 0", "needs_teacher is 0, expected bool"),
        (
            "Objective(gamma=0.5",
            "Objective(ce=0.5",
            "objective ce: unknown; Objective takes gamma, al",
        ),
        ("Objective(gamma=0.5", "Objective(gamma='a'", "objective gamma is 'a', expected a number"),
        ("Objective(gamma=0.5, alpha=None)", "NONE", "is to be written as Objective"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(RegistryError, match=message) as caught:
        describe(path)
    assert "\n" not in str(caught.value)
    assert path in str(caught.value)
    with pytest.raises(RegistryError):
        load(path)


def test_a_file_that_cannot_be_imported(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "\n\nimport nowhere_to_be_found\n")
    assert describe(path).label == "Mine"
    for _ in range(2):
        with pytest.raises(
            RegistryError, match="cannot be imported: ModuleNotFoundError"
        ) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_a_class_that_only_looks_like_a_method(tmp_path: Path) -> None:
    path = write(tmp_path, "class Method:\n    pass\n\n\nclass Mine(Method):\n    pass\n")
    with pytest.raises(RegistryError, match=r"Mine is no subclass of kdbench\.method\.Method"):
        load(path)


def test_unknown_names() -> None:
    with pytest.raises(
        RegistryError, match=r"semkd: unknown method \(did you mean semckd\?\); .* sp"
    ):
        describe("semkd")
    with pytest.raises(RegistryError, match=r"nowhere\.py: no such file"):
        load("nowhere.py")


def test_reserved_names_are_what_a_grid_says_of_every_method() -> None:
    assert {*registry.RESERVED, "temperature"} == {*OPTIONS}


def test_hyper() -> None:
    assert hyper("kd", {}) == {"temperature": 4.0}
    found = hyper("kd", {"temperature": 2})
    assert found == {"temperature": 2.0}
    assert isinstance(found["temperature"], float)
    assert hyper("at", {"p": 3.0}) == {"p": 3}
    assert describe("at").hyper == {"p": 2}


def test_hyper_takes_lists_for_tuples(tmp_path: Path) -> None:
    assert hyper(write(tmp_path, GOOD), {"where": [3]})["where"] == (3,)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "semckd",
            {"sofd": 1},
            r"^sofd: unknown; SemCKD takes soft, factor, .* \(did you mean soft\?\)$",
        ),
        ("sp", {"x": 1}, "^x: unknown; SP takes no hyper-parameters$"),
        ("at", {"a": 1, "b": 2}, "^a: unknown; AT takes p; b: unknown; AT takes p$"),
        ("kd", {"temperature": "warm"}, "^temperature: 'warm' is no float like 4.0$"),
        ("fitnets", {"relu": 1}, "^relu: 1 is no bool like True$"),
        ("at", {"p": True}, "^p: True is no int like 2$"),
        ("at", {"p": float("nan")}, "^p: nan is no int like 2$"),
        ("at", {"p": 2.5}, "^p: 2.5 is no int like 2$"),
        ("kd", {"temperature": float("inf")}, "^temperature: inf is no float like 4.0$"),
    ],
)
def test_what_hyper_refuses(name: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        hyper(name, given)


def installed(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Pretend that packages with these entry points are installed."""
    made = [EntryPoint(name, value, registry.GROUP) for name, value in points]
    monkeypatch.setattr(registry, "entry_points", lambda group: made)


def test_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Described without running the package it is in; several classes may share a file."""
    package = tmp_path / "kdbench_foo"
    package.mkdir()
    write(package, "import not_to_be_run\n", "__init__.py")
    write(package, GOOD + "\n\nclass Other(Mine):\n    beta = 7.0\n", "inner.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    installed(monkeypatch, ("foo", "kdbench_foo.inner:Other"), ("foo", "kdbench_foo.inner:Other"))
    assert "foo" in names()
    assert (describe("foo").label, describe("foo").beta) == ("Other", 7.0)
    assert describe("foo").external
    assert "kdbench_foo" not in sys.modules
    with pytest.raises(RegistryError, match="No module named 'not_to_be_run'"):
        load("foo")
    write(package, "", "__init__.py")
    os.utime(package / "__init__.py", ns=(1, 1))
    assert load("foo").beta == 7.0
    for name in [name for name in sys.modules if name.startswith("kdbench_foo")]:
        monkeypatch.delitem(sys.modules, name)


def test_entry_points_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ("foo", "kdbench_nowhere.inner:Foo"), ("bar", "json.decoder:Foo"))
    with pytest.raises(RegistryError, match=r"kdbench_nowhere\.inner:Foo leads to no file"):
        describe("foo")
    with pytest.raises(RegistryError, match="there is no class Foo"):
        describe("bar")


@pytest.mark.parametrize("points", [[("sp", "a:B")], [("foo", "a:B"), ("foo", "c:D")]])
def test_a_clash_is_an_error(
    points: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *points)
    with pytest.raises(RegistryError, match="defined twice, as "):
        names()
