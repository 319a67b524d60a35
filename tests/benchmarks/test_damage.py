"""No flipped bit in a file with a checksum is read silently."""

from pathlib import Path

from benchmarks.damage import count, files


def test_no_flipped_bit_changes_a_record_or_a_run_silently(tmp_path: Path) -> None:
    found = {what: count(path, read) for what, path, read in files(tmp_path)}
    for name in ("record.json", "run.json"):
        assert found[name]["n"] > 4000 and found[name]["accepted"] == 0
    # Without a checksum, an accuracy that stays possible cannot be told from the right one.
    assert 0 < found["record.json without a checksum"]["other_accuracy"] < 40
