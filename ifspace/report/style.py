"""How figures look and are written: shades of grey, marks that differ in form, the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ifspace.storage import replacing

DARK, MIDDLE, LIGHT, PALE = "black", "0.45", "0.7", "0.9"
# One form for each series: what differs in colour alone is lost in grey.
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
DPI: Final = 140
_STYLE: Final[Any] = {
    "svg.hashsalt": "ifspace",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of all figures."""
    with rc_context(_STYLE):
        yield


def figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def grid(axes: Axes, which: Literal["both", "x", "y"] = "both") -> None:
    """Draw light grid lines behind everything."""
    axes.grid(visible=True, which="major", axis=which, color=PALE)
    axes.set_axisbelow(True)


def log_scale(axis: Axis) -> None:
    """Make an axis logarithmic, with enough numbers on it however short it is.

    Call it when everything is drawn: it looks at the span of the axis.
    """
    rescale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    rescale("log")
    low, high = sorted(axis.get_view_interval())
    steps = range(1, 10) if high < 6 * low else (1, 2, 3, 5) if high < 30 * low else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=[*steps] if high < 1000 * low else [1], numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def save(drawn: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as SVG and as PNG, each whole or not at all; return the two paths.

    Raises: OutputError when they cannot be written there.
    """
    paths = folder / f"{name}.svg", folder / f"{name}.png"
    with rc_context(_STYLE):
        for path in paths:
            form = path.suffix[1:]
            metadata = {"Date": None} if form == "svg" else {"Software": None}
            with replacing(path) as file:
                drawn.savefig(file, format=form, dpi=DPI, metadata=metadata)
    return paths
