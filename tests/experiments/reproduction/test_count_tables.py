"""Parameters and MACs of reorganized and decomposed networks, against counts by hand."""

from dataclasses import replace

import numpy as np
import pytest
from small_networks import macs, params

from experiments.reproduction import count_tables
from experiments.reproduction.count_tables import (
    Convention,
    Reading,
    built,
    count,
    counts,
    elements,
    grouped,
    start_of,
    under,
)
from experiments.reproduction.page import MATCH
from experiments.reproduction.printed import (
    COUNTED,
    DECOMPOSED,
    Counted,
)
from ifspace.block import Block
from ifspace.models.decomposition import decompose
from ifspace.nn import build_network
from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    PUBLISHED,
    mobilenet,
    resnet50,
    vgg,
)
from ifspace.stages.problem import Blocks


def row_of(network: str, data: str) -> Counted:
    return next(row for row in COUNTED if (row.network, row.data) == (network, data))


def by_hand(layout: Layout) -> int:
    """Elements that the layers of the built-in networks write, from sides and widths alone."""
    sides = [stage.side_out for stage in layout.stages]
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


@pytest.mark.parametrize(
    "layout", [vgg("vgg16", 32), resnet50(224), resnet50(32), mobilenet(224, stem_counts=True)]
)
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


def test_rows_without_a_layout_have_a_remark():
    searches = [count_tables.search(row, which) for row in COUNTED for which in (0, 1)]
    without = {result.name: result for result in searches if not result.hits}
    assert set(without) == set(count_tables.REMARKS)
    assert without["vgg16-opt ImageNet"].best.depths == (3, 3, 3, 2, 2)
    assert round(without["vgg16-opt ImageNet"].best.macs / 1e8) == 169
    layout = built("vgg19", "ImageNet")
    amounts = [round((layout.macs + extra * by_hand(layout)) / 1e6) for extra in (2, 3)]
    assert amounts == [19_662, 19_677]
    light = built("mobilenet", "ImageNet")
    last = light.at_depths((3, 3, 3, 3, 2))
    assert [round(counted.macs / 1e6) for counted in (last, light)] == [579, 569]
    assert without["mobilenet-opt ImageNet"].best.depths == last.depths


def test_a_wrong_print_has_no_layout():
    row = replace(row_of("vgg16", "CIFAR-10"), params=("14.83", "5.10"))
    assert count_tables.search(row, 0).hits == ()
    assert "params -0.10M" in count_tables.judge_counts(count_tables.search(row, 0))


def test_the_search_agrees_with_the_published_layouts_of_the_program():
    for layout in PUBLISHED:
        row = row_of(layout.network, layout.data)
        assert (layout.params, layout.macs) == (row.params[1], int(row.macs[1]))
        assert (layout.gain, layout.table) == (row.gain, row.table)
        stem = layout.network == "mobilenet"
        assert count_tables.search(row, 1).best.depths == (
            layout.depths[0] + stem,
            *layout.depths[1:],
        )


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, "DW+PW", "DW+RPW(2,1/2)", "GC(4)+SH(4)+GPW(4)", "PW+DW"])
@pytest.mark.parametrize(
    ("network", "data", "depths"),
    [
        ("vgg16", "CIFAR-10", (4, 3, 2, 3, 1)),
        ("vgg16", "CIFAR-10", (5, 4, 2, 1, 1)),
        ("resnet50", "CIFAR-10", (3, 4, 6, 3)),
        ("resnet50", "ImageNet", (4, 5, 4, 3)),
    ],
)
def test_a_layout_counts_what_the_module_has(network, data, depths, block):
    layout = built(network, data).at_depths(depths)
    layout = replace(
        layout, stem_and_head=replace(layout.stem_and_head, batch_norm=True, bias=False)
    )
    image = (3, layout.image, layout.image)
    module = build_network(layout, "vgg16" if network == "vgg16" else "resnet50", device="meta")
    if block is not None:
        module = decompose(module, image, Blocks(block)).model
    reading = Reading(Convention(True, False, layout.stem_and_head.classifier[:-1]), inside=True)
    parsed = Block.parse(block) if block else None
    assert count(layout, parsed, reading) == (params(module), macs(module, image))
    if block is not None:
        plain = build_network(layout, device="meta")
        bare = decompose(plain, image, Blocks(block), style="plain").model
        outside = replace(reading, inside=False)
        # A plain block has no batch norm; the one of the network follows it.
        assert count(layout, parsed, outside)[0] == params(bare)


def test_first_or_strided_layers_keep_their_convolution():
    layout = built("vgg16", "CIFAR-10")
    block = Block.parse("DW+PW")
    first = count_tables.with_block(layout, block, "first").stages[0].first
    assert str(first.block) == "CONV"
    assert str(count_tables.with_block(layout, block, "none").stages[0].first.block) == "DW+PW"
    # Two groups do not divide three channels.
    grouped_block = count_tables.with_block(layout, Block.parse("DW+GPW(2)"), "none")
    assert str(grouped_block.stages[0].first.block) == "CONV"
    large = built("resnet50", "ImageNet")
    strided = count_tables.with_block(large, block, "strided").stages[1]
    assert (str(strided.first.block), str(strided.repeated.block)) == ("PW+CONV+PW", "PW+DW+PW+PW")
    every = count_tables.with_block(large, block).stages[1].first
    assert [(layer.c_in, layer.c_out) for layer in every.layers] == [
        (256, 128),
        (128, 128),
        (128, 128),
        (128, 512),
    ]


def test_the_network_of_table_6_is_found_by_both_its_numbers():
    result = start_of("vgg16", "CIFAR-10")
    assert {hit.depths for hit in result.hits} == {(4, 3, 2, 3, 1)}
    by_hand = 9 * (
        3 * 64 + 3 * 64 * 64 + 64 * 128 + 2 * 128**2 + 128 * 256 + 256**2 + 256 * 512 + 3 * 512**2
    )
    channels = 4 * 64 + 3 * 128 + 2 * 256 + 4 * 512
    assert by_hand + 3 * channels + 512 * 10 + 10 == result.best.params
    assert start_of("resnet50", "ImageNet").best.depths == (4, 5, 4, 3)


@pytest.mark.slow
def test_three_rows_of_the_decomposed_networks_match():
    tables = count_tables.decomposed_section().judged
    verdicts = {row[0]: row[-1] for table in tables for row in table.rows}
    assert {name for name, text in verdicts.items() if text == MATCH} == {
        "Baseline",
        "DW+PW",
        "ResNet50-opt",
    }
    assert verdicts["DW+RPW-g2-o50%"] == "params -0.08M"
    assert verdicts["ResNet50-opt (DW+RPW)"] == "params -0.38M; MACs -152M"
    assert len(verdicts) == len(DECOMPOSED)


@pytest.mark.slow
def test_the_rows_with_groups_are_of_another_network():
    text = count_tables.against_one_network()
    assert "0.86 to 0.90M, 1.20 to 1.28M and 1.20 to 1.36M" in text
    rows = [row for row in DECOMPOSED if row.name.startswith("DW+GPW")]
    block = Block.parse("DW+PW")
    assert len(grouped()) == 88
    for depths, reading in grouped().items():
        layout = built("vgg16", "CIFAR-10").at_depths(depths)
        for row in rows:
            own, work = count(layout, row.parsed, reading)
            assert abs(own - float(row.params) * 1e6) <= 5_000
            assert abs(work - float(row.macs) * 1e6) <= 5_000_000
        assert abs(count(layout, block, reading)[0] - 1.11e6) > 100_000
        assert abs(count(layout, None, reading)[0] - 9.64e6) > 100_000
