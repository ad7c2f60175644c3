"""The page in a real browser: what is selected, compared and saved, and the address of it all."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from page_reading import ROWS, blocks, column, count

pytestmark = pytest.mark.slow  # every test drives a browser


def plane(page: Any, across: str) -> dict[str, float]:
    """Choose what is across, and return where the plane is once it is drawn."""
    page.select_option("#x-axis", across)
    page.wait_for_selector(f"#plane .role-axis-title >> text={across}")
    box: dict[str, float] = page.query_selector("#plane .role-frame .background").bounding_box()
    return box


def drag(page: Any, begin: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move(*end, steps=5)
    page.mouse.up()


def selected(page: Any) -> list[str]:
    texts: list[str] = page.eval_on_selector_all(
        f"{ROWS}.picked button", "each => each.map(one => one.textContent)"
    )
    return texts


def test_a_frame_in_the_plane_selects_the_rows(show: Any, whole: Path) -> None:
    page = show(whole)
    box = plane(page, "layers")
    # Layers go from 2 to 6: the left third of the plane has those of two and three.
    left, top, right = box["x"], box["y"], box["x"] + box["width"] / 3
    drag(page, (left + 2, top + 2), (right, top + box["height"] - 2))
    page.wait_for_selector("#selection:not([hidden])")
    assert set(column(page, 2)) == {"2", "3"}
    assert selected(page) == blocks(page)
    assert page.inner_text("#picked") == f"{len(blocks(page))} selected"
    assert page.is_disabled("#compare")
    page.uncheck("#only")
    assert len(blocks(page)) == 50
    page.click("#clear")
    assert not page.is_visible("#selection")
    assert selected(page) == []


def test_a_point_is_selected_by_keyboard(show: Any, small: Path) -> None:
    page = show(small)
    plane(page, "layers")
    page.focus("#plane")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert selected(page) == ["DW+PW"]
    page.keyboard.press("Space")
    assert selected(page) == []


def test_two_to_four_blocks_stand_side_by_side(show: Any, small: Path) -> None:
    page = show(small)
    names = blocks(page)
    for number in (1, 2):
        page.check(f"{ROWS} >> nth={number} >> input")
    page.click("#compare")
    assert page.inner_text("#block-title") == "2 blocks side by side"
    heads = page.eval_on_selector_all(".compare thead button", "e => e.map(x => x.textContent)")
    assert heads == names[1:3]
    rows = {
        cells[0]: cells[1:]
        for cells in page.eval_on_selector_all(
            ".compare tbody tr", "e => e.map(r => [...r.cells].map(c => c.textContent))"
        )
    }
    assert rows["parameters"] == column(page, 3)[1:3]
    assert rows["sees"] == ["3×3×16", "3×3×16"]
    differ = page.eval_on_selector_all(
        ".compare .differ th", "each => each.map(one => one.textContent)"
    )
    assert "parameters" in differ
    assert "sees" not in differ
    page.click(".compare thead button >> nth=0")
    assert page.inner_text("#block-title") == names[1]
    page.keyboard.press("Escape")
    for number in (0, 3, 4):
        page.check(f"{ROWS} >> nth={number} >> input")
    assert page.is_disabled("#compare"), "five are too many"


def saved(page: Any, button: str) -> str:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_text()


def test_what_is_listed_is_saved(show: Any, small: Path) -> None:
    page = show(small)
    page.fill("#text", "PW")
    count(page)
    page.click("[data-sort=layers]")
    rows = list(csv.DictReader(saved(page, "#save-csv").splitlines()))
    assert [row["block"] for row in rows] == blocks(page)
    assert [f"{int(row['params']):,}" for row in rows] == column(page, 3)
    assert {row["channels_seen"] for row in rows} <= {"16", "4"}
    time = next(name for name in rows[0] if name.startswith("forward, least ms: "))
    assert [f"{float(row[time]):.3f}" for row in rows if row[time]] == [
        text for text in column(page, 8) if text
    ]
    records = json.loads(saved(page, "#save-json"))
    assert [record["block"] for record in records] == blocks(page)
    assert list(records[0]) == list(rows[0])


def test_the_address_has_the_filters(show: Any, whole: Path, record: Path) -> None:
    page = show(whole)
    page.fill("#text", "RPW +GC")
    page.fill("[name=layers-high]", "4")
    page.uncheck("[value=SH]")
    page.select_option("#shown", "free")
    page.select_option("#x-axis", "acts")
    page.select_option("#shown", "all")
    counted = count(page)
    page.click("[data-sort=params]")
    rows = blocks(page)
    place = "#" + page.url.partition("#")[2]
    other = show(whole, place=place)
    assert count(other) == counted
    assert blocks(other) == rows
    assert other.input_value("#x-axis") == "acts"
    assert not other.is_checked("[value=SH]")
    assert other.url.endswith(place)
    other.click("[type=reset]")
    other.wait_for_function("!location.hash.includes('text')")


def test_whole_numbers_on_axes_of_counts(show: Any, small: Path) -> None:
    page = show(small)
    plane(page, "layers")
    ticks = page.eval_on_selector_all(
        "#plane .role-axis-label >> nth=0 >> text", "each => each.map(one => one.textContent)"
    )
    assert len(ticks) == len(set(ticks))
    assert all(tick.replace(",", "").isdigit() for tick in ticks)
    assert ticks


def test_parallel_coordinates_have_a_line_for_each_block(show: Any, whole: Path) -> None:
    page = show(whole)
    page.fill("[name=layers-high]", "3")
    count(page)
    page.click("details summary >> text=Parallel coordinates")
    page.wait_for_selector(".course")
    assert len(page.query_selector_all(".course")) == len(blocks(page))
    page.check(f"{ROWS} >> nth=0 >> input")
    place = page.get_attribute(f"{ROWS} >> nth=0", "data-place")
    assert page.get_attribute(".course.picked", "data-place") == place
    page.eval_on_selector(
        ".course.picked", "one => one.dispatchEvent(new MouseEvent('click', { bubbles: true }))"
    )
    assert page.inner_text("#block-title") == blocks(page)[0]
