"""The page in a real browser: opening, filters, order, charts, width, contrast.

A headless Chromium, driven over its DevTools protocol.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from page_reading import ROWS, blocks, column, count

from ifspace.catalogue import load

pytestmark = pytest.mark.slow  # every test drives a browser

RECORD = Path(__file__).resolve().parents[2] / "results" / "catalogue-64.parquet"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}


def test_the_whole_catalogue_opens(show: Any, record: Path) -> None:
    """How long that takes is measured by `make bench-page`."""
    page = show(record)
    page.wait_for_selector("#plane svg")
    assert count(page).startswith("1,103 of 1,103 blocks")
    assert len(blocks(page)) == 50  # the first ones


def test_all_charts_are_drawn(show: Any, small: Path) -> None:
    page = show(small)
    for place in page.query_selector_all("[data-chart]"):
        place.scroll_into_view_if_needed()
        place.wait_for_selector("svg")
    assert len(page.query_selector_all("[data-chart] svg")) == 5


def networks() -> int:
    """How many networks the catalogue of record has."""
    return len({design.network for design in load(RECORD).designs})


def test_text_kinds_and_ranges_filter(show: Any, whole: Path) -> None:
    page = show(whole)
    page.fill("#text", "mobilenet")
    assert count(page) == "1 of 1,103 blocks"
    assert blocks(page) == ["DW+PW"]
    page.fill("#text", "")
    page.fill("[name=layers-high]", "2")
    assert count(page) == "5 of 1,103 blocks"
    page.fill("[name=params-high]", "4672")
    page.uncheck("[value=RPW]")
    assert count(page) == "2 of 1,103 blocks"
    assert set(blocks(page)) == {"DW+PW", "PW+DW"}
    page.click("[type=reset]")
    assert count(page) == f"1,103 of 1,103 blocks: {networks()} networks"
    page.select_option("#shown", "published")
    assert count(page) == "3 of 1,103 blocks"


def test_columns_sort_both_ways(show: Any, whole: Path) -> None:
    page = show(whole)
    numbers = [int(text.replace(",", "")) for text in column(page, 3)]
    assert numbers == sorted(numbers)
    page.click("[data-sort=params]")
    down = [int(text.replace(",", "")) for text in column(page, 3)]
    assert down == sorted(down, reverse=True)
    assert down[0] == 5248
    assert page.get_attribute("th:has([data-sort=params])", "aria-sort") == "descending"
    page.click("[data-sort=block]")
    assert blocks(page) == sorted(blocks(page))
    assert page.get_attribute("th:has([data-sort=params])", "aria-sort") is None


def test_more_rows_on_demand(show: Any, whole: Path) -> None:
    page = show(whole)
    few = len(page.query_selector_all(ROWS))
    assert page.inner_text("#more") == f"Show {networks() - few:,} more"
    page.click("#more")
    assert len(page.query_selector_all(ROWS)) == networks()
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_a_network_has_one_row_and_every_one_on_demand(show: Any, whole: Path) -> None:
    page = show(whole)
    page.fill("#text", "GC(32)")
    page.fill("[name=layers-high]", "3")
    once = count(page)
    assert re.fullmatch(r"\d+ of 1,103 blocks: \d+ networks", once)
    rows, ways, few = blocks(page), column(page, 8), int(once.split(": ")[1].split()[0])
    assert (len(rows), rows.count("RPW(2,0)+GC(32)"), rows.count("GPW(2)+SH(2)+GC(32)")) == (
        few,
        1,
        0,
    )
    assert "more way" in ways[rows.index("RPW(2,0)+GC(32)")]
    page.check("[name=every]")
    assert count(page) == once.partition(":")[0]
    rows = blocks(page)
    assert len(rows) == int(once.split()[0])
    notes = column(page, 8)[rows.index("GPW(2)+SH(2)+GC(32)")]
    assert "same network as RPW(2,0)+GC(32)" in notes
    page.click(f"{ROWS} button:has-text('GPW(2)+SH(2)+GC(32)')")
    page.click("#block .link:has-text('RPW(2,0)+GC(32)')")
    assert page.inner_text("#block-title") == "RPW(2,0)+GC(32)"


def test_latency_filters_and_sorts(show: Any, small: Path) -> None:
    page = show(small)
    assert count(page) == "3 of 3 blocks, and 2 to compare with"
    times = [float(text) for text in column(page, 8)]
    assert len(times) == 5
    page.fill("[name=times-high]", "0.8")
    kept = [time for time in sorted(times) if time <= 0.8]
    assert 0 < len(kept) < len(times)
    count(page)
    page.click("[data-sort=time]")
    assert [float(text) for text in column(page, 8)] == kept
    page.select_option("#time", index=2)
    assert "predicted" in page.inner_text("#time option:checked")


def test_another_setting_has_other_blocks(show: Any, small: Path) -> None:
    page = show(small)
    page.select_option("#setting", "1")
    assert count(page) == "1 of 1 blocks"
    assert blocks(page) == ["(PW+DW+PW)x2"]
    assert not page.is_visible("#time"), "nothing was measured there"


def test_axes_can_be_chosen(show: Any, small: Path) -> None:
    page = show(small)
    page.wait_for_selector("#plane svg")
    page.select_option("#x-axis", "params")
    page.select_option("#y-axis", index=4)
    page.wait_for_selector("#plane svg >> text=CONV(3)")
    titles = page.eval_on_selector_all(
        "#plane .role-axis-title text", "each => each.map(one => one.textContent)"
    )
    assert titles[0] == "parameters"
    assert titles[1] == "forward, least ms"
    where = page.text_content("#plane .role-title")
    assert where == "8 × 16 × 28², fp32, nchw, 2 threads on cpu-test"


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "400"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_edge(show: Any, small: Path, size, scheme: str) -> None:
    page = show(small, size, color_scheme=scheme)
    page.wait_for_selector("#plane svg")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click(f"{ROWS} button")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.query_selector("#block").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]


def texts_over_the_edge(page: Any) -> list[str]:
    """Return the texts of all charts that reach past the chart; all of them are drawn."""
    for place in page.query_selector_all("[data-chart]"):
        place.scroll_into_view_if_needed()
        place.wait_for_selector("svg")
    return page.evaluate(
        """() => [...document.querySelectorAll("svg text")].filter((text) => {
          const [inner, outer] = [text, text.ownerSVGElement].map((e) => e.getBoundingClientRect());
          return inner.width && text.checkVisibility({ checkOpacity: true })
            && (inner.left < outer.left - 1 || inner.right > outer.right + 1);
        }).map((text) => text.textContent)"""
    )


def test_texts_of_charts_stay_within_them(show: Any, record: Path) -> None:
    page = show(record, NARROW)
    page.wait_for_selector("#plane svg")
    assert texts_over_the_edge(page) == []


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "400"])
@pytest.mark.parametrize("across", ["params", "layers"])
def test_labels_of_points_overlap_neither_labels_nor_points(
    show: Any, record: Path, size: dict[str, int], across: str
) -> None:
    page = show(record, size)
    page.select_option("#x-axis", across)
    page.select_option("#y-axis", "acts")
    page.wait_for_selector("#plane svg .mark-text.role-mark text", state="attached")
    boxes = page.evaluate(
        """() => ["#plane svg .mark-text.role-mark text", "#plane svg .points_marks path"].map(
          (which) => [...document.querySelectorAll(which)]
            .filter((mark) => mark.textContent || mark.tagName === "path")
            .filter((mark) => mark.checkVisibility({ checkOpacity: true }))
            .map((mark) => mark.getBoundingClientRect())
            .map(({ left, right, top, bottom }) => [left, right, top, bottom]))"""
    )
    labels, points = boxes
    assert labels
    assert points
    for number, label in enumerate(labels):
        for other in labels[:number] + points:
            across_both = min(label[1], other[1]) - max(label[0], other[0])
            down_both = min(label[3], other[3]) - max(label[2], other[2])
            assert across_both < 2 or down_both < 4  # the box of a text is higher than its letters


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(show: Any, small: Path, scheme: str) -> None:
    """Text has a contrast of 4.5 to 1 and more, as WCAG 2 asks for."""
    page = show(small, color_scheme=scheme)
    colours = page.evaluate(
        """() => Object.fromEntries(["--paper", "--card", "--ink", "--faint", "--accent",
        "--second", "--third"].map(name => [name, getComputedStyle(document.documentElement)
        .getPropertyValue(name).trim()]))"""
    )
    for ground in ("--paper", "--card"):
        for text in ("--ink", "--faint", "--accent"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for mark in ("--second", "--third"):
        assert contrast(colours[mark], colours["--paper"]) >= 3


def contrast(one: str, other: str) -> float:
    lights = sorted(map(luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
