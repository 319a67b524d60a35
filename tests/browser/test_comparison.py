"""Picking and comparing rows in a browser, and a method's details."""

import json
from pathlib import Path
from typing import Any

import large_page
import pytest

from kdbench.report import numbers
from kdbench.stats.aggregate import aggregate
from tests.browser.reading import expect

pytestmark = pytest.mark.browser
EVIDENCE = large_page.evidence()


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_page.write(tmp_path_factory.mktemp("results"), EVIDENCE)


def pick(page: Any, *names: str) -> None:
    for name in names:
        page.get_by_label(f"Compare {name}", exact=True).check()


def test_picked_rows_are_compared_and_the_url_keeps_them(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    comparison = page.locator("#comparison")
    pick(page, "semckd")
    assert not comparison.is_visible(), "one row has nothing to be compared with"
    assert page.locator("#picked").is_visible()
    pick(page, "kd", "at")
    for _ in range(2):
        assert page.locator("#comparison-title").text_content() == "Comparison: semckd, kd, at"
        assert comparison.locator("tbody th").all_text_contents()[:3] == [
            "semckd − kd", "semckd − at", "kd − at",
        ]  # fmt: skip
        assert comparison.locator(".curve").count() == len(large_page.PAIRS)
        first = comparison.locator(".curve").first
        assert [first.locator(f".line.k{i}").count() for i in range(4)] == [5, 5, 5, 0]
        assert page.locator(".pick:checked").count() == 3
        page.reload()
    comparison.get_by_label("second half only").uncheck()
    assert "epochs 1 to 240" in comparison.locator(".curve").first.get_attribute("aria-label")
    page.get_by_label("Compare kd", exact=True).uncheck()
    assert page.locator("#comparison-title").text_content() == "Comparison: semckd, at"
    page.get_by_role("button", name="Clear").click()
    assert not comparison.is_visible() and "#" not in page.url
    assert page.locator(".pick:checked").count() == 0


def test_differences_are_those_of_the_decision_in_both_orders(
    page_path: Path, open_page: Any
) -> None:
    decision = aggregate(EVIDENCE).decision
    rows = ["semckd", "kd", "student", "crd", "nst", "reviewkd"]
    page = open_page(page_path, "#" + "&".join(f"pick={row}" for row in rows))
    lines = page.locator("#comparison table").first.locator("tbody tr")
    found = {
        line.locator("th").text_content(): line.locator("td").all_text_contents()
        for line in lines.all()
    }
    assert len(found) == 15
    for i, row in enumerate(rows):
        for other in rows[i + 1 :]:
            over, p, *own = found[f"{row} − {other}"]
            contrast = decision.over.contrasts[row, other]
            expected = numbers.with_interval(contrast.diff, contrast.low, contrast.high)
            assert over == (expected if contrast.known else f"{expected}, no interval")
            assert p == numbers.p_value(contrast.p_adj)
            for text, one in zip(own, decision.pairs.values(), strict=True):
                c = one.contrasts.get((row, other))
                if c is None:
                    assert text == "–"
                elif c.known:
                    assert text == numbers.with_interval(c.diff, c.low, c.high)


def test_seeds_are_side_by_side(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, "#pick=kd&pick=crd")
    table = page.locator(".by-pair > div", has_text="vgg13 → vgg8").locator("table")
    assert table.locator("thead th").all_text_contents()[1:3] == ["mean ± sd", "seed 0"]
    crd = table.locator("tbody tr", has_text="crd").locator("td").all_text_contents()
    assert crd[1] == "diverged"
    assert all(float(text) > 50 for text in crd[2:])


def test_at_most_six_rows_are_picked(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    pick(page, *large_page.METHODS[:6])
    assert page.get_by_label("Compare crd", exact=True).is_disabled()
    assert page.locator("#picked").text_content().startswith("At most 6 picked")
    page.get_by_label("Compare kd", exact=True).uncheck()
    assert not page.get_by_label("Compare crd", exact=True).is_disabled()


def test_unknown_rows_in_the_url_are_ignored(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path, "#pick=none&pick=kd&pick=kd&pick=%3Cb%3E")
    assert page.locator(".pick:checked").count() == 1
    assert page.locator("#comparison").is_hidden()


def test_a_method_opens_with_paper_links_and_bibtex(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    page.get_by_role("button", name="crd", exact=True).click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading", level=2).text_content() == "crd"
    assert "row=crd" in page.url
    assert "Contrastive" in dialog.text_content()
    paper = dialog.get_by_role("link", name="paper")
    assert paper.get_attribute("href").startswith("https://")
    bibtex = dialog.locator("pre").text_content()
    assert bibtex.startswith("@")
    page.evaluate(
        """globalThis.copied = "", Object.defineProperty(navigator, "clipboard",
            { value: { writeText: async (text) => { copied = text; } } })"""
    )
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("copied") == bibtex
    page.reload()
    assert page.locator("#details-title").text_content() == "crd"
    # Without a clipboard the text is selected, to be copied by hand.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("button", name="Selected")).to_be_visible()
    assert page.evaluate("getSelection().toString()").strip() == bibtex.strip()
    dialog.get_by_role("button", name="vgg13 → vgg8").click()
    assert page.locator("#details-title").text_content() == "crd, vgg13 → vgg8"
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "#" not in url)


def test_only_web_addresses_become_links(page_path: Path, open_page: Any) -> None:
    page = open_page(page_path)
    for address in ("javascript:alert(1)", "data:text/html,<b>", "//example.org", " https://a"):
        tag = page.evaluate(f"link({json.dumps(address)}, 'code').tagName")
        assert tag == "SPAN", address
    assert page.evaluate("link('https://example.org/a', 'code').tagName") == "A"
