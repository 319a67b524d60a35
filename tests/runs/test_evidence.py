"""Evidence gathered from a folder of runs."""

from dataclasses import replace
from pathlib import Path

from fake_grids import make_cells, make_grid, make_record

from kdbench.runs import records
from kdbench.runs.evidence import gather


def test_equal_environments_are_shared_and_hold_nothing_private(tmp_path: Path) -> None:
    grid = make_grid(seeds=(0, 1, 2))
    cells = [cell for cell in make_cells(grid) if cell.method == "kd"]
    for run, threads in zip(cells[0].runs, (1, 1, True), strict=True):
        environment = {"threads": threads, "versions": {"torch": "2"}, "host": f"node{run.seed}"}
        records.write_run(tmp_path, run)
        records.write(tmp_path, replace(make_record(run, 80.0), environment=environment))
    gathered = gather(grid, cells, tmp_path).records
    first, second, third = (gathered[run.id].environment for run in cells[0].runs)
    assert first is second and first == {"threads": 1, "versions": {"torch": "2"}}
    assert third is not first and third["threads"] is True
