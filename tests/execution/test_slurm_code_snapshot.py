"""Snapshots of the code that jobs run."""

import json
from pathlib import Path

from tiny_runs import alone, taught

from kdbench.execution.slurm import code_snapshot
from kdbench.registry import lookup
from tests.whole.test_invariants import RAISES, plugin


def test_snapshot_contains_package_methods_and_plugins_and_is_shared(tmp_path: Path) -> None:
    run = taught(alone(student="r8w4"), plugin(tmp_path, "raises", RAISES))
    snapshot = code_snapshot.take(tmp_path / "runs", [run])
    assert (snapshot / "kdbench" / "execution" / "worker.py").exists()
    assert (snapshot / "kdbench" / "methods" / "kd.py").exists()
    assert snapshot.name == json.loads((snapshot / "snapshot.json").read_bytes())["snapshot"][:16]
    copy = code_snapshot.with_plugins_of(run, snapshot)
    assert copy.id == run.id
    (path,) = (Path(term.path) for term in copy.terms if term.path)
    assert path.is_relative_to(snapshot / "plugins")
    assert path.read_text() == (tmp_path / "raises.py").read_text()
    assert code_snapshot.take(tmp_path / "runs", [run]) == snapshot
    assert [folder.name for folder in snapshot.parent.iterdir()] == [snapshot.name]


def test_snapshot_contains_the_files_that_a_plugin_imports(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("factor = 2.0\n")
    path = plugin(tmp_path, "scaled", "from helper import factor\n" + RAISES)
    run = taught(alone(student="r8w4"), path)
    copy = code_snapshot.with_plugins_of(run, code_snapshot.take(tmp_path / "runs", [run]))
    where = copy.terms[-1].where
    assert (Path(where).parent / "helper.py").read_text() == "factor = 2.0\n"
    assert lookup.describe(where).sha256 == run.terms[-1].source
