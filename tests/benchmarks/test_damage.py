"""No flipped bit in a file with a checksum is read silently."""

from pathlib import Path

from fake_grids import evidence_of, make_cells, make_grid, make_records

from benchmarks.damage import count, files
from kdbench.runs import archive


def test_no_flipped_bit_is_read_silently(tmp_path: Path) -> None:
    found = {what: count(path, read) for what, path, read in files(tmp_path)}
    for name in ("record.json", "run.json"):
        assert found[name]["n"] > 4000 and found[name]["accepted"] == 0
    # Without a checksum, an accuracy that stays possible cannot be told from the right one.
    assert 0 < found["record.json without a checksum"]["other_accuracy"] < 40


def test_no_flipped_bit_in_an_archive_is_read_silently(tmp_path: Path) -> None:
    """Every 101st bit: each takes milliseconds."""
    grid = make_grid(seeds=(0,))
    cells = make_cells(grid, ("kd",))
    evidence = evidence_of(grid, cells, make_records(cells, lambda run: 80.25))
    path = tmp_path / archive.NAME
    archive.write(evidence, path)

    def read() -> object:
        found = archive.load(path)
        curves = [found.history(run_id) for run_id in sorted(found.records)]
        return found.grid, found.cells, found.records, curves

    result = count(path, read, every=101)
    assert result["n"] > 200 and result["accepted"] == 0
