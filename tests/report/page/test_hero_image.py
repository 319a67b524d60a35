import re
from dataclasses import replace
from xml.etree import ElementTree

from drawn_evidence import HOSTILE, make_evidence
from given_accuracies import statistics, vector

from kdbench.report import leaderboard
from kdbench.report.page import hero_image
from kdbench.report.page.hero import hero
from kdbench.stats.aggregate import aggregate

SVG = "{http://www.w3.org/2000/svg}"


def test_picture_as_a_file_has_every_row_and_loads_nothing() -> None:
    image = hero_image.draw(statistics(**vector("quick")))
    assert image is not None
    tree = ElementTree.fromstring(image)
    picture = hero(statistics(**vector("quick")))
    assert picture is not None
    texts = {element.text for element in tree.iter(f"{SVG}text")}
    for row in picture.rows:
        assert {row.label, row.value} <= texts
    assert {element.tag for element in tree.iter()} <= {
        f"{SVG}{name}" for name in ("svg", "style", "title", "rect", "g", "text", "line", "a",
                                    "circle", "path")
    }  # fmt: skip
    assert not re.search(rb"url\(|https?://(?!www\.w3\.org/2000/svg)|@import|<script", image)


def test_rules_of_the_page_that_hide_columns_are_left_out() -> None:
    image = hero_image.draw(statistics(**vector("quick")))
    assert image is not None
    assert b"@media" not in image and b"--accent" in image and b".hero .value" in image


def test_hostile_title_stays_text() -> None:
    evidence = make_evidence(title=" ".join(HOSTILE))
    image = hero_image.draw(aggregate(evidence))
    assert image is not None
    tree = ElementTree.fromstring(image)
    assert "<script>" in "".join(tree.itertext())
    assert not list(tree.iter(f"{SVG}script"))


def test_nothing_to_draw() -> None:
    evidence = replace(make_evidence(), records={})
    assert hero_image.draw(aggregate(evidence)) is None
    files = leaderboard.files(aggregate(evidence))
    assert hero_image.PATH not in files
    assert b"over_pairs.svg" not in files["leaderboard.md"]


def test_leaderboard_shows_the_picture() -> None:
    files = leaderboard.files(aggregate(make_evidence()))
    assert files[hero_image.PATH].startswith(b"<svg")
    assert f"]({hero_image.PATH})".encode() in files["leaderboard.md"]
