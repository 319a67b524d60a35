"""A report that is killed, or meets a full disk, at any file operation is seen and repaired."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_grids import PAIRS, aggregate_of, make_cells, make_grid, make_records, typical

from benchmarks.kills.file_faults import Fault, FileFaults
from kdbench.errors import UserError
from kdbench.files import is_temporary
from kdbench.report import leaderboard, verify
from kdbench.stats.aggregate import Aggregate

Content = dict[str, bytes]
FULL = 3
"""Exit code after an error."""


@pytest.fixture(scope="module")
def statistics() -> tuple[Aggregate, Aggregate]:
    """Return a grid's statistics before and after its last records."""
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    records = make_records(cells, typical)
    earlier = dict(list(records.items())[:-2])
    return aggregate_of(grid, cells, earlier), aggregate_of(grid, cells, records)


@pytest.fixture(scope="module")
def versions(statistics: tuple[Aggregate, ...]) -> tuple[Content, ...]:
    """Make each version's files once, because plots take seconds."""
    return tuple(leaderboard.files(one) for one in statistics)


@pytest.fixture
def made(
    monkeypatch: pytest.MonkeyPatch,
    statistics: tuple[Aggregate, ...],
    versions: tuple[Content, ...],
) -> tuple[Content, ...]:
    """Have reports and verifications use ``versions``."""
    numbers = [len(one.evidence.records) for one in statistics]
    by_number = dict(zip(numbers, versions, strict=True))
    monkeypatch.setattr(
        leaderboard, "files", lambda one, draw=None: by_number[len(one.evidence.records)]
    )
    return versions


def content(folder: Path) -> Content:
    paths = [path for path in folder.rglob("*") if path.is_file() and not is_temporary(path)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def in_child(work: Callable[[], object], faults: FileFaults, count: Any) -> int:
    """Do something in a separate process that has faults; return its exit code."""

    def target() -> None:
        faults.install()
        try:
            work()
        except (OSError, UserError):
            os._exit(FULL)
        count.value = len(faults.done)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_report_that_ends_anywhere_is_seen_and_repaired(
    tmp_path: Path,
    statistics: tuple[Aggregate, ...],
    made: tuple[Content, ...],
    fault: Fault,
    every: int,
) -> None:
    old, new = statistics
    leaderboard.write(old, tmp_path / "old")
    count = multiprocessing.get_context("fork").Value("i", 0)
    results = tmp_path / "results"

    def write() -> None:
        leaderboard.write(new, results)

    shutil.copytree(tmp_path / "old", results)
    assert in_child(write, FileFaults(results), count) == 0
    assert count.value > 60
    complete = content(results)
    seen = 0
    for at in range(1, count.value, every):
        shutil.rmtree(results)
        shutil.copytree(tmp_path / "old", results)
        code = in_child(write, FileFaults(results, at, fault), count)
        assert code in ((-signal.SIGKILL,) if fault == "kill" else (0, FULL))
        if content(results / "fake") not in made:
            assert verify.differing(results / "fake"), f"operation {at}: a mixture is believed"
            seen += 1
        elif content(results) not in (content(tmp_path / "old"), complete):
            assert verify.overview(results), f"operation {at}: a mixture is believed"
        write()
        assert content(results) == complete
        assert not verify.differing(results / "fake") and not verify.overview(results)
        assert not [path for path in results.rglob("*") if is_temporary(path)]
    assert seen > 20 // every


@pytest.mark.parametrize("name", [".accuracy.svg.4711.tmp", ".accuracy.svg.0123456789abcdef.tmp"])
def test_litter_does_not_fail_a_verification_and_is_swept(
    tmp_path: Path, statistics: tuple[Aggregate, ...], made: tuple[Content, ...], name: str
) -> None:
    leaderboard.write(statistics[0], tmp_path)
    litter = [folder / name for folder in (tmp_path / "fake" / "plots", tmp_path / "fake")]
    for path in litter:
        path.touch()
    assert not verify.differing(tmp_path / "fake")
    leaderboard.write(statistics[0], tmp_path)
    assert not any(path.exists() for path in litter)
