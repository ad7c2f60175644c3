"""Decomposed networks: counted from layouts as they count when built; which printed rows fit."""

from dataclasses import replace

import pytest
from small_networks import macs, params

from experiments.reproduction import decomposed
from experiments.reproduction.conventions import (
    Convention,
    built,
)
from experiments.reproduction.decomposed import (
    Reading,
    count,
    grouped,
    start_of,
)
from experiments.reproduction.page import MATCH
from experiments.reproduction.printed import DECOMPOSED
from ifspace.block import Block
from ifspace.models.decomposition import decompose
from ifspace.nn import build_network
from ifspace.stages.problem import Blocks


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
        # A plain block has no batch norm at all; the network's own stands behind it.
        assert count(layout, parsed, outside)[0] == params(bare)


def test_what_stays_of_a_network():
    layout = built("vgg16", "CIFAR-10")
    block = Block.parse("DW+PW")
    first = decomposed.with_block(layout, block, "first").stages[0].first
    assert str(first.block) == "CONV"
    assert str(decomposed.with_block(layout, block, "none").stages[0].first.block) == "DW+PW"
    # Two groups do not divide three channels.
    grouped_block = decomposed.with_block(layout, Block.parse("DW+GPW(2)"), "none")
    assert str(grouped_block.stages[0].first.block) == "CONV"
    large = built("resnet50", "ImageNet")
    strided = decomposed.with_block(large, block, "strided").stages[1]
    assert (str(strided.first.block), str(strided.repeated.block)) == ("PW+CONV+PW", "PW+DW+PW+PW")
    every = decomposed.with_block(large, block).stages[1].first
    assert [(layer.c_in, layer.c_out) for layer in every.layers] == [
        (256, 128),
        (128, 128),
        (128, 128),
        (128, 512),
    ]


def test_the_network_of_table_6_is_found_by_both_its_numbers():
    found = start_of("vgg16", "CIFAR-10")
    assert {hit.depths for hit in found.hits} == {(4, 3, 2, 3, 1)}
    by_hand = 9 * (
        3 * 64 + 3 * 64 * 64 + 64 * 128 + 2 * 128**2 + 128 * 256 + 256**2 + 256 * 512 + 3 * 512**2
    )
    channels = 4 * 64 + 3 * 128 + 2 * 256 + 4 * 512
    assert by_hand + 3 * channels + 512 * 10 + 10 == found.best.params
    assert start_of("resnet50", "ImageNet").best.depths == (4, 5, 4, 3)


def test_which_rows_come_out():
    tables = decomposed.decomposed_section().judged
    verdicts = {row[0]: row[-1] for table in tables for row in table.rows}
    assert {name for name, said in verdicts.items() if said == MATCH} == {
        "Baseline",
        "DW+PW",
        "ResNet50-opt",
    }
    assert verdicts["DW+RPW-g2-o50%"] == "params -0.08M"
    assert verdicts["ResNet50-opt (DW+RPW)"] == "params -0.38M; MACs -152M"
    assert len(verdicts) == len(DECOMPOSED)


def test_the_rows_with_groups_are_of_another_network():
    text = decomposed.against_one_network()
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
