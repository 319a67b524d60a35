from pathlib import Path

import large_page

from kdbench.report.page import html
from kdbench.report.page.results_index import IndexEntry, entries
from kdbench.report.page.thumbnail import Mark, Thumbnail
from tests.report.page.test_html import HOSTILE, Reader


def test_every_grid_is_listed(tmp_path: Path) -> None:
    evidence = large_page.evidence(("kd", "at", "fsp"), (("vgg13", "vgg8"),), (0, 1))
    large_page.write(tmp_path, evidence)
    [entry] = entries(tmp_path)
    assert entry == IndexEntry(
        "fake", "Fifteen methods on thirteen pairs", "fake/index.html",
        answer="at: the highest mean, 71.96 %, +0.54 over kd [−6.84, +7.93] (not settled), 1.00 × "
        "its training time.",
        supports="nothing, its numbers are made up",
        data="digits", protocol="crd", methods=3, pairs=1, seeds=2, done=6, runs=8,
    )  # fmt: skip
    assert entry.coverage == "6 of 8 (75 %)"
    text = html.index(tmp_path)
    assert '<a href="fake/index.html">Fifteen methods on thirteen pairs</a>' in text
    assert "Supports: nothing, its numbers are made up" in text
    assert html.index(tmp_path) == text


def test_coverage_is_rounded_down() -> None:
    assert IndexEntry("a", "a", "a", done=9999, runs=10000).coverage == "9,999 of 10,000 (99 %)"
    assert IndexEntry("a", "a", "a").coverage == "0 of 0 (0 %)"


def test_damaged_and_older_folders_are_listed(tmp_path: Path) -> None:
    for name, content in {"old": "a,b\n1,2\n", "binary": "\udcff\x00"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "leaderboard.csv").write_text(content, errors="surrogateescape")
    (tmp_path / "old" / "leaderboard.md").write_text("# Old\n")
    binary, old = entries(tmp_path)
    assert "cannot be read" in binary.trouble and "cannot be read: KeyError" in old.trouble
    assert (old.title, old.link) == ("old", "old/leaderboard.md")
    assert "cannot be read" in html.index(tmp_path)


def test_card_has_a_small_picture(tmp_path: Path) -> None:
    results = _folder(tmp_path, "one")
    head = "method,diff,diff_lo,diff_hi,state"
    lines = (head, "kd,,,,behind", "at,2,1,3,leading", "sp,-2,,,behind")
    (tmp_path / "one" / "across.csv").write_text("\n".join(lines))
    [entry] = entries(results)
    assert entry.picture == Thumbnail(
        (Mark(2, 66.7, 100.0, 83.3, True), Mark(6, 16.7, 16.7, 16.7, False)), 50.0, 8
    )
    assert html.index(results).count("<circle") == 2
    many = "\n".join(lines).replace("behind", "leading")
    (tmp_path / "one" / "across.csv").write_text(many)
    [entry] = entries(results)
    assert entry.picture and not any(mark.leading for mark in entry.picture.marks)


def test_damaged_or_older_table_over_pairs_has_no_picture(tmp_path: Path) -> None:
    results = _folder(tmp_path, "one")
    for content in (
        "",
        "method\nat\n",
        "method,diff,diff_lo,diff_hi\nat,x,,\n",
        "\x00",
        "a,diff\n1,2\n",
    ):
        (tmp_path / "one" / "across.csv").write_text(content)
        [entry] = entries(results)
        assert entry.picture is None and not entry.trouble
    assert "<svg" not in html.index(results)


def test_index_without_results(tmp_path: Path) -> None:
    assert "This folder has no leaderboard yet." in html.index(tmp_path / "none")


def test_folder_names_and_titles_are_shown_as_text(tmp_path: Path) -> None:
    plain = Reader(html.index(_folder(tmp_path / "plain", "plain")))
    for i, name in enumerate(HOSTILE):
        if "\x00" in name:
            continue  # not allowed in the name of a folder
        reader = Reader(html.index(_folder(tmp_path / str(i), name)))
        assert reader.tags == plain.tags, name
        assert reader.attributes == plain.attributes, name
        [link] = [value for value in reader.values if value.endswith(".csv")]
        assert ":" not in link and '"' not in link


def _folder(results: Path, name: str) -> Path:
    folder = results / name.replace("/", "|")
    folder.mkdir(parents=True)
    keys = "method,pair,dataset,protocol,n,expected\n"
    (folder / "leaderboard.csv").write_text(keys + "kd,a,b,c,1,2\n")
    return results
