"""Accessibility of the pages, checked by axe-core."""

from importlib import resources, util
from pathlib import Path
from typing import Any

import large_page
import pytest
from required_tools import required

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        util.find_spec("axe_playwright_python") is None and not required("browser"),
        reason="needs axe-playwright-python (pip install -e '.[dev]'); KDBENCH_REQUIRE=browser "
        "makes that a failure",
    ),
]
SMALL: dict[str, Any] = {
    "methods": ("kd", "at", "semckd", "fsp", "crd", "reviewkd"),
    "pairs": (("vgg13", "vgg8"), ("wrn_40_2", "ShuffleV1")),
}


@pytest.fixture(scope="module")
def axe() -> str:
    """The text of axe-core, which comes with the package, so that no network is needed."""
    package = resources.files("axe_playwright_python")
    return package.joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_page.write(
        tmp_path_factory.mktemp("results"),
        large_page.evidence(**SMALL),
        plots=lambda: {"A plot": "<svg xmlns='http://www.w3.org/2000/svg' width='9pt'/>"},
        command=lambda run: f"kdbench train --seed {run.seed} " + "--option value " * 20,
    )


def violations(page: Any, axe: str) -> list[str]:
    """Return rule, element and explanation of each violation on a page."""
    page.evaluate(f"{axe}; 0")
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [f"{v['id']}: {node['target']}: {v['help']}" for v in found for node in v["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_and_details(
    page_path: Path, open_page: Any, axe: str, width: int, scheme: str
) -> None:
    page = open_page(page_path, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.eval_on_selector_all("details", "all => all.forEach((x) => { x.open = true; })")
    assert violations(page, axe) == []
    page.locator("svg.hero a").first.click()
    assert page.locator("#details").is_visible()
    assert violations(page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_index(page_path: Path, open_page: Any, axe: str, width: int, scheme: str) -> None:
    index = page_path.parents[1] / "index.html"
    page = open_page(index, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert violations(page, axe) == []
