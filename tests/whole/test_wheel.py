"""Packaging: setup.cfg lists every package, and a wheel contains every file."""

import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def packages() -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options"]["packages"].split())


def test_setup_cfg_lists_every_package() -> None:
    expected = {"kdbench.methods"}
    for init in (ROOT / "kdbench").rglob("__init__.py"):
        expected.add(".".join(init.parent.relative_to(ROOT).parts))
    assert packages() == expected


@pytest.mark.slow
def test_wheel_works_from_another_folder(tmp_path: Path) -> None:
    """Build and unpack a wheel, and list its methods, presets and published figures."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    built = subprocess.run(
        [*pip, "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("kdbench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert not any(name.startswith("methods/") for name in names)
    expected = {f"kdbench/methods/{path.name}" for path in (ROOT / "methods").glob("*.py")}
    expected.add("kdbench/methods/references.bib")
    expected |= {
        f"kdbench/report/page/{path.name}" for path in (ROOT / "kdbench/report/page").glob("*.*")
    }
    assert expected <= names
    code = (
        "import kdbench, pathlib\n"
        "from kdbench.registry import references\n"
        "from kdbench.registry import lookup as registry; from kdbench.grid import published\n"
        "from kdbench.grid.yaml_tree import presets\n"
        "assert 'site' in kdbench.__file__, kdbench.__file__\n"
        "assert references.of_built_in('semckd')\n"
        "assert registry.load('semckd').__name__ == 'SemCKD'\n"
        "print(len(registry.names()), len(presets()), len(published.references()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    methods, presets, references = map(int, done.stdout.split())
    assert methods == len(list((ROOT / "methods").glob("[!_]*.py")))
    assert presets == len(list((ROOT / "kdbench" / "grid" / "presets").glob("*.yaml")))
    assert references > 0
