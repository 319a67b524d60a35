"""The first picture: its place, hover, keys, click, and print."""

from pathlib import Path
from typing import Any

import large_page
import pytest

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evidence = large_page.evidence(
        large_page.METHODS, (("vgg13", "vgg8"), ("wrn_40_2", "ShuffleV1")), (0, 1, 2)
    )
    figure = "<svg xmlns='http://www.w3.org/2000/svg' width='300pt' height='600pt'/>"
    return large_page.write(
        tmp_path_factory.mktemp("results"), evidence, plots=lambda: {"One": figure, "Two": figure}
    )


def test_picture_and_answers_are_the_first_screen(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, viewport={"width": 1280, "height": 800})
    picture = page.locator("svg.hero").bounding_box()
    answers = page.locator(".answers").bounding_box()
    assert picture["y"] < 200 and picture["y"] + picture["height"] < 800
    assert answers["y"] < 200 and answers["x"] > picture["x"] + picture["width"]
    page = open_page(page_path, viewport={"width": 390, "height": 844})
    picture = page.locator("svg.hero").bounding_box()
    assert picture["y"] < 300 and picture["width"] <= 390
    assert page.locator(".answers").bounding_box()["y"] > picture["y"] + picture["height"]


@pytest.mark.parametrize("width", [390, 700, 900, 1210, 1280, 1600])
def test_texts_do_not_overlap_the_plot(page_path: Path, open_page: Any, width: int) -> None:
    page = open_page(page_path, viewport={"width": width, "height": 844})
    row = page.locator("svg.hero a", has=page.locator(".direction", has_text="▲")).first
    plot = row.evaluate(
        """(a) => {
            const plot = a.querySelector(".plot");
            const start = a.querySelector(".name").getBoundingClientRect().left - 18;
            const left = start + plot.x.baseVal.value;
            return [left, left + plot.width.baseVal.value];
        }"""
    )
    assert row.locator(".name").bounding_box()["x"] < plot[0]
    box = row.locator(".direction").bounding_box()
    assert box["x"] >= plot[1] - 1
    assert box["x"] + box["width"] <= row.locator(".value").bounding_box()["x"] + 1


def test_numbers_are_shown_on_hover_and_focus(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    tip = page.locator(".tip")
    assert tip.is_hidden()
    page.locator("svg.hero a").nth(3).hover()
    name = page.locator("svg.hero a .name").nth(3).text_content()
    text = tip.text_content()
    assert text.startswith(f"{name}\n") and "points over kd" in text and "rank" in text
    page.mouse.move(5, 5)
    assert tip.is_hidden()
    page.locator("svg.hero a").first.focus()
    page.keyboard.press("ArrowDown")
    second = page.locator("svg.hero a .name").nth(1).text_content()
    assert tip.text_content().startswith(second)
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.keyboard.press("End")
    last = page.locator("svg.hero a .name").last.text_content()
    assert tip.text_content().startswith(last)
    stops = page.eval_on_selector_all("svg.hero a", "all => all.map(x => x.tabIndex)")
    assert stops.count(0) == 1 and stops[-1] == 0


def test_click_and_enter_open_the_details(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    name = page.locator("svg.hero a .name").nth(2).text_content()
    page.locator("svg.hero a").nth(2).click()
    assert page.locator("#details-title").text_content().startswith(name)
    page.keyboard.press("Escape")
    page.locator("svg.hero a").first.focus()
    page.keyboard.press("Enter")
    first = page.locator("svg.hero a .name").first.text_content()
    assert page.locator("#details-title").text_content().startswith(first)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.closest('svg') !== null")


def test_print_leaves_out_what_only_a_screen_can_use(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, viewport={"width": 720, "height": 1000})
    page.emulate_media(media="print")
    assert page.locator("svg.hero").is_visible() and page.locator("#leaderboard").is_visible()
    for part in ("#filters", "#theme", "#details", "#further", ".tip"):
        assert not page.locator(part).first.is_visible(), part
    kept = "(x) => [getComputedStyle(x).breakInside, getComputedStyle(x).breakAfter]"
    assert page.locator("figure").last.evaluate(kept)[0] == "avoid"
    assert page.locator("h2").first.evaluate(kept)[1] == "avoid"
