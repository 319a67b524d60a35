import importlib
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from fake_grids import GOOD, write

from kdbench.method import Method
from kdbench.registry import describe, hyper, load, lookup, names
from kdbench.registry.description import RegistryError


def test_loaded_and_imported_are_the_same_class() -> None:
    cls = load("sp")
    assert cls.__module__ == "kdbench.methods.sp"
    assert importlib.import_module("kdbench.methods.sp").SP is cls
    assert load(str(lookup.folder() / "sp.py")) is cls
    assert describe(str(lookup.folder() / "sp.py")).name == "sp"


def test_method_loads_from_checkout_without_installation(tmp_path: Path) -> None:
    """The folder next to the package is found, and imported under the package's name."""
    root = Path(lookup.__file__).parents[2]
    for name in ("kdbench", "methods"):
        (tmp_path / name).symlink_to(root / name)
    code = (
        "from kdbench.registry import lookup as registry; cls = registry.load('sp')\n"
        "import kdbench.methods.sp; assert kdbench.methods.sp.SP is cls, cls"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert done.returncode == 0


def test_third_party_file_is_described_and_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    description = describe(path)
    assert (description.name, description.label) == (path, "Mine")
    assert (description.beta, description.external) == (2.0, True)
    assert description.doc == "Mine (Somebody, 2024)."
    assert description.objective == {"gamma": 0.5}
    assert description.hyper == {"width": 8, "scale": -1.0, "where": (1, 2)}
    assert not description.needs_teacher
    assert not description.has_pretrain
    cls = load(path)
    assert issubclass(cls, Method)
    assert load(path) is cls


def test_two_files_of_the_same_name_are_two_modules(tmp_path: Path) -> None:
    paths: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name, GOOD.replace("beta = 2", f"beta = {len(paths)}")))
    assert [load(path).beta for path in paths] == [0, 1]


def test_file_that_cannot_be_imported_is_described(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "\n\nimport nowhere_to_be_found\n")
    assert describe(path).label == "Mine"
    for _ in range(2):
        with pytest.raises(
            RegistryError, match="cannot be imported: ModuleNotFoundError"
        ) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_class_with_another_base_named_method_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "class Method:\n    pass\n\n\nclass Mine(Method):\n    pass\n")
    with pytest.raises(RegistryError, match=r"Mine is not a subclass of kdbench\.method\.Method"):
        load(path)


def test_method_without_a_loss_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("def loss", "def lost"))
    with pytest.raises(RegistryError, match=r"mine\.py: Mine defines no loss"):
        load(path)


def test_pretrain_without_modules_needs_no_pretrain_loss(tmp_path: Path) -> None:
    phase = "    def pretrain(self, student):\n        self.seen = [student]\n        return []\n"
    assert load(write(tmp_path, f"{GOOD.rstrip()}\n\n{phase}")).__name__ == "Mine"


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(
        RegistryError,
        match=r"semkd: unknown method; accepted: .* sp, .* \(did you mean semckd\?\)$",
    ):
        describe("semkd")
    with pytest.raises(RegistryError, match=r"nowhere\.py: no such file"):
        load("nowhere.py")


def test_hyper_fills_in_defaults_and_converts_types() -> None:
    assert hyper("kd", {}) == {
        "temperature": 4.0,
        "standardise": False,
        "entropy_weighting": False,
        "entropy_tau": 4.0,
    }
    temperature = hyper("kd", {"temperature": 2})["temperature"]
    assert temperature == 2.0
    assert isinstance(temperature, float)
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
        ("kd", {"temperature": "warm"}, "^temperature: expected float like 4.0, not 'warm'$"),
        ("fitnets", {"relu": 1}, "^relu: expected bool like True, not 1$"),
        ("at", {"p": True}, "^p: expected int like 2, not True$"),
        ("at", {"p": float("nan")}, "^p: expected int like 2, not nan$"),
        ("at", {"p": 2.5}, "^p: expected int like 2, not 2.5$"),
        ("kd", {"temperature": float("inf")}, "^temperature: expected float like 4.0, not inf$"),
    ],
)
def test_wrong_values_are_refused(name: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        hyper(name, given)


def installed(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Pretend that packages with these entry points are installed."""
    made = [EntryPoint(name, value, lookup.GROUP) for name, value in points]
    monkeypatch.setattr(lookup, "entry_points", lambda group: made)


def test_plugin_installed_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "later" not in names()
    metadata = tmp_path / "kdbench_later-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kdbench-later\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[{lookup.GROUP}]\nlater = kdbench_later:Mine\n")
    assert "later" in names()


def test_entry_point_is_described_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Describing a method does not run its package; several classes may share a file."""
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


def test_entry_points_without_a_file_or_class_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ("foo", "kdbench_nowhere.inner:Foo"), ("bar", "json.decoder:Foo"))
    with pytest.raises(RegistryError, match=r"kdbench_nowhere\.inner:Foo leads to no file"):
        describe("foo")
    with pytest.raises(RegistryError, match="no class Foo"):
        describe("bar")


@pytest.mark.parametrize("points", [[("sp", "a:B")], [("foo", "a:B"), ("foo", "c:D")]])
def test_name_defined_twice_is_an_error(
    points: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *points)
    with pytest.raises(RegistryError, match="defined twice, as "):
        names()
