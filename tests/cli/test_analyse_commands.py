"""``kdbench analyse``: its output files and its error messages."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_grids import expanded, kdbench, mistakes, python, write

from kdbench.cli import analyse_commands

NAMES = ("attention", "mismatch", "gradcam", "tsne", "fidelity", "correlation")
GRID: dict[str, Any] = {
    "dataset": {"name": "digits", "per_class": 13},
    "methods": ["kd", {"semckd": {"label": "sem$ckd$"}}, "label_smoothing"],
    "seeds": [0, 1],
}
SMALL = {"tsne": ("--images", "40"), "mismatch": ("--batches", "1"), "gradcam": ("--images", "2")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[object, ...]]:
    """Return the file of a trained grid, and the flags of its folders."""
    folder = tmp_path_factory.mktemp("trained")
    grid = write(folder, **GRID)
    flags = ("--runs", folder / "runs", "--results", folder / "results")
    assert kdbench("run", "--grid", grid, *flags).exit_code == 0
    return grid, flags


@pytest.mark.parametrize("name", NAMES)
def test_files_are_written_and_reproducible(
    name: str, trained: tuple[Path, tuple[object, ...]], tmp_path: Path
) -> None:
    grid, flags = trained
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        done = kdbench("analyse", name, "--grid", grid, *flags, *SMALL.get(name, ()), "--out", out)
        assert done.exit_code == 0, done.output
        assert "sem$ckd$" in done.stdout
        assert re.search(r"(AAAI|ICCV|ICLR|JMLR|NeurIPS)\s20\d\d", done.stdout)
        assert str(out / f"{name}.png") in done.stdout
    files = sorted(path.name for path in first.iterdir())
    assert files == [f"{name}.csv", f"{name}.png", f"{name}.svg"]
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()
    frame = pd.read_csv(first / f"{name}.csv")
    assert "sem$ckd$" in set(frame["label"])
    if name != "attention":
        assert {"student", "kd", "label_smoothing"} <= set(frame["label"])
    assert "seed" not in " ".join(frame["label"])  # a single seed


def test_runs_by_id_prefix_are_written_to_the_default_folder(
    trained: tuple[Path, tuple[object, ...]],
) -> None:
    _, flags = trained
    runs, results = Path(str(flags[1])), Path(str(flags[3]))
    kd, sem = (cell.runs[1] for cell in expanded(**GRID).cells if cell.method in ("kd", "sem$ckd$"))
    done = kdbench("analyse", "fidelity", kd.id[:9], sem.id, *flags)
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(results / "analyses" / "fidelity" / "fidelity.csv")
    assert frame["run"].tolist() == [kd.id, sem.id]
    record = json.loads((runs / kd.id / "record.json").read_text())
    assert frame["accuracy"][0] == pytest.approx(record["result"]["test_acc"], rel=1e-5)
    assert (runs / sem.id / "trace.csv").exists()


def test_seed_and_pair_select_runs_of_a_grid(
    trained: tuple[Path, tuple[object, ...]], tmp_path: Path
) -> None:
    grid, flags = trained
    pair = ("--pair", "r8w4->r8w3", "--seed", "1", "--out", tmp_path)
    assert kdbench("analyse", "fidelity", "--grid", grid, *flags, *pair).exit_code == 0
    ids = {cell.runs[-1].id for cell in expanded(**GRID).cells if cell.method != "teacher"}
    assert set(pd.read_csv(tmp_path / "fidelity.csv")["run"]) == ids


def test_mistakes_are_reported(trained: tuple[Path, tuple[object, ...]], tmp_path: Path) -> None:
    grid, flags = trained
    cells = {cell.method: cell for cell in expanded(**GRID).cells}
    kd, student = cells["kd"].runs[0].id, cells["student"].runs[0].id

    def refused(*args: object) -> str:
        (line,) = mistakes("analyse", *args)
        return line

    assert refused("attention", kd, *flags).startswith("no attention weights in these runs (kd)")
    assert "has no teacher to compare it with" in refused("fidelity", student, *flags)
    assert "give run ids or --grid" in refused("tsne", *flags)
    assert "--set, --pair and --seed need --grid" in refused("tsne", kd, "--seed", "0", *flags)
    assert "accepted: r8w4 -> r8w3" in refused("tsne", "--grid", grid, "--pair", "a -> b", *flags)
    assert "no run of seed 7 is done" in refused("tsne", "--grid", grid, "--seed", "7", *flags)
    assert "no such run" in refused("tsne", "nothing", *flags)
    assert "no such folder of runs" in refused("tsne", kd, "--runs", tmp_path / "none")
    assert "no such stage" in refused("gradcam", kd, "--stage", "9", *flags)


@pytest.mark.parametrize("name", NAMES)
def test_every_analysis_has_the_shared_options(name: str) -> None:
    params = analyse_commands.analyse.commands[name].params
    assert [param.opts[0] for param in params][:10] == [
        "--runs", "--results", "--data", "ids", "--grid", "--set", "--pair", "--seed", "--device",
        "--out",
    ]  # fmt: skip
    text = kdbench("analyse", name, "--help").stdout
    assert "[RUN]..." in text and f"results/analyses/{name}" in "".join(text.split())


def test_commands_print_help_without_importing_torch() -> None:
    code = """
import sys
from kdbench.cli import main
try:
    main(["analyse", *sys.argv[1:], "--help"])
except SystemExit as end:
    assert not end.code, end.code
slow = {"torch", "pandas", "numpy", "matplotlib", "sklearn", "pydantic", "rich"} & set(sys.modules)
assert not slow, slow
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in NAMES)
    result = python(code, "tsne")
    assert result.returncode == 0 and "--images" in result.stdout, result.stderr
