"""The canonical class of a block: its laws, and an independent test of isomorphism.

The witness is `layered_graphs`: the graph channel by channel in networkx.
"""

import random
from dataclasses import dataclass, replace
from itertools import product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layered_graphs import degrees, isomorphic, layered_graph
from witness import GRID, blocks, divisors, random_block

from ifspace import canonical
from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.canonical import network_class
from ifspace.errors import BlockError

SLOW = pytest.mark.slow


def class_of(text: str, channels: int, out_channels: int | None = None) -> str:
    return network_class(Block.parse(text).at(channels, out_channels))


@pytest.mark.parametrize(
    "channels",
    [*range(2, 25), 32, 64, *(pytest.param(c, marks=SLOW) for c in (*range(25, 65), 96, 128, 256))],
)
def test_rpw_without_overlap_is_a_group_pointwise_one(channels: int) -> None:
    for g, inner in product(divisors(channels), divisors(channels)):
        rolling, shuffled, blocked, grouped = (
            class_of(f"{first}+DW+GPW({inner})", channels)
            for first in (f"RPW({g},0)", f"GPW({g})+SH({g})", f"RPW({g},0,blocked)", f"GPW({g})")
        )
        assert (rolling, blocked) == (shuffled, grouped)
        # Runs of w channels and groups of w' channels each take the channels apart.
        assert (rolling == grouped) == (g in (1, channels) or inner in (1, channels))


@pytest.mark.parametrize(("channels", "out"), [(8, 24), (24, 8), (12, 36)])
def test_the_law_where_the_width_changes(channels: int, out: int) -> None:
    for g in divisors(min(channels, out)):
        assert class_of(f"RPW({g},0)", channels, out) == class_of(f"GPW({g})", channels, out)
        blocked = class_of(f"GC(2)+RPW({g},0,blocked)", channels, out)
        assert blocked == class_of(f"GC(2)+GPW({g})", channels, out)


def test_trivial_groups_are_the_kinds_without_groups() -> None:
    pairs = [("GPW(1)", "PW"), ("GC(1)", "CONV"), ("GC(12)", "DW"), ("CONV(1)", "PW")]
    for one, other in pairs:
        assert class_of(f"GC(3)+{one}+RPW(2,1/2)", 12) == class_of(f"GC(3)+{other}+RPW(2,1/2)", 12)


def test_different_networks_have_different_classes() -> None:
    texts = ["DW", "DW(5)", "PW", "DW+PW", "PW+DW", "DW+DW", "GPW(2)", "GPW(4)", "SH(2)"]
    texts += ["GPW(2)+GPW(2)", "GPW(2)+SH(2)+GPW(2)", "RPW(2,1/2)", "RPW(2,1/4)"]
    texts += ["RPW(4,1/3)+RPW(4,1/3)", "RPW(4,1/3,blocked)+RPW(4,1/3)"]
    sized = [Block.parse(text).at(channels) for text in texts for channels in (12, 24)]
    sized += [Block.parse(text).at(12, dims=1) for text in texts]
    sized += [Block.parse(text).at(12, 24) for text in ("PW", "GPW(2)", "GPW(12)")]
    assert len({network_class(block) for block in sized}) == len(sized)


@dataclass(frozen=True, slots=True)
class Relabelled(SizedLayer):
    """A layer whose channels have other numbers."""

    rows: tuple[tuple[int, ...], ...] = ()

    def reads(self) -> np.ndarray:
        return np.array(self.rows, dtype=np.int32)


def relabelled(sized: SizedBlock, rng: random.Random, same_ends: bool) -> SizedBlock:
    """The block with the channels of every level renumbered, at the ends alike if asked for."""
    first = below = rng.sample(range(sized.channels), sized.channels)
    layers = []
    for number, layer in enumerate(sized.layers):
        last = number == len(sized.layers) - 1
        above = first if last and same_ends else rng.sample(range(layer.c_out), layer.c_out)
        rows: list[tuple[int, ...]] = [()] * layer.c_out
        for output, row in enumerate(layer.reads().tolist()):
            new = [below[channel] for channel in row]
            rows[above[output]] = tuple(rng.sample(new, len(new)))
        layers.append(
            Relabelled(layer.layer, layer.c_in, layer.c_out, layer.dims, rows=tuple(rows))
        )
        below = above
    return replace(sized, layers=tuple(layers))


@pytest.mark.parametrize("channels", [6, 16, *(pytest.param(c, marks=SLOW) for c in (36, 64))])
def test_a_block_with_other_numbers_of_channels_is_the_same_network(channels: int) -> None:
    rng = random.Random(channels)
    for _ in range(40):
        sized = random_block(rng, channels, rng.randint(1, 5)).at(channels)
        assert network_class(relabelled(sized, rng, same_ends=False)) == network_class(sized)
        other = relabelled(sized, rng, same_ends=True)
        assert network_class(other, fixed_ends=True) == network_class(sized, fixed_ends=True)


def test_fixed_ends_tie_the_first_channels_to_the_last() -> None:
    def joined(text: str) -> str:
        return network_class(Block.parse(text).at(8), fixed_ends=True)

    assert class_of("GPW(4)+SH(4)", 8) == class_of("GPW(4)", 8)
    assert joined("GPW(4)+SH(4)") != joined("GPW(4)")
    assert joined("RPW(4,0)") == joined("GPW(4)+SH(4)")
    # Permutations of the channels: the classes are those of their cycles.
    assert class_of("DW+SH(2)", 8) == class_of("DW", 8)
    assert joined("DW+SH(2)") != joined("DW")
    assert joined("DW+SH(2)") == joined("SH(4)+DW")  # inverse to each other
    assert joined("SH(2)+DW+SH(4)") == joined("DW")
    with pytest.raises(BlockError, match="8 channels to 16"):
        network_class(Block.parse("PW").at(8, 16), fixed_ends=True)


def tournament(steps: tuple[int, ...]) -> SizedBlock:
    """GPW(7) whose output group i is wired to the input groups i + step, at joined ends."""
    rows: list[tuple[int, ...]] = [()] * 21
    for group, (slot, step) in product(range(7), enumerate(steps)):
        rows[(group + step) % 7 * 3 + slot] = (3 * group + slot,)
    sized = Block.parse("GPW(7)+SH(3)").at(21)
    first, shuffle = sized.layers
    return replace(sized, layers=(first, Relabelled(shuffle.layer, 21, 21, 2, rows=tuple(rows))))


def test_joined_ends_keep_the_direction_of_the_wiring() -> None:
    """Two regular tournaments of seven: alike without their directions."""
    assert network_class(tournament((1, 2, 4))) == network_class(tournament((1, 2, 3)))
    one, same, other = (
        network_class(tournament(steps), fixed_ends=True)
        for steps in ((1, 2, 4), (2, 4, 1), (1, 2, 3))
    )
    assert (one == same, one == other) == (True, False)


@pytest.mark.parametrize(
    ("text", "other", "channels", "out"),
    [
        ("RPW(8,1/3)+SH(16)+GPW(16)+GC(256)", "RPW(8,1/3)+SH(8)+GPW(16)+GC(256)", 256, 512),
        ("RPW(2,33/100)+SH(2)+GC(48)", "RPW(2,33/100)+SH(4)+GC(48)", 96, 384),
    ],
)
def test_blocks_among_whose_equal_channels_the_labelling_found_no_end(
    text: str, other: str, channels: int, out: int
) -> None:
    sized = Block.parse(text).at(channels, out)
    assert network_class(relabelled(sized, random.Random(1), False)) == network_class(sized)
    assert network_class(Block.parse(other).at(channels, out)) != network_class(sized)


def test_one_vertex_for_twins_tells_the_same_networks_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(5)
    blocks = [random_block(rng, 12, rng.randint(1, 5)).at(12) for _ in range(300)]
    with_twins = [network_class(sized) for sized in blocks]
    canonical._digest.cache_clear()
    monkeypatch.setattr(canonical, "TWINS_TO", 0)
    without = [network_class(sized) for sized in blocks]
    canonical._digest.cache_clear()
    assert len(set(with_twins)) > 100
    pairs = set(zip(with_twins, without, strict=True))
    assert len(pairs) == len(set(with_twins)) == len(set(without))


LAYERS = ["PW", "GC(2)", "DW", "GPW(2)", "RPW(2,0)", "RPW(2,1/2)", "RPW(2,1/2,blocked)", "SH(2)"]


@SLOW
@pytest.mark.parametrize(("fixed_ends", "count"), [(False, 201), (True, 261)])
def test_classes_of_all_short_blocks_are_those_of_isomorphism(fixed_ends: bool, count: int) -> None:
    """All 584 blocks of up to three layers at four channels: the partition is the same."""
    classes: dict[str, list[SizedBlock]] = {}
    for length in (1, 2, 3):
        for texts in product(LAYERS, repeat=length):
            sized = Block.parse("+".join(texts)).at(4)
            classes.setdefault(network_class(sized, fixed_ends), []).append(sized)
    firsts: dict[str, list[nx.DiGraph]] = {}
    for members in classes.values():
        first, *others = (layered_graph(member, fixed_ends) for member in members)
        assert all(isomorphic(first, other) for other in others)
        alike = firsts.setdefault(repr(degrees(first)), [])
        assert not any(isomorphic(first, other) for other in alike)
        alike.append(first)
    assert len(classes) == count


@st.composite
def same_fan_ins(draw, channels: int, length: int) -> tuple[Block, Block]:
    """Two blocks whose layers have the same fan-ins: they differ in wiring alone."""
    groups = st.sampled_from(divisors(channels))
    shuffle = st.builds(Layer, st.just("SH"), groups)
    pairs: list[tuple[Layer, Layer]] = []
    for _ in range(draw(st.integers(1, length))):
        spatial, count = draw(st.booleans()), draw(groups)
        window = st.builds(
            Layer,
            st.just("RPW"),
            st.just(count),
            st.sampled_from(GRID),
            order=st.sampled_from(["rolling", "blocked"]),
        )
        kinds = st.just(Layer("GC", count)) if spatial else st.just(Layer("GPW", count)) | window
        pairs.append((draw(kinds), draw(kinds)))
    built = []
    for own in zip(*pairs, strict=True):
        layers: list[Layer] = []
        for layer in own:
            layers += [*draw(st.lists(shuffle, max_size=2)), layer]
        built.append(Block((*layers, *draw(st.lists(shuffle, max_size=1)))))
    return built[0], built[1]


@SLOW
@pytest.mark.parametrize(("channels", "length"), [(4, 4), (6, 2), (8, 2)])
@given(st.data(), st.booleans())
def test_equal_classes_are_isomorphic_graphs(
    channels: int, length: int, data, fixed_ends: bool
) -> None:
    one, other = (block.at(channels) for block in data.draw(same_fan_ins(channels, length)))
    same = network_class(one, fixed_ends) == network_class(other, fixed_ends)
    assert same == isomorphic(layered_graph(one, fixed_ends), layered_graph(other, fixed_ends))


@SLOW
@given(blocks(), blocks())
def test_other_multisets_of_degrees_are_other_classes(one: Block, other: Block) -> None:
    graphs = [layered_graph(block.at(12)) for block in (one, other)]
    if degrees(graphs[0]) != degrees(graphs[1]):
        assert network_class(one.at(12)) != network_class(other.at(12))
