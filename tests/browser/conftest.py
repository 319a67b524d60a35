"""A headless Chromium whose pages must not use the network or log any message."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import TOOLS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, TOOLS["browser"])), None)
    assert executable, f"needs one of {', '.join(TOOLS['browser'])}"
    # Chromium's sandbox does not start as root in a container.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Open]:
    """Return a function that opens a file; fail if a page sends a request or logs a message."""
    contexts, problems = [], []

    def opened(path: Path, hash_: str = "", **options: Any) -> "Page":
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: _note(request.url, problems))
        page.goto(f"{path.as_uri()}{hash_}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def _note(url: str, problems: list[str]) -> None:
    if not url.startswith(("file:", "data:")):
        problems.append(f"request: {url}")
