"""Grouped layers that exchange no channels, against sets of channels by hand and counted costs."""

import random
from itertools import pairwise

import pytest

from ifspace.block import Block, SizedLayer
from ifspace.exchange import block_exchanges
from ifspace.show.describe import describe


def seen(layers: list[SizedLayer]) -> list[set[int]]:
    """Return which input channels each output sees, by sets."""
    sets = [{channel} for channel in range(layers[0].c_in)]
    for layer in layers:
        sets = [set().union(*(sets[channel] for channel in read)) for read in layer.reads()]
    return sets


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        ("GPW(4)+DW+GPW(4)", [(0, 2, 16, 64)]),
        ("GPW(4)+SH(4)+DW+GPW(4)", []),
        ("RPW(4,0)+DW+GPW(4)", []),
        ("RPW(4,0,blocked)+GC(4)", [(0, 1, 16, 64)]),
        ("GPW(2)+GPW(8)", [(0, 1, 32, 64)]),
        # A shuffle over other groups that does exchange channels, and layers of one channel each.
        ("GPW(4)+SH(2)+GPW(4)", []),
        ("GC(64)+GPW(64)", []),
        ("DW+PW+GPW(4)", []),
    ],
)
def test_pairs_and_fields(block: str, fields: list[tuple[int, int, int, int]]) -> None:
    pairs = [
        (pair.first, pair.second, pair.exchange.field, pair.exchange.shuffled)
        for pair in describe(block, 64).exchanges
    ]
    assert pairs == fields


def test_the_shuffle_costs_nothing_and_does_what_is_said() -> None:
    about = describe("DW+GPW(4)+GPW(4)", 64)
    (pair,) = about.exchanges
    assert (pair.exchange.rolling, pair.block_field) == ("RPW(4,0)", (16, 64))
    for better in ("DW+GPW(4)+SH(4)+GPW(4)", "DW+RPW(4,0)+GPW(4)"):
        mended = describe(better, 64)
        assert (mended.params, mended.macs_per_pixel) == (about.params, about.macs_per_pixel)
        assert (mended.field, mended.exchanges) == ((3, 64), ())


@pytest.mark.slow
def test_random_blocks_against_sets() -> None:
    chance = random.Random(0)
    kinds = ["GPW({})", "GC({})", "RPW({},0)", "RPW({},1/2)", "SH({})", "DW", "PW"]
    reported = 0
    for _ in range(400):
        terms = [chance.choice(kinds).format(chance.choice([2, 3, 4, 6])) for _ in range(4)]
        layers = list(Block.parse("+".join(terms)).at(24).layers)
        pairs = {(pair.first, pair.second): pair for pair in block_exchanges(layers)}
        mixing = [index for index, layer in enumerate(layers) if layer.conv.mixing]
        for first, second in pairwise(mixing):
            sets = seen(layers[first : second + 1])
            part = max(layers[index].fan_in / 24 for index in (first, second))
            exchanging = max(map(len, sets)) > 24 * part or part == 1
            pair = pairs.get((first, second))
            if pair is None:
                shuffles = [
                    Block.parse(f"SH({layers[index].groups})").at(24).layers[0]
                    for index in (first, second)
                    if layers[index].groups > 1
                ]
                mended = [
                    min(map(len, seen([*layers[first:second], shuffle, layers[second]])))
                    for shuffle in shuffles
                ]
                assert exchanging or max(mended) <= min(map(len, sets)), terms
                continue
            assert not exchanging, terms
            shuffle = Block.parse(f"SH({pair.exchange.groups})").at(24).layers[0]
            mended_sets = seen([*layers[first:second], shuffle, layers[second]])
            sizes = min(map(len, sets)), min(map(len, mended_sets))
            assert sizes == (pair.exchange.field, pair.exchange.shuffled), terms
            reported += 1
    assert reported > 30
