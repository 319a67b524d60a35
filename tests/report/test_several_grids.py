from pathlib import Path

import pandas as pd
import pytest
from fake_grids import (
    PAIRS,
    PROTOCOL,
    evidence_of,
    make_cells,
    make_grid,
    make_records,
    markdown,
    typical,
)
from small_grids import kdbench, mistakes

from kdbench.report import leaderboard, several_grids
from kdbench.runs import archive
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import LeaderboardError, aggregate


def grid(name: str, **changes: object) -> Evidence:
    made = make_grid(**{"name": name, "source": f"{name}.yaml"} | changes)  # type: ignore[arg-type]
    cells = make_cells(made)
    return evidence_of(made, cells, make_records(cells, typical))


OTHER = {"protocol": PROTOCOL.model_copy(update={"name": "crd", "alpha": 0.0})}


def test_grids_with_the_same_protocol_are_merged() -> None:
    merged = several_grids.merged([grid("a"), grid("b", pairs=PAIRS[1:])])
    assert merged is not None and merged.grid.name == "a-and-b"
    actual, expected = aggregate(merged), aggregate(grid("c", pairs=PAIRS))
    assert actual.methods.frame.equals(expected.methods.frame)
    assert actual.frame.equals(expected.frame)
    assert all(merged.history(run.id) for cell in merged.cells for run in cell.runs)
    assert "--grid a.yaml --grid b.yaml" in markdown(actual).replace("'", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (OTHER, r"different protocols \(alpha 1.0 and 0.0\)"),
        ({"seeds": (0, 1)}, r"seeds \[0, 1, 2\] and \[0, 1\]"),
        ({"dataset": {"name": "fashion_mnist"}}, "data digits and fashion_mnist"),
    ],
)
def test_different_protocols_are_refused(changes: dict[str, object], message: str) -> None:
    from kdbench.grid.settings import Dataset

    if "dataset" in changes:
        changes = {"dataset": Dataset(name="fashion_mnist")}
    with pytest.raises(LeaderboardError, match=message) as error:
        several_grids.merged([grid("a"), grid("b", **changes)])
    assert "--mix" in str(error.value) and "\n" not in str(error.value)
    assert several_grids.merged([grid("a"), grid("b", **changes)], mix=True) is None


def test_side_by_side_marks_every_row_and_ranks_nothing(tmp_path: Path) -> None:
    page = several_grids.write([grid("a"), grid("b", **OTHER)], tmp_path)
    assert page == tmp_path / "a-and-b" / "mixed.md"
    text = page.read_text()
    assert "| kd (a) | 82.50 ± 0.35 |" in text and "| kd (b) | 82.50 ± 0.35 |" in text
    assert "a: digits; demo: 2 epochs" in text and "b: digits; crd: 2 epochs" in text
    assert "gamma 1, alpha 0, T 4" in text
    assert "**" not in text and "rank" not in text.lower().replace("ranked", "")
    first = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert first[2:6] == ["| teacher (a)", "| student (a)", "| teacher (b)", "| student (b)"]
    frame = pd.read_csv(page.with_suffix(".csv"))
    assert len(frame) == 10 and set(frame["mark"]) == {"a", "b"}


def test_command_writes_the_merged_report(tmp_path: Path) -> None:
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    archive.write(grid("a"), a)
    archive.write(grid("b", **OTHER), b)
    args = ("report", "--from", a, "--from", b, "--results", tmp_path)
    [line] = mistakes(*args)
    assert "cannot be combined in one table" in line
    done = kdbench(*args, "--mix")
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "a-and-b" / "mixed.md")
    archive.write(grid("b", pairs=PAIRS[1:]), b)
    done = kdbench(*args)
    assert done.exit_code == 0
    assert (tmp_path / "a-and-b" / "leaderboard.md").exists()
    # And from that folder's archive again.
    again = archive.load(tmp_path / "a-and-b" / "records.parquet")
    assert (
        leaderboard.files(aggregate(again))[leaderboard.PAGE]
        == (tmp_path / "a-and-b" / "leaderboard.md").read_bytes()
    )
