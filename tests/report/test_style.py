from pathlib import Path

import pytest

from ifspace.errors import OutputError
from ifspace.report.drawing import draw
from ifspace.report.style import (
    figure,
    log_scale,
    save,
)


@pytest.mark.slow
def test_the_same_figure_is_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in save(draw("DW+PW", 8), tmp_path, "a")]
    again = [path.read_bytes() for path in save(draw("DW+PW", 8), tmp_path, "b")]
    assert first == again
    assert first[0].startswith(b"<?xml")
    assert first[1].startswith(b"\x89PNG")
    other = save(draw("PW+DW", 8), tmp_path, "c")
    assert other[0].read_bytes() != first[0]


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save(draw("DW+PW", 4), tmp_path / "nowhere", "a")


@pytest.mark.parametrize(
    ("ends", "some"),
    [((1344, 5248), {2000, 3000, 5000}), ((0.5, 40), {1, 2, 5, 10}), ((1, 10**6), {1, 10**3})],
)
def test_an_axis_has_numbers_however_short_it_is(ends, some) -> None:
    axes = figure(4, 4).add_subplot()
    axes.plot(ends, ends)
    log_scale(axes.xaxis)
    shown = [tick for tick in axes.get_xticks() if ends[0] <= tick <= ends[1]]
    assert 3 <= len(shown) <= 10
    assert all(any(abs(tick / value - 1) < 1e-9 for tick in shown) for value in some)
    texts = [axes.xaxis.get_major_formatter()(tick, None) for tick in (0.5, 1000)]
    assert texts == ["0.5", "1,000"]
