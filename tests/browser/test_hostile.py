"""Names that contain markup, and the index of all grids, in a browser."""

from pathlib import Path
from typing import Any

import large_page
import pytest

from kdbench.report.page import html as pages_of
from tests.report.page.test_html import HOSTILE, hostile

pytestmark = pytest.mark.browser


def test_hostile_names_are_shown_as_text(open_page: Any, tmp_path: Path) -> None:
    for i, name in enumerate(HOSTILE):
        path = tmp_path / f"{i}.html"
        path.write_text(hostile(name), encoding="utf-8")
        page = open_page(path)
        assert page.evaluate("document.scripts.length") == 2
        assert page.locator("#leaderboard tbody tr").count() == 4
        assert page.evaluate("document.images.length") == 1
        full = name.replace("+", " ")
        shown = full.replace("\x00", "")
        names = page.locator("#leaderboard .name").all_text_contents()
        row = page.locator("#leaderboard tbody tr").nth(names.index(shown))
        dialog = page.locator("#details")
        row.locator(".name").click()
        assert dialog.get_by_role("heading", level=2).text_content() == full
        page.keyboard.press("Escape")
        row.locator(".pick").check()
        page.get_by_label("Compare kd", exact=True).check()
        assert page.locator("#comparison-title").text_content() == f"Comparison: {full}, kd"
        assert page.locator("#comparison img, #comparison script, #comparison b").count() == 0
        row.locator("td button").click()
        assert name in dialog.locator("pre").first.text_content()
        assert dialog.locator("img, script, b, svg").count() == 0
        page.keyboard.press("Escape")
        page.get_by_label("Method", exact=True).fill(name.replace("\x00", ""))
        page.reload()
        assert page.locator("#comparison-title").text_content() == f"Comparison: {full}, kd"
        page.close()


def test_index_links_to_every_grid(open_page: Any, tmp_path: Path) -> None:
    for name, methods in (("one", ("kd", "at")), ("two", ("kd", "at", "sp"))):
        evidence = large_page.evidence(
            methods, (("vgg13", "vgg8"),), (0, 1), name=name, title=f"Grid {name}"
        )
        large_page.write(tmp_path, evidence)
    bad = tmp_path / "'><b>bad"
    bad.mkdir()
    (bad / "leaderboard.csv").write_text("nothing\n")
    path = tmp_path / "index.html"
    path.write_text(pages_of.index(tmp_path), encoding="utf-8")
    for width in (1280, 390):
        page = open_page(path, viewport={"width": width, "height": 800})
        page.screenshot(path=tmp_path / f"{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        titles = page.eval_on_selector_all("#grids h2", "all => all.map(x => x.textContent)")
        assert titles == ["'><b>bad", "Grid one", "Grid two"]
        page.get_by_label("Search").fill("grid two")
        assert page.locator("#count").text_content() == "1 of 3 grids"
        assert page.locator("#grids > li:visible").count() == 1
        page.get_by_role("link", name="Grid two").click()
        assert page.locator("h1").text_content() == "Grid two"
        page.get_by_role("link", name="All results").click()
        assert page.locator("h1").text_content() == "Results"
