import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb

from ifspace.errors import BlockError
from ifspace.report.drawing import (
    MOST_LINES,
    draw,
)


def drawn(*arguments) -> Axes:
    (axes,) = draw(*arguments).axes
    return axes


def lines(axes: Axes) -> list[int]:
    return [
        len(collection.get_segments())
        for collection in axes.collections
        if isinstance(collection, LineCollection)
    ]


def fans(axes: Axes) -> list[int]:
    return [
        len(collection.get_paths())
        for collection in axes.collections
        if isinstance(collection, PolyCollection)
    ]


def test_every_read_is_an_edge_and_those_seen_are_drawn_again() -> None:
    axes = drawn("DW+GPW(2)", 8)
    # All edges of DW, those seen of it, all of GPW(2), those seen of it.
    assert lines(axes) == [8, 4, 8 * 4, 4]
    assert fans(axes) == [0, 0, 0, 0]


def test_a_long_run_is_a_fan() -> None:
    axes = drawn("DW+PW", 2 * MOST_LINES)
    assert lines(axes)[2:] == [0, 0]
    assert fans(axes)[2:] == [2 * MOST_LINES, 1]


def test_a_column_for_each_channel_and_black_where_it_is_seen() -> None:
    axes = drawn("GPW(2)+SH(2)", 8)
    rows = [line for line in axes.lines if len(line.get_xdata())]
    dark = [to_rgb(line.get_markerfacecolor()) == (0, 0, 0) for line in rows]
    black = [len(line.get_xdata()) for line, on in zip(rows, dark, strict=True) if on]
    white = [len(line.get_xdata()) for line, on in zip(rows, dark, strict=True) if not on]
    assert black == [4, 1, 1]
    assert white == [4, 7, 7]


def test_texts_name_channels_layers_and_fields() -> None:
    figure = draw("PW+DW+PW", 64, 128, "1/4")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:4] == ["input", "64 channels", "PW", "sees 1×1×64"]
    assert "sees 3×3×64" in texts
    assert texts[-1] == "one column: 2 channels"
    assert figure.get_suptitle() == "PW+DW+PW at 64 to 128 channels"
    assert "black" in figure.axes[0].get_title(loc="left")


def test_a_block_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(BlockError, match="groups do not divide"):
        draw("GPW(3)", 8)
