"""What the tests of the page read from it in a browser."""

from typing import Any

Page = Any
ROWS = "#designs tbody tr"


def count(page: Page) -> str:
    """Return what is said of how many blocks are shown, once the table has settled."""
    page.wait_for_selector("#designs[aria-busy=false]", state="attached")
    text: str = page.inner_text("#count")
    return text


def blocks(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{ROWS} button", "each => each.map(one => one.textContent)"
    )
    return found


def column(page: Page, number: int) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{ROWS} > :nth-child({number})", "each => each.map(one => one.textContent)"
    )
    return found


def focused(page: Page) -> str:
    found: str = page.evaluate("document.activeElement.id || document.activeElement.textContent")
    return found
