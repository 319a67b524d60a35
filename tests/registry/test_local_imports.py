"""Files beside a plugin: part of its id, and imported with it alone."""

import sys
from pathlib import Path

import pytest
from fake_grids import GOOD, write

from kdbench.registry import describe, load
from kdbench.registry.description import RegistryError
from kdbench.registry.local_imports import local_files

CODE = """
from kdbench.method import Method
{imports}

class Mine(Method):
    seen = {seen}

    def loss(self, s, t, batch):
        return s.logits.mean()
"""


def plugin(folder: Path, imports: str, seen: str = "0", helper: str = "") -> str:
    """Write a plugin, and ``helper.py`` beside it, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if helper:
        (folder / "helper.py").write_text(helper)
    return write(folder, CODE.format(imports=imports, seen=seen))


@pytest.mark.parametrize(
    ("imports", "seen", "files"),
    [
        ("import helper", "helper.x", {"helper.py": "x = 7"}),
        ("from helper import x", "x", {"helper.py": "x = 7"}),
        ("from one import x", "x", {"one.py": "from two import x", "two.py": "x = 7"}),
        ("import p.one", "p.one.x", {"p/__init__.py": "", "p/one.py": "x = 7"}),
        ("from p import one", "one.x", {"p/__init__.py": "", "p/one.py": "x = 7"}),
        ("from p import x", "x", {"p/__init__.py": "from .one import x", "p/one.py": "x = 7"}),
        ("if True:\n    import helper", "helper.x", {"helper.py": "x = 7"}),
    ],
)
def test_changed_local_file_changes_the_digest_and_is_loaded(
    imports: str, seen: str, files: dict[str, str], tmp_path: Path
) -> None:
    path = plugin(tmp_path, imports, seen)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = describe(path)
    assert set(before.local) == {tmp_path / name for name in files}
    assert load(path).seen == 7  # type: ignore[attr-defined]
    changed = next(file for file in before.local if "x = 7" in file.read_text())
    changed.write_text("x = 8")  # of the same size, and often in the same second
    assert describe(path).sha256 != before.sha256
    assert load(path).seen == 8  # type: ignore[attr-defined]
    assert not {"helper", "one", "two", "p"} & sys.modules.keys()


def test_digest_of_a_plugin_without_local_files_is_that_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    before = describe(path)
    (tmp_path / "unrelated.py").write_text("x = 1")
    assert describe(path) == before
    assert before.local == ()


def test_changed_plugin_is_loaded_again(tmp_path: Path) -> None:
    path = plugin(tmp_path, "", "1")
    assert load(path).seen == 1  # type: ignore[attr-defined]
    plugin(tmp_path, "", "2")
    assert load(path).seen == 2  # type: ignore[attr-defined]


def test_plugins_with_files_of_one_name_have_each_its_own(tmp_path: Path) -> None:
    search_path = list(sys.path)
    insert = "import sys\nsys.path.insert(0, {!r})\nfrom helper import x"
    paths = [
        plugin(tmp_path / name, insert.format(str(tmp_path / name)), "x", helper=f"x = {name!r}")
        for name in "ab"
    ]
    assert [load(path).seen for path in paths] == ["a", "b"]  # type: ignore[attr-defined]
    assert sys.path == search_path


def test_module_of_the_same_name_is_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "helper", sys)
    path = plugin(tmp_path, "import helper", "helper.x", helper="x = 7")
    assert load(path).seen == 7  # type: ignore[attr-defined]
    assert sys.modules["helper"] is sys


def test_standard_library_is_never_a_local_file(tmp_path: Path) -> None:
    path = plugin(tmp_path, "import random", "random.random() < 1")
    (tmp_path / "random.py").write_text("raise OSError")
    assert describe(path).local == ()
    assert load(path).seen is True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "imports",
    [
        "import sys\nsys.path.insert(0, {far!r})\nimport distant",
        "import importlib, sys\nsys.path.insert(0, {far!r})\nimportlib.import_module('distant')",
    ],
)
def test_file_that_no_id_contains_is_refused(imports: str, tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "distant.py").write_text("x = 1")
    path = plugin(tmp_path / "near", imports.format(far=str(far)))
    for _ in range(2):
        with pytest.raises(RegistryError, match=r"distant\.py is imported, but a change") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_import_inside_a_function_is_refused(tmp_path: Path) -> None:
    path = plugin(tmp_path, "def late():\n    from helper import x\n    return x", helper="x = 7")
    with pytest.raises(RegistryError, match=r"mine\.py:4: import helper\.x at the top"):
        describe(path)


@pytest.mark.parametrize("text", ["x = (", "x = 1\0"])
def test_error_names_a_local_file_that_cannot_be_parsed(text: str, tmp_path: Path) -> None:
    path = plugin(tmp_path, "import helper", helper=text)
    with pytest.raises(
        RegistryError, match=r"mine\.py: .*helper\.py, which it imports: "
    ) as caught:
        describe(path)
    assert "\n" not in str(caught.value)


def test_files_of_an_installed_package(tmp_path: Path) -> None:
    """Relative imports, and absolute ones of the method's own package."""
    package = tmp_path / "mypackage"
    method = package / "methods" / "mine.py"
    method.parent.mkdir(parents=True)
    for file in (package / "__init__.py", package / "methods" / "__init__.py"):
        file.write_text("")
    (package / "one.py").write_text("x = 1")
    (package / "methods" / "two.py").write_text("x = 2")
    (tmp_path / "three.py").write_text("x = 3")
    method.write_text(
        "import three\nfrom mypackage.one import x\nfrom .two import x\n"
        "def late():\n    from .. import one\n"
    )
    local = local_files(method, "mypackage.methods.mine")
    assert {str(file.relative_to(package)) for file in local} == {
        "__init__.py", "one.py", "methods/two.py",
    }  # fmt: skip
