"""The page in a real browser: the times of each block, and the text where there are none."""

from pathlib import Path
from typing import Any

import pytest
from page_reading import ROWS, blocks, column, count

from ifspace.report.measured import by_condition
from ifspace.report.read import Results

pytestmark = pytest.mark.slow  # every test drives a browser

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def test_the_least_time_is_offered_first(show: Any, small: Path) -> None:
    page = show(small)
    count(page)
    texts = page.eval_on_selector_all("#time option", "each => each.map(one => one.textContent)")
    first = [text.partition(":")[0] for text in texts]
    assert first[:3] == ["forward, least ms", "forward, median ms", "forward, predicted ms"]
    times = dict(zip(blocks(page), column(page, 8), strict=True))
    assert times["CONV"] == "0.851"
    # The header says which milliseconds, and the axis has them.
    assert page.inner_text("[data-sort=time]") == "forward, least ms"
    assert page.inner_text("#x-axis option:checked") == texts[0]


def test_a_block_short_of_the_field_is_marked_and_not_on_the_line(show: Any, small: Path) -> None:
    # At 16 channels the ShuffleNet unit sees 4: it has the fewest parameters and the least time.
    page = show(small)
    page.wait_for_selector("#plane svg")
    notes = dict(zip(blocks(page), column(page, 9), strict=True))
    assert notes["GPW(4)+SH(4)+DW+GPW(4), bottleneck 1/4"].endswith("; sees only 3×3×4")
    line = page.evaluate("document.querySelector('#plane').view.data('front')")
    least = min(int(text.replace(",", "")) for text in column(page, 3))
    assert line
    assert all(point["y"] > least for point in line)


def test_the_filter_for_measured_blocks_leaves_out_predictions(
    show: Any, record: Path, recorded: Results
) -> None:
    page = show(record)
    rows = by_condition(recorded.blocks[0].rows)
    timed = {name for block in rows.values() for name, row in block.items() if "time" in row}
    page.select_option("#shown", "measured")
    assert " to compare with" in count(page)
    if page.is_visible("#more"):
        page.click("#more")
    assert set(blocks(page)) == timed


def test_feature_maps_are_measured_and_sequences_are_not(show: Any, placed: Path) -> None:
    page = show(placed)
    assert count(page) == "1 of 1 blocks, and 2 to compare with"
    page.select_option("#setting", "1")
    assert count(page) == "1 of 1 blocks"
    assert not page.is_visible("#time"), "the times are of maps"
    page.click(f"{ROWS} button")
    assert "Not measured" in page.inner_text("#block-body")


def test_a_block_with_a_width_inside_has_its_own_times(show: Any, placed: Path) -> None:
    page = show(placed)
    page.select_option("#setting", "2")
    count(page)
    times = dict(zip(blocks(page), column(page, 8), strict=True))
    assert float(times["PW+DW+PW"]) > 0
    page.select_option("#shown", "measured")
    assert count(page).startswith("1 of 1 blocks")
    page.click(f"{ROWS} button:has-text('PW+DW+PW')")
    assert page.url.endswith(
        "#setting=2&shown=measured&block=2:PW%2BDW%2BPW%2C%20bottleneck%201%2F4"
    )
    body = page.inner_text("#block-body")
    assert "least time" in body
    assert "class Unit" in body


def test_a_text_replaces_the_table_where_no_block_fits(show: Any, small: Path) -> None:
    page = show(small)
    count(page)
    assert not page.is_visible("#none")
    page.fill("[name=params-low]", "5000")
    page.fill("[name=params-high]", "2000")
    assert count(page) == "0 of 3 blocks"
    assert page.is_visible("#none")
    assert page.inner_text("#none") == "No block fits these filters."
    assert not page.is_visible("#designs thead")
    page.click("[type=reset]")
    assert count(page).startswith("3 of 3")
    assert page.is_visible("#designs thead")


def test_the_caption_explains_dominated(show: Any, small: Path) -> None:
    caption = show(small).inner_text("#catalogue figcaption")
    assert "no more parameters, MACs, activations and layers, and fewer of one" in caption
    assert "time is not part of it" in caption


def test_paper_gets_all_charts(show: Any, small: Path) -> None:
    page = show(small)
    page.wait_for_selector("#plane svg")
    every = len(page.query_selector_all("[data-chart]"))
    assert len(page.query_selector_all("[data-chart] svg")) < every
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(f"document.querySelectorAll('[data-chart] svg').length === {every}")


@pytest.mark.parametrize("name", ["small", "record"])
def test_the_first_numbers_stand_beside_a_block_on_a_telephone(
    show: Any, request: pytest.FixtureRequest, name: str
) -> None:
    page = show(request.getfixturevalue(name), NARROW)
    count(page)
    # layers, params and × CONV; params and the least time
    for table, last in (("#designs", 3), ("#blocks table", 2)):
        ends = page.eval_on_selector(
            table,
            "(table, last) => [...table.rows].map("
            "row => row.cells[last].getBoundingClientRect().right)",
            last,
        )
        assert max(ends) <= NARROW["width"], table


def test_the_table_of_times_is_whole_on_a_screen(show: Any, record: Path) -> None:
    page = show(record, WIDE)
    widths = page.eval_on_selector_all(
        "#blocks .static", "each => each.map(one => [one.scrollWidth, one.clientWidth])"
    )
    assert len(widths) > 1
    assert all(inner <= outer for inner, outer in widths)
