"""Parameters and MACs of [3DRF] Tables 3 to 5: the search against counts by hand."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.reproduction import count_tables
from experiments.reproduction.conventions import (
    built,
    counts,
    elements,
    under,
)
from experiments.reproduction.printed import (
    COUNTED,
    Counted,
)
from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    PUBLISHED,
    mobilenet,
    resnet50,
    vgg,
)


def row_of(network: str, data: str) -> Counted:
    return next(row for row in COUNTED if (row.network, row.data) == (network, data))


def by_hand(layout: Layout) -> int:
    """Elements that the layers of the built-in networks write, from sides and widths alone."""
    sides = [stage.side for stage in layout.stages]
    widths, depths = layout.widths, layout.depths
    if len(sides) == 4:  # ResNet-50: the stem, then interiors of a quarter and projections
        total = layout.stem_and_head.stem[0].side ** 2 * 64
        for n, (side, width, depth) in enumerate(zip(sides, widths, depths, strict=True)):
            entry = 4 if n else 1  # the first layer runs before the stride
            total += side**2 * ((entry + depth - 1) * width // 4 + depth * width * 5 // 4 + width)
        return total
    if layout.stem_and_head.stem:  # MobileNet: DW writes what it reads, PW the width of the stage
        entries = (32, *widths)
        total = sides[0] ** 2 * 32
        for n, (side, width, depth) in enumerate(zip(sides, widths, depths, strict=True)):
            units = depth - (n == 0)
            total += side**2 * (entries[n] + (units - 1) * width + units * width)
        return total
    return sum(d * w * s**2 for d, w, s in zip(depths, widths, sides, strict=True))


@pytest.mark.parametrize("layout", [vgg("vgg16", 32), resnet50(224), resnet50(32), mobilenet(224)])
def test_many_layouts_are_counted_as_each_by_itself(layout):
    rng = np.random.default_rng(0)
    least = np.array([stage.min_depth for stage in layout.stages])
    depths = least + rng.integers(0, 6, (4, len(least)))
    params, operations = counts(layout, depths, per_element=3)
    for row, own, work in zip(depths, params, operations, strict=True):
        single = layout.at_depths([int(depth) for depth in row])
        assert elements(single) == by_hand(single)
        assert (own, work) == (single.params, single.macs + 3 * by_hand(single))


@pytest.mark.parametrize(
    ("network", "data", "depths"),
    [
        ("vgg16", "CIFAR-10", (5, 4, 2, 1, 1)),
        ("vgg19", "CIFAR-10", (6, 4, 3, 2, 1)),
        ("mobilenet", "CIFAR-10", (5, 4, 2, 2, 1)),
        ("resnet50", "CIFAR-10", (5, 5, 4, 2)),
        ("vgg16", "CIFAR-100", (5, 4, 2, 1, 1)),
        ("vgg19", "CIFAR-100", (6, 4, 3, 2, 1)),
        ("mobilenet", "CIFAR-100", (5, 4, 2, 2, 1)),
        ("resnet50", "CIFAR-100", (5, 5, 4, 3)),
        ("vgg19", "ImageNet", (3, 2, 4, 4, 3)),
        ("resnet50", "ImageNet", (4, 5, 4, 3)),
    ],
)
def test_layouts_with_the_printed_counts(network, data, depths):
    row = row_of(network, data)
    best = count_tables.search(row, 1).hits[0]
    assert best.depths == depths
    layout = under(built(network, data), best.convention).at_depths(depths)
    assert f"{layout.params / 1e6:.2f}" == row.params[1] == f"{best.params / 1e6:.2f}"
    extra = best.convention.per_element
    assert best.macs == layout.macs + extra * by_hand(layout)
    assert round(best.macs / 1e7) * 10 == int(row.macs[1])


def test_rows_without_a_layout_and_what_is_said_of_them():
    found = [count_tables.search(row, which) for row in COUNTED for which in (0, 1)]
    without = {each.name: each for each in found if not each.hits}
    assert set(without) == set(count_tables.REMARKS)
    assert without["vgg16-opt ImageNet"].best.depths == (3, 3, 3, 2, 2)
    assert round(without["vgg16-opt ImageNet"].best.macs / 1e8) == 169
    layout = built("vgg19", "ImageNet")
    amounts = [round((layout.macs + extra * by_hand(layout)) / 1e6) for extra in (2, 3)]
    assert amounts == [19_662, 19_677]
    light = built("mobilenet", "ImageNet")
    last = light.at_depths((3, 3, 3, 3, 2))
    assert [round(each.macs / 1e6) for each in (last, light)] == [579, 569]
    assert without["mobilenet-opt ImageNet"].best.depths == last.depths


def test_a_wrong_print_has_no_layout():
    row = replace(row_of("vgg16", "CIFAR-10"), params=("14.83", "5.10"))
    assert count_tables.search(row, 0).hits == ()
    assert "params -0.10M" in count_tables.judge_counts(count_tables.search(row, 0))


def test_the_search_agrees_with_the_published_layouts_of_the_program():
    for known in PUBLISHED:
        row = row_of(known.network, known.data)
        assert (known.params, known.macs) == (row.params[1], int(row.macs[1]))
        assert (known.gain, known.table) == (row.gain, row.table)
        assert count_tables.search(row, 1).best.depths == known.depths
