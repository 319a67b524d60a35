import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from fake_grids import PAIRS, aggregate_of, make_cells, make_grid, make_records, typical
from small_grids import PLUGIN, kdbench, mistakes, tree

from kdbench.report import leaderboard, verify
from kdbench.runs import archive

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    leaderboard.write(aggregate_of(grid, cells, make_records(cells, typical)), tmp_path)
    (tmp_path / "other").mkdir()
    return tmp_path


def test_unchanged_results_are_verified(results: Path) -> None:
    assert verify.folders(results) == [results / "fake"]
    assert verify.differing(results / "fake") == []
    done = kdbench("verify", "--results", results)
    assert done.exit_code == 0 and "checked fake; 0 files differ" in done.stdout


def test_results_of_a_plugin_are_verified_without_its_file(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    grid = tmp_path / "small.yaml"
    grid.write_text(yaml.safe_dump(tree(methods=["kd", "./mine.py"])))
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    done = kdbench("report", "--grid", grid, *folders)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "results" / "small" / "index.html").read_text()
    assert "Mine (Somebody, 2024)." in page and "kdbench train --method /PATH/mine.py" in page
    assert str(plugin) not in page
    plugin.unlink()
    done = kdbench("verify", "--results", tmp_path / "results")
    assert done.exit_code == 0, done.output
    assert "checked small; 0 files differ" in done.stdout


def test_results_of_plugins_depend_on_no_file_and_name_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has changed, is gone, or is another one in this folder, changes no result."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    plugin, parts = home / "mine.py", home / "mine_parts.py"
    plugin.write_text(f"{PLUGIN.replace('(Somebody', '(Doe')}\nfrom mine_parts import scale\n")
    parts.write_text("scale = 1.0\n")
    (home / "sub" / "mine.py").write_text(PLUGIN.replace("beta = 2.0", "family = 'mine, too'"))
    helped = {"auxiliary": {"student": "r8w8", "method": "./mine.py"}}
    values = tree(
        methods=[
            "kd+./mine.py",
            {"./sub/mine.py": {"label": "other"}},
            {"at": {"label": "helped", **helped}},
            {"hkd": {"auxiliary": {"student": "r8w8", "method": str(plugin)}}},
        ],
        report={"baseline": f"kd+{plugin}"},
    )
    values["protocol"] = values["protocol"] | {"methods": {str(plugin): {"width": 3}}}
    (home / "small.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    done = kdbench(
        *("report", "--grid", "home/small.yaml"),
        *("--runs", home / "runs", "--results", "results"),
    )
    assert done.exit_code == 0, done.output
    folder = tmp_path / "results" / "small"
    page = (folder / "index.html").read_text()
    one, two = (hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in (plugin, parts))
    assert f"mine.py (sha256 {one}), mine_parts.py (sha256 {two})" in page
    assert "mine, too" in page and "Mine (Doe, 2024)." in page and "Mine (Somebody, 2024)." in page
    assert f"# needs /PATH/mine.py with sha256 {one}, /PATH/mine_parts.py with sha256 {two}" in page
    for path in folder.rglob("*.*"):
        assert str(home).encode() not in path.read_bytes(), path
    monkeypatch.chdir(elsewhere)
    for change in ("changed", "gone", "another"):
        if change == "changed":
            plugin.write_text(PLUGIN.replace("Mine", "Changed"))
        elif change == "gone":
            shutil.rmtree(home)
        else:
            (elsewhere / "mine.py").write_text(PLUGIN.replace("Mine", "Another"))
        done = kdbench("verify", "--results", tmp_path / "results")
        assert "checked small; 0 files differ" in done.stdout, (change, done.output)
        again = tmp_path / change
        done = kdbench("report", "--from", folder / "records.parquet", "--results", again)
        assert done.exit_code == 0, done.output
        for path in folder.rglob("*.*"):
            name = path.relative_to(folder)
            assert (again / "small" / name).read_bytes() == path.read_bytes(), (change, name)


def test_changed_number_is_reported(results: Path) -> None:
    page, csv = results / "fake" / "leaderboard.md", results / "fake" / "leaderboard.csv"
    text = page.read_text()
    page.write_text(text.replace("83.50", "83.51", 1))
    csv.unlink()
    (results / "fake" / "plots" / "accuracy.png").write_bytes(b"GIF")
    differences = verify.differing(results / "fake")
    number = 1 + text[: text.index("83.50")].count("\n")
    assert differences == [
        f"{csv}: missing",
        f"{page}: differs in line {number}",
        f"{results / 'fake' / 'plots' / 'accuracy.png'}: not a PNG image",
    ]
    done = kdbench("verify", "--results", results)
    assert done.exit_code == 1
    # The index of all grids differs, too, since it reads the missing CSV.
    assert "4 files differ" in done.stdout and f"{csv}: missing" in done.stdout


def test_parquet_is_compared_by_content(results: Path) -> None:
    import pyarrow.parquet as pq

    path = results / "fake" / "leaderboard.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path, compression="snappy")
    assert verify.differing(results / "fake") == []
    pq.write_table(table.slice(1), path)
    assert verify.differing(results / "fake") == [f"{path}: differs"]
    path.write_bytes(b"")
    assert verify.differing(results / "fake") == [f"{path}: differs"]


def test_longer_and_shorter_files_differ(results: Path) -> None:
    page = results / "fake" / "leaderboard.md"
    lines = len(page.read_text().splitlines())
    page.write_text(page.read_text() + "more\n")
    assert verify.differing(results / "fake") == [f"{page}: differs in line {lines + 1}"]


def test_unexpected_file_is_reported(results: Path) -> None:
    extra = [results / "fake" / name for name in ("notes.md", "plots/old/accuracy.svg")]
    for path in extra:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (results / "fake" / "plots" / "dangling.svg").symlink_to("nowhere")
    (results / "fake" / "empty").mkdir()
    assert verify.differing(results / "fake") == [
        f"{results / 'fake' / name}: not produced by the records"
        for name in ("notes.md", "plots/dangling.svg", "plots/old/accuracy.svg")
    ]
    done = kdbench("verify", "--results", results)
    assert done.exit_code == 1
    assert "3 files differ" in done.stdout and f"{extra[0]}: not produced by" in done.stdout


def test_folder_without_records_is_reported(tmp_path: Path) -> None:
    done = kdbench("verify", "--results", tmp_path)
    assert done.exit_code == 0 and "checked nothing, no records.parquet found" in done.stdout


def test_makefile_runs_verify() -> None:
    assert re.search(
        r"^verify-results:.*\n\t.*kdbench verify", (ROOT / "Makefile").read_text(), re.M
    )


def test_missing_folder_of_results_is_an_error(tmp_path: Path) -> None:
    [line] = mistakes("verify", "--results", tmp_path / "none")
    assert line == f"--results {tmp_path / 'none'}: no such folder"


def test_archive_without_checksum_is_verified(tmp_path: Path) -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    records = {
        run_id: replace(record, result=replace(record.result, best_acc=81.0, best_epoch=2))
        for run_id, record in make_records(cells, lambda run: 81.0).items()
        if record.result
    }
    path = leaderboard.write(aggregate_of(grid, cells, records), tmp_path).with_name(archive.NAME)
    pq.write_table(archive.without_checksum(pq.read_table(path)), path)
    assert kdbench("verify", "--results", tmp_path).exit_code == 0
