"""Read texts of the page in a browser."""

from typing import Any

Page = Any
ROWS = "#designs tbody tr"


def count(page: Page) -> str:
    """Return the text that counts the blocks shown, once the table is complete."""
    page.wait_for_selector("#designs[aria-busy=false]", state="attached")
    text: str = page.inner_text("#count")
    return text


def blocks(page: Page) -> list[str]:
    texts: list[str] = page.eval_on_selector_all(
        f"{ROWS} button", "each => each.map(one => one.textContent)"
    )
    return texts


def column(page: Page, number: int) -> list[str]:
    texts: list[str] = page.eval_on_selector_all(
        f"{ROWS} > :nth-child({number})", "each => each.map(one => one.textContent)"
    )
    return texts


def focused(page: Page) -> str:
    text: str = page.evaluate("document.activeElement.id || document.activeElement.textContent")
    return text
