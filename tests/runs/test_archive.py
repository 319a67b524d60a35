import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_grids import PAIRS, ended, evidence_of, make_cells, make_grid, make_records, typical
from small_grids import expanded, kdbench, mistakes, small
from small_grids import write as grid_file

from kdbench.grid.grid import Grid, Report, Row
from kdbench.grid.run import Cell, Run, Term
from kdbench.grid.settings import Dataset, Protocol
from kdbench.report import leaderboard
from kdbench.runs import archive, records
from kdbench.runs.archive import ArchiveError
from kdbench.runs.evidence import Evidence, PluginFacts, gather
from kdbench.stats.aggregate import aggregate


def mixed_evidence(**changes: object) -> Evidence:
    """Return evidence of done, failed and missing runs."""
    grid = make_grid(PAIRS, **changes)  # type: ignore[arg-type]
    cells = make_cells(grid)
    records = make_records(cells, typical)
    *_, bad, gone = [run for cell in cells for run in cell.runs]
    records[bad.id] = ended(bad, "failed", "ValueError: ü | x")
    del records[gone.id]
    return evidence_of(grid, cells, records, epochs=60)


def files(evidence: Evidence) -> dict[str, bytes]:
    return leaderboard.files(aggregate(evidence))


def test_archive_gives_the_same_leaderboard(tmp_path: Path) -> None:
    before = mixed_evidence()
    archive.write(before, tmp_path / "records.parquet")
    after = archive.load(tmp_path / "records.parquet")
    assert files(after) == files(before)
    assert after.records == before.records
    assert after.cells == tuple(before.cells)
    for run in {run.id for cell in before.cells for run in cell.runs}:
        assert after.history(run) == before.history(run)
    assert after.history("unknown") == []


def test_archive_keeps_reserved_memory_of_gpus_and_only_theirs(tmp_path: Path) -> None:
    evidence = mixed_evidence()
    run_id, record = next(iter(evidence.records.items()))
    assert record.cost is not None
    on_gpu = replace(record, cost=replace(record.cost, peak_reserved_mb=300.5))
    changed = replace(evidence, records={**evidence.records, run_id: on_gpu})
    archive.write(changed, tmp_path / "records.parquet")
    after = archive.load(tmp_path / "records.parquet")
    assert after.records == changed.records
    assert archive.dump(after) == (tmp_path / "records.parquet").read_bytes()
    rows = pq.read_table(tmp_path / "records.parquet").column("record").to_pylist()
    assert [run_id in text for text in rows if text and "peak_reserved_mb" in text] == [True]


def test_archive_has_a_row_per_run_in_a_fixed_order(tmp_path: Path) -> None:
    evidence = mixed_evidence()
    content = archive.dump(evidence)
    turned = Evidence(
        evidence.grid,
        evidence.cells,
        dict(reversed(list(evidence.records.items()))),
        evidence.history,
    )
    assert archive.dump(turned) == content == archive.dump(evidence)
    (tmp_path / "x").write_bytes(content)
    table = pq.read_table(tmp_path / "x")
    assert table.column_names == ["id", "run", "record", "history"]
    rows = table.to_pylist()
    ids = [row["id"] for row in rows]
    assert ids == sorted({run.id for cell in evidence.cells for run in cell.runs})
    for row in rows:
        assert Run.from_json(json.loads(row["run"])).id == row["id"]
        assert row["record"] is None or json.loads(row["record"])["run"] == row["id"]


def test_archive_holds_nothing_private(tmp_path: Path) -> None:
    data = Dataset(name="imagefolder", root="/home/somebody/pictures")
    evidence = mixed_evidence(dataset=data, methods=(Row(name="/home/somebody/mine.py"),))
    run = evidence.cells[2].runs[0]
    plugin = Term("mine", 1.0, path="/home/somebody/mine.py", source="0" * 64)
    own = replace(run, terms=(plugin,))
    first = evidence.records[run.id]
    secret = {"host": "alpha-centauri", "started": "2026-01-01T00:00:00Z", "ended": "x"}
    record = replace(first, run=own.id, environment=first.environment | secret,
                     traceback='File "/home/somebody/mine.py"')  # fmt: skip
    cells = [*evidence.cells, Cell("mine", "big", "small", (own,))]
    path = tmp_path / "records.parquet"
    archive.write(
        Evidence(evidence.grid, cells, {**evidence.records, own.id: record}, lambda _: []), path
    )
    text = str(pq.read_table(path).to_pylist()) + str(pq.read_schema(path).metadata)
    assert "mine" in text and "pictures" in text
    for private in ("somebody", "alpha-centauri", "2026-01"):
        assert private not in text
    loaded = archive.load(path)
    assert loaded.records[own.id].environment == first.environment
    assert loaded.grid.dataset.title == data.title


def test_archive_names_no_folder_of_plugins_in_its_grid(tmp_path: Path) -> None:
    auxiliary = {"student": "r8w8", "method": "kd+/home/somebody/mine.py"}
    row = Row(name="at", options={"label": "/x/is no path.py", "auxiliary": auxiliary})
    evidence = mixed_evidence(
        methods=(row,),
        report=Report(baseline="C:\\somebody\\mine.py"),
        protocol=Protocol(source="https://x/y.py", methods={"/home/somebody/a.py": {"width": 3}}),
        sweep={"/home/somebody/a.py.width": (1, 2)},
    )
    archive.write(evidence, tmp_path / "a")
    assert "somebody" not in str(pq.read_schema(tmp_path / "a").metadata)
    grid = archive.load(tmp_path / "a").grid
    assert grid.methods[0].options == {
        "label": "/x/is no path.py",
        "auxiliary": {"student": "r8w8", "method": "kd+/PATH/mine.py"},
    }
    assert grid.report.baseline == "/PATH/mine.py"
    assert grid.protocol.source == "https://x/y.py"
    assert grid.protocol.methods == {"/PATH/a.py": {"width": 3}}
    assert list(grid.sweep) == ["/PATH/a.py.width"]
    archive.write(archive.load(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_facts_about_plugins_are_kept(tmp_path: Path) -> None:
    """Archives of older versions have no digests, and are written again without them."""
    facts = {
        "0" * 64: PluginFacts("logit", "Mine (2024).", {"mine.py": "1" * 64, "b.py": "2" * 64}),
        "3" * 64: PluginFacts("other", ""),
    }
    archive.write(replace(mixed_evidence(), plugins=facts), tmp_path / "a")
    loaded = archive.load(tmp_path / "a")
    assert loaded.plugins == facts
    assert list(loaded.plugins["0" * 64].digests) == ["mine.py", "b.py"]
    assert archive.dump(loaded) == (tmp_path / "a").read_bytes()
    metadata = json.loads(pq.read_schema(tmp_path / "a").metadata[archive.KEY])
    assert metadata["plugins"]["3" * 64] == ["other", ""]


def test_gathered_evidence_and_its_archive_agree(tmp_path: Path) -> None:
    """Check that evidence from a folder of runs holds nothing that the archive leaves out."""
    grid = make_grid()
    cells = make_cells(grid)
    runs = tmp_path / "runs"
    for run_id, record in make_records(cells, typical).items():
        (runs / run_id).mkdir(parents=True)
        assert record.result is not None
        result = replace(record.result, test_acc=81.0, best_acc=81.0, best_epoch=2)
        secret = record.environment | {"host": "h"}
        records.write(runs, replace(record, result=result, environment=secret))
        (runs / run_id / "history.csv").write_text(
            "epoch,train_loss,test_acc,val_acc,seconds\n1,0.123456789,80.25,,1.5\n2,0.1,81,2,1\n"
        )
    evidence = gather(grid, cells, runs)
    archive.write(evidence, tmp_path / "a")
    assert files(archive.load(tmp_path / "a")) == files(evidence)
    history = evidence.history(cells[0].runs[0].id)
    assert history == archive.load(tmp_path / "a").history(cells[0].runs[0].id)
    assert history == [
        {"epoch": 1, "train_loss": 0.123457, "test_acc": 80.25},
        {"epoch": 2, "train_loss": 0.1, "test_acc": 81, "val_acc": 2},
    ]


def test_report_command_reads_an_archive(tmp_path: Path) -> None:
    """Only the grid's runs are used; runs that the archive lacks are missing."""
    expansion = expanded(seeds=[0, 1])
    records = make_records(expansion.cells, lambda run: 80.0 + run.seed)
    archive.write(evidence_of(small(seeds=[0, 1]), expansion.cells, records), tmp_path / "a")
    flags = ("--from", tmp_path / "a", "--results", tmp_path)
    done = kdbench("report", "--grid", grid_file(tmp_path, seeds=[1, 2]), *flags)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "small" / "leaderboard.md").read_text()
    assert "81.00 (1/2)" in text
    assert "5: 3 done, 0 diverged, 0 failed, 0 skipped, 2 missing" in text
    done = kdbench("report", *flags)
    assert done.exit_code == 0
    assert "80.50 ± 0.71" in (tmp_path / "small" / "leaderboard.md").read_text()
    assert mistakes("report") == ["--grid or --from is required"]


def test_file_that_is_no_archive_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    with pytest.raises(ArchiveError, match="no such file"):
        archive.load(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ArchiveError, match="no records of kdbench"):
        archive.load(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(ArchiveError, match="no records of kdbench") as error:
        archive.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"schema":1,"numerics"', b'"schema":9,"numerics"', "another version"),
        (b'"numerics":', b'"numerics":9', "made by numerics version"),
        (b'"seeds":[0,1,2]', b'"sxxds":[0,1,2]', "damaged"),
    ],
)
def test_other_versions_are_refused(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = tmp_path / "records.parquet"
    archive.write(mixed_evidence(), path)
    table = pq.read_table(path)
    text = table.schema.metadata[b"kdbench"]
    assert old in text
    pq.write_table(table.replace_schema_metadata({b"kdbench": text.replace(old, new, 1)}), path)
    with pytest.raises(ArchiveError, match=message):
        archive.load(path)


def test_run_with_another_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    archive.write(mixed_evidence(), path)
    table = pq.read_table(path)
    runs = [text.replace('"gamma":1.0', '"gamma":2.0') for text in table["run"].to_pylist()]
    changed = table.set_column(1, "run", pa.array(runs))
    pq.write_table(changed, path)
    with pytest.raises(ArchiveError, match="does not match its checksum"):
        archive.load(path)
    pq.write_table(archive.without_checksum(changed), path)
    with pytest.raises(ArchiveError, match="has another id"):
        archive.load(path)


def test_grid_is_restored(tmp_path: Path) -> None:
    grid = make_grid(PAIRS, teachers={"big": "import-0123"}, seeds=(3, 5, 8))
    cells = make_cells(grid)
    archive.write(evidence_of(grid, cells, {}), tmp_path / "a")
    again: Grid = archive.load(tmp_path / "a").grid
    assert again == grid


def test_equal_frames_give_equal_bytes_and_values(tmp_path: Path) -> None:
    frame = aggregate(mixed_evidence()).frame
    assert archive.table(frame) == archive.table(frame.copy())
    (tmp_path / "f").write_bytes(archive.table(frame))
    table = pq.read_table(tmp_path / "f")
    assert table.column_names == list(frame.columns)
    assert table["mean"].to_pylist()[:3] == frame["mean"].tolist()[:3]
    assert table["seeds"].to_pylist()[1] == "0 1 2"


def test_number_changed_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    archive.write(mixed_evidence(), path)
    table = pq.read_table(path)
    for name, old, new in (("record", '"n_test":400', '"n_test":401'), ("history", "1.0,", "9.0,")):
        texts = [text and text.replace(old, new, 1) for text in table[name].to_pylist()]
        assert texts != table[name].to_pylist()
        changed = table.set_column(archive.COLUMNS.index(name), name, pa.array(texts))
        pq.write_table(changed, path)
        with pytest.raises(ArchiveError, match="does not match its checksum"):
            archive.load(path)


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        ('{"epoch":[1.0,2.0],"test_acc":[80.0]}', "argument 2 is shorter"),
        ('{"epoch":1.0}', "expected a list of numbers"),
        ('{"epoch":[[1.0]],"test_acc":[80.0]}', "expected numbers"),
        ('{"epoch":[1.0],"test_acc":["80"]}', "expected numbers"),
        ("[1]", "has no attribute"),
        ("{", "learning curve"),
        ('{"epoch":[1.0],"test_acc":[80.0]}', "1 epochs, the run's record says 2"),
    ],
)
def test_odd_curve_in_an_archive_is_refused_with_its_run(
    tmp_path: Path, history: str, problem: str
) -> None:
    grid = make_grid()
    cells = make_cells(grid)
    path = tmp_path / "records.parquet"
    archive.write(evidence_of(grid, cells, make_records(cells, lambda run: 80.25)), path)
    table = archive.without_checksum(pq.read_table(path))
    pq.write_table(table.set_column(3, "history", pa.array([history] * len(table))), path)
    run_id = table["id"].to_pylist()[0]
    evidence = archive.load(path)
    with pytest.raises(ArchiveError) as error:
        evidence.history(run_id)
    assert str(error.value).startswith(f"{path}: damaged: learning curve of {run_id}: ")
    assert problem in str(error.value)
    [line] = mistakes("report", "--from", path, "--results", tmp_path)
    assert line.startswith(f"{path}: damaged: learning curve of ")


def test_archive_without_numerics_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    archive.write(mixed_evidence(), path)
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"kdbench"])
    del metadata["numerics"]
    pq.write_table(table.replace_schema_metadata({b"kdbench": json.dumps(metadata)}), path)
    with pytest.raises(ArchiveError, match="damaged: KeyError: 'numerics'"):
        archive.load(path)


def test_archive_of_an_earlier_version_of_the_data_says_so(tmp_path: Path) -> None:
    grid = make_grid(dataset=Dataset(name="cifar100"))
    cells = make_cells(grid)
    path = tmp_path / "records.parquet"
    archive.write(evidence_of(grid, cells, {}), path)
    table = archive.without_checksum(pq.read_table(path))
    rows = []
    for text in table["run"].to_pylist():
        values = Run.from_json(json.loads(text)).canonical
        del values["dataset"]["version"]
        old = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        rows.append(hashlib.sha256(old).hexdigest()[:16])
    pq.write_table(table.set_column(0, "id", pa.array(rows)), path)
    with pytest.raises(ArchiveError, match="cifar100 as kdbench read it before version 2"):
        archive.load(path)
