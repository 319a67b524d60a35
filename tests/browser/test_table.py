"""The main table in a browser: sorting, filters, sticky head and column, row height."""

from pathlib import Path
from typing import Any

import large_page
import pytest

from kdbench.report.page import html
from tests.browser.reading import expect, methods, pairs, values

pytestmark = pytest.mark.browser
RELATION = ["cc", "pkt", "rkd", "sp"]
FIRST_PAIR = 6
"""Index of the first pair's column."""


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_page.write(tmp_path_factory.mktemp("results"), large_page.evidence())


def means(keys: list[str]) -> list[float]:
    return [float(key) for key in keys if key]


def test_rows_are_sorted_by_mean_also_without_scripts(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, java_script_enabled=False)
    keys = page.eval_on_selector_all(
        "#leaderboard tbody tr", "all => all.map(x => x.cells[1].dataset.v)"
    )
    known = means(keys)
    assert known == sorted(known, reverse=True) and len(known) > 10
    assert "" not in keys[: len(known)], "rows without a mean come last"
    names = page.locator("#leaderboard .name")
    assert {"teacher", "student"} <= set(names.all_text_contents())


def test_every_head_sorts_anywhere_and_the_url_keeps_the_order(
    page_path: Path, open_page: Any
) -> None:
    page = open_page(page_path)
    own = methods(page)
    heads = page.locator("#leaderboard thead th")
    assert heads.count() == FIRST_PAIR + len(large_page.PAIRS) + 2
    assert heads.nth(1).get_attribute("aria-sort") == "descending"
    for i in (0, 2, 3, 4, 5, FIRST_PAIR, heads.count() - 1):
        number = heads.nth(i).get_attribute("data-kind") == "number"
        first = heads.nth(i).get_attribute("data-first")
        for up in (True, False) if first == "up" else (False, True):
            # The head's corner, away from its button.
            box = heads.nth(i).evaluate("x => [x.clientWidth, x.clientHeight]")
            heads.nth(i).click(position={"x": box[0] - 2, "y": box[1] - 2})
            assert heads.nth(i).get_attribute("aria-sort") == ("ascending" if up else "descending")
            keys = values(page, i)
            known = [key for key in keys if key]
            assert keys[: len(known)] == known, "unknown values come last"
            sortable: list[Any] = [float(k) if number else k.lower() for k in known]
            assert sortable == sorted(sortable, reverse=not up)
        heads.nth(i).locator("button").press("Enter")
        assert methods(page) == own
        assert heads.nth(i).get_attribute("aria-sort") == "none"
        assert heads.nth(1).get_attribute("aria-sort") == "descending"
    heads.nth(1).locator("button").press("Space")
    assert heads.nth(1).get_attribute("aria-sort") == "ascending"
    assert "sort=col1" in page.url
    page.reload()
    numbers = means(values(page, 1))
    assert numbers == sorted(numbers)
    assert page.locator("#leaderboard thead [aria-sort=ascending]").count() == 1


def test_search_takes_alternatives(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    search = page.get_by_label("Method", exact=True)
    search.fill("KD")
    assert sorted(methods(page)) == ["dkd", "kd", "reviewkd", "rkd", "semckd"]
    search.fill(" vid | Sp|")
    assert sorted(methods(page)) == ["fsp", "sp", "vid"]
    assert "q=vid" in page.url
    page.reload()
    assert sorted(methods(page)) == ["fsp", "sp", "vid"]
    search.fill("|")
    assert len(methods(page)) == 15
    search.fill("nothing like it")
    assert methods(page) == []
    expect(page.locator("#count")).to_have_text("0 of 15 methods, 13 of 13 pairs")


def test_filters_are_kept_in_the_url(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    page.get_by_label("Family", exact=True).select_option("relation")
    assert sorted(methods(page)) == RELATION
    page.get_by_label("Architectures", exact=True).select_option("cross")
    assert pairs(page) == 6
    assert page.locator("#count").text_content() == "4 of 15 methods, 6 of 13 pairs"
    page.reload()
    assert (sorted(methods(page)), pairs(page)) == (RELATION, 6)
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#count")).to_have_text("15 of 15 methods, 13 of 13 pairs")
    assert "#" not in page.url
    assert (len(methods(page)), pairs(page)) == (15, 13)
    page.get_by_label("Pair", exact=True).select_option("resnet56 → resnet20")
    assert pairs(page) == 1
    page.get_by_label("Minimum seeds", exact=True).fill("4")
    assert set(large_page.METHODS) - set(methods(page)) == {"fsp", "reviewkd"}
    page.get_by_label("Minimum seeds", exact=True).fill("3")
    assert set(large_page.METHODS) - set(methods(page)) == {"fsp"}
    page.get_by_label("only those that may be the best", exact=True).check()
    assert methods(page) == ["semckd"]
    assert page.get_by_label("Data", exact=True).count() == 0, "there is one data set"


@pytest.mark.parametrize("width", [1280, 390])
def test_head_and_first_column_stay_in_view(page_path: Path, open_page: Any, width: int) -> None:
    page = open_page(page_path, viewport={"width": width, "height": 600})
    row = page.locator("#leaderboard tbody tr").nth(14)
    row.evaluate("x => scrollTo(0, scrollY + x.getBoundingClientRect().top - 200)")
    page.locator("#table-scroll").evaluate("x => { x.scrollLeft = 700; }")
    pinned = page.locator("#pinned > div")
    expect(pinned).to_be_visible()
    expect(pinned).to_have_js_property("scrollLeft", 700)
    seen = page.evaluate(
        """() => {
            const at = (x, y) => document.elementFromPoint(x, y);
            const rows = [...document.querySelectorAll('#leaderboard tbody tr')];
            const right = document.querySelector('#table-scroll').getBoundingClientRect().right;
            const copies = [...document.querySelectorAll('#pinned th')];
            const cells = [...rows[14].cells].map((cell, i) => [cell.getBoundingClientRect(),
                copies[i].getBoundingClientRect(), copies[i].textContent]);
            const names = cells[0][0];
            return {
                corner: at(names.left + 20, 12).closest('th')?.cellIndex,
                top: at(right - 20, 12).closest('#pinned th') !== null,
                name: at(names.left + 40, names.top + 15).closest('th')?.dataset.v,
                own: rows[14].cells[0].dataset.v,
                gaps: cells.map(([cell, head]) => Math.abs(cell.left - head.left)),
                labels: cells.map(([, , text]) => text),
                page: document.documentElement.scrollWidth,
            };
        }"""
    )
    assert (seen["corner"], seen["top"], seen["name"]) == (0, True, seen["own"])
    assert max(seen["gaps"]) < 1, "the head stands above its columns"
    assert seen["labels"] == page.locator("#leaderboard thead th").all_text_contents()
    assert seen["page"] <= width
    page.locator("#pinned th").nth(FIRST_PAIR + 3).click()
    head = page.locator("#leaderboard thead th").nth(FIRST_PAIR + 3)
    assert head.get_attribute("aria-sort") == "descending"
    copy = page.locator("#pinned th").nth(FIRST_PAIR + 3)
    assert copy.get_attribute("aria-sort") == "descending"
    page.evaluate("scrollTo(0, 0)")
    expect(pinned).to_be_hidden()


def test_table_has_no_vertical_scrollbar_and_its_rows_are_compact(
    page_path: Path, open_page: Any
) -> None:
    page = open_page(page_path)
    box = "(x => x.scrollHeight - x.clientHeight)(document.querySelector('#table-scroll'))"
    assert page.evaluate(box) <= 0
    heights = page.eval_on_selector_all(
        "#leaderboard tbody tr", "all => all.map(x => x.getBoundingClientRect().height)"
    )
    assert max(heights) <= 36
    wide = page.eval_on_selector_all(
        "#leaderboard tbody :is(td, th)",
        "all => all.filter(x => !x.hidden && x.scrollWidth > x.clientWidth).map(x => x.innerText)",
    )
    assert wide == [], "every cell has room for its content"


def test_pointer_and_focus_show_what_a_cell_leaves_out(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    button = page.locator("#leaderboard tbody tr", has_text="semckd").locator("[data-c]").first
    button.hover()
    hint = page.locator(".hint")
    expect(hint).to_be_visible()
    assert hint.text_content() == button.locator(".more").text_content()
    assert "±" in hint.text_content() and "[" in hint.text_content()
    page.keyboard.press("Escape")
    expect(hint).to_be_hidden()
    button.focus()
    expect(hint).to_be_visible()


def test_page_of_too_many_cells_sorts_and_filters_without_details(
    open_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "CELLS", 10)
    page = open_page(
        large_page.write(tmp_path, large_page.evidence()), "#family=relation&cell=5&pick=kd"
    )
    assert sorted(methods(page)) == RELATION
    page.locator("#leaderboard thead th").nth(FIRST_PAIR).locator("button").click()
    keys = values(page, FIRST_PAIR)
    assert keys == sorted(keys, key=lambda v: -float(v or 0))
    for table in ("#leaderboard", ".map"):
        assert page.locator(f"{table} tbody button").count() == 0
        page.locator(f"{table} tbody td:visible").last.click()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#details")).to_be_hidden()
    assert page.locator(".pick").count() == 0
    assert page.get_by_text("too many cells").get_by_role("link").get_attribute("href") == (
        "leaderboard.csv"
    )
