"""The page in a browser: dialog, keys, colours, narrow screens."""

from pathlib import Path
from typing import Any

import large_page
import pytest

from kdbench.grid.settings import Protocol
from kdbench.report.page import curve_data
from kdbench.report.plots import pictures
from tests.browser.contrast import CONTRAST
from tests.browser.reading import expect, methods

pytestmark = pytest.mark.browser
AA = 4.5


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evidence = large_page.evidence()
    figure = pictures.svg(
        pictures.accuracy(evidence.grid.title, evidence.cells, evidence.records)
    ).decode()
    return large_page.write(
        tmp_path_factory.mktemp("results"),
        evidence,
        plots=lambda: {"Every seed": figure, "Again": figure},
        command=lambda run: f"kdbench train --student {run.student} --seed {run.seed}",
    )


def test_details_open_and_close_by_keyboard(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    cell = page.locator("#leaderboard tr", has_text="semckd").locator("td button").first
    cell.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading", level=2).text_content() == "semckd, resnet32x4 → resnet8x4"
    text = dialog.text_content()
    for wanted in (
        "5 of 5 seeds done", "last epoch, mean ± sd", "Difference to kd", "Training time / kd",
        "torch 2.9.0", "kdbench train --student resnet8x4 --seed 0", "2 · semckd(p=2)",
        "One line per seed; dashed: kd.",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert dialog.locator(".curve .line").count() == 10
    assert "cell=" in page.url
    dialog.get_by_label("second half only", exact=True).check()
    assert "epochs 120 to 240" in dialog.locator(".curve").get_attribute("aria-label")
    page.keyboard.press("Escape")
    assert not page.locator("#details").is_visible()
    assert "cell=" not in page.url
    assert page.evaluate("document.activeElement.dataset.c") == cell.get_attribute("data-c")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    below = methods(page)[methods(page).index("semckd") + 1]
    assert page.locator("#details-title").text_content() == f"{below}, resnet56 → resnet20"
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#details").is_visible()


def test_link_to_a_cell_opens_its_details(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, "#family=relation&cell=5")
    assert page.locator("#details").is_visible()
    assert page.locator("#details-title").text_content() == "sp, resnet32x4 → resnet8x4"
    assert sorted(methods(page)) == ["cc", "pkt", "rkd", "sp"]
    page.evaluate("location.hash = '#cell=99999&family=none&sort=col99'")
    expect(page.locator("#details")).to_be_hidden()
    assert len(methods(page)) == 15


def test_details_of_every_cell_open(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    count = page.evaluate("data.cells.length")
    assert count == 17 * 13
    lengths = page.evaluate(
        "data.cells.map((_, i) => { openCell(i); return $('#details-body').textContent.length; })"
    )
    assert min(lengths) > 100


def test_map_opens_the_details_with_the_reason(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    page.get_by_role("button", name="nst, resnet32x4 → ShuffleV1: failed").click()
    assert "OutOfMemoryError: 64 GiB are not there" in page.locator("#details").text_content()
    assert page.locator("#details .curve").count() == 1


def test_curves_end_near_the_recorded_accuracies(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    gaps = page.evaluate(
        """Object.keys(data.curves).map((id) => {
            const run = data.cells.flatMap((c) => c.runs).find((r) => r[1] === id);
            const all = points(id), last = all.at(-1);
            return [all.length, all[0][0], last[0], Math.abs(last[1] - run[3])];
        })"""
    )
    assert len(gaps) > 900
    assert all(gap[:3] == [240, 1, 240] for gap in gaps)
    # The synthetic curves end near their accuracies, not exactly at them.
    assert sum(gap[3] < 0.5 for gap in gaps) > 850


def test_thinned_curves_keep_their_epochs(open_page: Any, tmp_path: Path) -> None:
    long = Protocol(name="crd", epochs=500)
    evidence = large_page.evidence(
        ("kd",), (("vgg13", "vgg8"),), (0,), protocol=long, only_finished=True
    )
    page = open_page(large_page.write(tmp_path, evidence))
    epochs = [
        epoch for epoch, _ in curve_data.thin([(e, 0.0) for e in range(1, 501)], curve_data.POINTS)
    ]
    drawn = page.evaluate("Object.keys(data.curves).map((id) => points(id).map(([e]) => e))")
    assert drawn == [epochs] * 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_width_and_has_enough_contrast(
    page_path: Path, open_page: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    page = open_page(page_path, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert min(page.evaluate(CONTRAST, "body"), key=lambda entry: entry[0])[0] >= AA
    page.locator("#leaderboard button[data-c]").nth(40).click()
    page.screenshot(path=tmp_path / f"{width}-{scheme}-dialog.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        page.evaluate("(d => d.scrollWidth - d.clientWidth)(document.querySelector('#details'))")
        == 0
    )
    assert min(page.evaluate(CONTRAST, "#details"), key=lambda entry: entry[0])[0] >= AA


def test_chosen_colours_are_kept_after_a_reload(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, color_scheme="light")
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(paper)
    button = page.locator("#theme")
    button.click()
    assert (page.evaluate(paper), button.text_content()) == (light, "Colours: light")
    button.click()
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert (page.evaluate(paper), button.text_content()) == (dark, "Colours: dark")


def test_page_without_scripts_shows_a_plain_table(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, java_script_enabled=False)
    assert page.locator("#leaderboard tbody tr").count() == 17
    assert page.get_by_text("Without JavaScript").is_visible()
    assert not page.locator("#filters").is_visible()
    assert not page.locator("#theme").is_visible()
    assert "semckd: the highest mean" in page.locator("main").inner_text()
    assert page.locator("svg.hero a").count() == 15
    assert "points over kd" in page.locator("svg.hero a title").first.text_content()


def test_keyboard_skips_to_the_table_and_focus_is_visible(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the table"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    for _ in range(30):
        page.keyboard.press("Tab")
        assert page.evaluate(outline) != "none", page.evaluate("document.activeElement.outerHTML")


def test_figures_are_separate_images(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    widths = page.eval_on_selector_all("figure img", "all => all.map(x => x.naturalWidth)")
    assert len(widths) == 2 and min(widths) > 300
    assert page.locator("#figures ~ figure svg").count() == 0
