"""What a page shows in a browser."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page


def methods(page: "Page") -> list[str]:
    """List the visible methods, without teacher and student."""
    return page.eval_on_selector_all(
        "#leaderboard tbody tr:not([hidden], .base) .name", "all => all.map(x => x.textContent)"
    )


def pairs(page: "Page") -> int:
    """Count the visible pairs."""
    return page.locator("#leaderboard thead th[data-pair]:not([hidden])").count()


def values(page: "Page", column: int) -> list[str]:
    """List the sort keys of a column, from top to bottom."""
    return page.eval_on_selector_all(
        "#leaderboard tbody tr", f"all => all.map(x => x.cells[{column}].dataset.v)"
    )


def expect(locator: Any) -> Any:
    """Return Playwright's assertions, which wait until they hold."""
    from playwright.sync_api import expect as waiting

    return waiting(locator)
