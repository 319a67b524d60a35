"""Teachers trained elsewhere: imported, measured, and used by a grid."""

import json
from functools import partial
from pathlib import Path

import torch
from small_grids import cell, kdbench, write

from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.grid.repeat_command import Commands
from kdbench.models import zoo
from kdbench.runs import records


def test_imported_teacher_is_used_by_a_grid(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "r8w4_vanilla"
    folder.mkdir()
    path = folder / "ckpt_epoch_240.pth"
    weights = zoo.create("r8w4", num_classes=10).state_dict()
    torch.save({"epoch": 240, "model": weights}, path)
    runs = tmp_path / "runs"
    flags = ("teacher", "import", path, "--dataset", "synthetic", "--runs", runs)
    result = kdbench(*flags)
    assert result.exit_code == 0, result.output
    run_id = result.stdout.split("r8w4: ")[2].strip(" }\n")
    assert run_id.startswith("import-")
    record = records.read(runs, run_id)
    assert record is not None and record.result is not None and record.status == "done"
    assert f"{record.result.test_acc:.2f} % on synthetic" in result.stdout
    run_json = json.loads((runs / run_id / "run.json").read_text())
    assert (run_json["student"], run_json["dataset"]) == ("r8w4", {"name": "synthetic"})
    assert kdbench(*flags).stdout == result.stdout

    grid = write(tmp_path, teachers={"r8w4": run_id})
    folders = ("--runs", runs, "--results", tmp_path / "results")
    assert kdbench("run", "--grid", grid, *folders).exit_code == 0
    run = cell(expand(load(grid)), "kd").runs[0]
    kd = records.read(runs, run.id)
    assert kd is not None and kd.result is not None
    assert kd.result.teacher_acc == record.result.test_acc
    assert f"teachers={{r8w4: {run_id}}}" in Commands(partial(records.read_run, runs))(run)
    assert "r8w4, imported" in kdbench("show", run_id, "--runs", runs).stdout
