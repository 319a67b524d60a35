"""A headless Chromium that must not reach the network and must have nothing to complain about."""

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

    found = next(filter(None, map(shutil.which, TOOLS["browser"])), None)
    assert found, f"none of {', '.join(TOOLS['browser'])} is there"
    # As root, in a container, Chromium's own sandbox does not start.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Open]:
    """Opens a file; at the end of the test nothing may have been requested or complained about."""
    contexts, troubles = [], []

    def opened(path: Path, hash_: str = "", **options: Any) -> "Page":
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: troubles.append(f"console: {message.text}"))
        shown.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        shown.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
        shown.on("request", lambda request: _note(request.url, troubles))
        shown.goto(f"{path.as_uri()}{hash_}")
        return shown

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def _note(url: str, troubles: list[str]) -> None:
    if not url.startswith(("file:", "data:")):
        troubles.append(f"request: {url}")
