"""A block opened on the page by row, point, key and address: its contents and its drawing."""

from pathlib import Path
from typing import Any

import pytest
from page_reading import ROWS, blocks, count, focused
from samples import DW_PW, DW_RPW_RPW

from ifspace.block import Block
from ifspace.reach import channel_reach

pytestmark = pytest.mark.slow  # every test drives a browser


def test_a_row_opens_its_block_and_esc_closes_it(show: Any, small: Path) -> None:
    page = show(small)
    page.click(f"{ROWS}:has-text('{DW_RPW_RPW.block}') td:nth-child(3)")
    assert page.inner_text("#block-title") == str(DW_RPW_RPW.block)
    body = page.inner_text("#block-body")
    for words in (
        "272, 1/8.5 of the convolution's",
        "3×3×16",
        "class Unit(nn.Module)",
        "<b>&</b>",
        "peak memory",
        "forward+backward",
        "C ≤ s1·(w2 - 1) + w1",
        "g1 = 4",
    ):
        assert words in body, words
    page.keyboard.press("Escape")
    assert not page.is_visible("#block")
    assert focused(page) == str(DW_RPW_RPW.block)


def test_published_networks_stand_beside_a_block(show: Any, small: Path) -> None:
    page = show(small)
    page.click(f"{ROWS} button:has-text('bottleneck 1/4')")
    body = page.inner_text("#block-body")
    for words in ("Published networks of such blocks", "WRN-28-10", "+1.22 against 4 groups"):
        assert words in body, words
    page.keyboard.press("Escape")
    page.click(f"{ROWS} button:has-text('{DW_RPW_RPW.block}')")
    assert "No published network of such blocks" in page.inner_text("#block-body")


def test_the_drawing_traces_the_exact_field(show: Any, small: Path) -> None:
    page = show(small)
    page.click(f"{ROWS} button:has-text('bottleneck 1/4')")
    reach = channel_reach(Block.parse("GPW(4)+SH(4)+DW+GPW(4)").at(16, bottleneck="1/4").layers)
    for output in (0, 5, 15):
        page.fill("#output", str(output))
        seen = page.eval_on_selector_all(
            ".sight .dot", "each => each.slice(0, 16).map(dot => dot.classList.contains('seen'))"
        )
        assert sum(1 << n for n, dark in enumerate(seen) if dark) == reach[output]
        text = page.inner_text("output.sees")
        assert f"Output {output} sees" in text
        assert page.get_attribute(".sight", "aria-label").endswith(f"{text.lower()}.")
    page.click(".dot.choice >> nth=3")
    assert page.input_value("#output") == "3"


def test_the_source_is_copied(show: Any, small: Path) -> None:
    page = show(small, permissions=["clipboard-read", "clipboard-write"])
    page.click(f"{ROWS} button:has-text('{DW_RPW_RPW.block}')")
    page.click("text=Copy")
    page.wait_for_selector("text=Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("class Unit(nn.Module)")


def test_a_block_without_source_shows_a_call_of_build(show: Any, small: Path) -> None:
    page = show(small)
    page.select_option("#setting", "1")
    count(page)
    page.click(f"{ROWS} button")
    assert 'build("(PW+DW+PW)x2", 32, 64, bottleneck="1/4")' in page.inner_text("#block-body pre")
    assert "Not measured" in page.inner_text("#block-body")


def test_a_point_opens_its_blocks(show: Any, whole: Path) -> None:
    page = show(whole)
    page.wait_for_selector("#plane svg")
    marks = page.query_selector_all("#plane .mark-symbol.role-mark path")
    assert len(marks) > 20
    # The smallest marks are one block each; the largest stand for many.
    sizes = [mark.bounding_box()["width"] for mark in marks]
    marks[sizes.index(max(sizes))].click()
    assert page.inner_text("#block-title").endswith(" blocks")
    page.click("#block-body li button")
    assert "+" in page.inner_text("#block-title")
    assert page.is_visible(".sight")
    page.click("text=← all")
    assert page.inner_text("#block-title").endswith(" blocks")


@pytest.mark.parametrize("name", ["whole", "record"])
def test_all_of_it_works_by_keyboard(show: Any, request: pytest.FixtureRequest, name: str) -> None:
    page = show(request.getfixturevalue(name))
    page.wait_for_selector("#plane svg")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the catalogue"
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(focused(page))
        if reached[-1] == blocks(page)[0]:
            break
    assert {"text", "shown", "x-axis", "y-axis", "plane"} <= set(reached)
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    second = focused(page)
    assert second == blocks(page)[1]
    page.keyboard.press("Enter")
    assert page.inner_text("#block-title") == second
    assert focused(page) == "block-title"
    page.keyboard.press("Tab")
    assert focused(page) == "block-close"
    page.keyboard.press("Escape")
    assert focused(page) == second


def test_points_can_be_reached_by_keyboard(show: Any, small: Path) -> None:
    page = show(small)
    page.select_option("#x-axis", "layers")
    page.wait_for_selector("#plane .role-axis-title >> text=layers")
    page.focus("#plane")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#plane-said") == f"{DW_PW.block}: 2, 400"
    page.keyboard.press("End")
    assert page.inner_text("#plane-said") == f"{DW_RPW_RPW.block}: 3, 272"
    page.keyboard.press("Enter")
    assert page.inner_text("#block-title") == str(DW_RPW_RPW.block)
    page.keyboard.press("Escape")
    assert focused(page) == "plane"


def test_an_address_opens_its_block(show: Any, small: Path) -> None:
    page = show(small, place="#block=0:DW%2BPW")
    assert page.inner_text("#block-title") == "DW+PW"
    page.click("#block-close")
    assert "#" not in page.url


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("0:DW%2BPWxx", "There is no block DW+PWxx at 16 channels on this page."),
        ("7:DW%2BPW", "There is no block DW+PW on this page."),
        ("0:%E0%A4%A", "There is no block %E0%A4%A at 16 channels on this page."),
    ],
)
def test_an_address_without_a_block_is_named(
    show: Any, small: Path, place: str, message: str
) -> None:
    page = show(small, place=f"#block={place}")
    assert not page.is_visible("#block")
    assert count(page) == f"3 of 3 blocks, and 2 to compare with. {message}"
    page.fill("#text", "DW")
    assert "There is no" not in count(page)
    page.evaluate("location.hash = '#block=0:DW%2BPW'")
    page.wait_for_selector("#block[open]")
    page.evaluate(f"location.hash = '#block={place}'")
    page.wait_for_selector("#block:not([open])", state="hidden")
    assert message in page.inner_text("#count")
