"""The figures of a report, part by part: what the catalogue holds, and every drawn block."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ifspace.catalogue import Design, Funnel, ranked
from ifspace.catalogue.choose import trade_offs
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.report.bench_plots import block_figures, kernel_figures
from ifspace.report.drawing import draw
from ifspace.report.folder import Results
from ifspace.report.ink import DARK, LIGHT, figure, grid, log_scale, save, style
from ifspace.report.plan_plots import energy_figures, layout_figures
from ifspace.report.tables import designs_of, setting_name, settings

# So many of the best blocks are drawn, beside the published ones.
MOST_DRAWN: Final = 5
# A name and the figure that is written under it.
Named = tuple[str, Figure]


def figures(results: Results, part: str) -> Iterator[Named]:
    """Yield the figures of a part with their names; none where its file is not there."""
    with style():
        yield from _PARTS.get(part, _none)(results)


def write(results: Results, parts: Iterable[str], folder: Path) -> Iterator[Path]:
    """Write the figures of the parts into a folder, as SVG and PNG; yield their paths.

    Raises: OutputError when they cannot be written there.
    """
    for part in parts:
        for name, drawn in figures(results, part):
            yield from save(drawn, folder, name)


def _none(results: Results) -> Iterator[Named]:
    yield from ()


def _funnel(results: Results) -> Iterator[Named]:
    for catalogue, place, setting in settings(results):
        yield f"funnel-{_slug(setting)}", funnel(catalogue.funnels[place], setting)


def funnel(counts: Funnel, setting: EnumerationSetting) -> Figure:
    """Return how many compositions each step leaves, by length."""
    drawn = figure(9.0, 4.2)
    axes = drawn.add_subplot()
    lengths = range(1, setting.max_len + 1)
    steps = (
        ("all compositions", counts.compositions_by_length, "white", ""),
        ("not a shorter one repeated", counts.after_patterns_by_length, LIGHT, "///"),
        ("survivors: full field, no layer to spare", counts.by_length, DARK, ""),
    )
    for place, (label, numbers, colour, hatch) in enumerate(steps):
        xs = [length + 0.28 * (place - 1) for length in lengths]
        heights = [count or math.nan for count in numbers]
        axes.bar(
            xs, heights, 0.28, color=colour, edgecolor=DARK, hatch=hatch, label=label, linewidth=0.7
        )
        for x, count in zip(xs, numbers, strict=True):
            axes.annotate(
                f"{count:,}",
                (x, max(count, 0.7)),
                (0, 3),
                fontsize=7.5,
                textcoords="offset points",
                ha="left" if count > 999 else "center",
                rotation=40 if count > 999 else 0,
            )
    axes.set_yscale("log")
    axes.set_ylim(0.7, 5 * max(counts.compositions_by_length))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks(list(lengths))
    axes.set_xlabel("layers of the composition")
    axes.set_ylabel("compositions")
    axes.set_title(f"What the rules leave at {setting_name(setting)}")
    axes.legend(loc="upper left")
    grid(axes, "y")
    return drawn


def _designs(results: Results) -> Iterator[Named]:
    drawn: dict[str, Figure] = {}
    for catalogue, _, setting in settings(results):
        designs = designs_of(catalogue, setting)
        if designs:
            yield f"params-layers-{_slug(setting)}", params_layers(designs, setting)
        for design in to_draw(designs):
            name = f"block-{_file_safe(str(design.block))}-{design.channels}"
            if name not in drawn and design.dims == 2:
                drawn[name] = draw(
                    str(design.block), design.channels, design.out_channels, design.bottleneck
                )
    yield from drawn.items()


def to_draw(designs: Sequence[Design]) -> tuple[Design, ...]:
    """Return the designs to draw: the published, what nothing beats, and the next best."""
    wanted = [design for design in designs if design.published_as]
    wanted += [design for design, _ in trade_offs(designs)]
    wanted += ranked(designs)[:MOST_DRAWN]
    return tuple(dict.fromkeys(wanted))[: len([d for d in wanted if d.published_as]) + MOST_DRAWN]


def params_layers(designs: Sequence[Design], setting: EnumerationSetting) -> Figure:
    """Return parameters against layers, with the published designs marked."""
    drawn = figure(7.2, 5.2)
    axes = drawn.add_subplot()
    places = Counter((design.layers, design.params) for design in designs)
    axes.scatter(
        [layers for layers, _ in places],
        [params for _, params in places],
        [14 + 4 * count for count in places.values()],
        facecolor="white",
        edgecolor=LIGHT,
        linewidth=1.0,
    )
    axes.scatter(
        [],
        [],
        40,
        facecolor="white",
        edgecolor=LIGHT,
        label="blocks; larger: more of the same cost",
    )
    best = {layers: min(p for n, p in places if n == layers) for layers, _ in sorted(places)}
    axes.plot(
        list(best),
        list(best.values()),
        "o-",
        color=DARK,
        markersize=5,
        label="fewest parameters of so many layers",
    )
    _published(axes, [design for design in designs if design.published_as])
    axes.set_xticks(list(best))
    axes.margins(x=0.1)
    axes.set_xlabel("layers, shuffles included")
    axes.set_ylabel("parameters")
    axes.set_title(
        f"{len(designs):,} blocks with the field of CONV({setting.kernel}), {setting_name(setting)}"
    )
    axes.legend(loc="upper right")
    log_scale(axes.yaxis)
    grid(axes)
    return drawn


def _published(axes: Axes, designs: Sequence[Design]) -> None:
    if not designs:
        return
    axes.plot(
        [each.layers for each in designs],
        [each.params for each in designs],
        "s",
        color=DARK,
        markersize=9,
        markerfacecolor="none",
        markeredgewidth=1.6,
        label="published",
    )
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    for design in designs:
        name = (design.published_as or "").partition(";")[0].partition(" (")[0]
        axes.annotate(
            f"{name}: {design.composition}",
            (design.layers, design.params),
            (9, 5),
            textcoords="offset points",
            fontsize=8.5,
            bbox=behind,
        )


def _slug(setting: EnumerationSetting) -> str:
    return _file_safe(setting_name(setting).replace("channels", "").replace(" ,", ","))


def _file_safe(text: str) -> str:
    """Return a name of letters, digits and hyphens.

    >>> _file_safe("DW+RPW(8,1/2)"), _file_safe("64 to 128 , stride 2")
    ('dw-rpw-8-1-2', '64-to-128-stride-2')
    """
    kept = "".join(each if each.isalnum() else "-" for each in text.lower())
    return "-".join(filter(None, kept.split("-")))


_PARTS: Final[dict[str, Callable[[Results], Iterable[Named]]]] = {
    "funnel": _funnel,
    "designs": _designs,
    "layouts": layout_figures,
    "energy": energy_figures,
    "blocks": block_figures,
    "kernels": kernel_figures,
}
