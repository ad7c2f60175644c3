import random
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from witness import (
    GRID,
    SIX,
    autograd_field,
    blocks,
    divisors,
    random_block,
    reach_by_sets,
)

from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.errors import BlockError
from ifspace.kinds import KINDS
from ifspace.reach import (
    Reference,
    channel_field,
    channel_fields,
    channel_reach,
    compact,
    field_after,
    irreducible,
    quality,
    removable_layers,
    removable_set,
)

# (C, F, ratio): equal widths that are and are not powers of two, a prime, and changing widths.
WIDTHS = [
    (8, 8, None),
    (12, 12, None),
    (36, 36, None),
    (7, 7, None),
    (66, 66, None),
    (12, 24, None),
    (24, 12, None),
    (16, 32, "1/4"),
    (16, 8, "2"),
]


def random_sized(seed: int, count: int, max_length: int = 5) -> list[SizedBlock]:
    rng = random.Random(seed)
    sized_blocks: list[SizedBlock] = []
    while len(sized_blocks) < count:
        c, f, ratio = rng.choice(WIDTHS)
        block = random_block(rng, c, rng.randint(1, max_length), (*SIX, "CONV"))
        try:
            sized_blocks.append(Block(block.layers, rng.choice([1, 1, 2])).at(c, f, ratio))
        except BlockError:
            continue
    return sized_blocks


def as_sets(rows: list[int]) -> list[set[int]]:
    return [{bit for bit in range(row.bit_length()) if row >> bit & 1} for row in rows]


@pytest.mark.slow
def test_reach_equals_plain_sets() -> None:
    for sized in random_sized(seed=1, count=400):
        chain = sized.layers
        assert as_sets(channel_reach(chain)) == reach_by_sets(chain), sized.block
        prefixes = [reach_by_sets(chain[: n + 1]) for n in range(len(chain))]
        assert channel_fields(chain) == tuple(min(map(len, rows)) for rows in prefixes)
        assert channel_field(chain) == channel_fields(chain)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("dims", [1, 2])
def test_reach_equals_gradients_for_every_output_channel(dims: int) -> None:
    rng = random.Random(dims)
    for sized in random_sized(seed=2 + dims, count=25, max_length=4):
        if sized.channels > 36:
            continue
        kernel = rng.choice([1, 3, 5])
        layers = [
            Layer(x.kind, x.groups, x.overlap, kernel if x.conv.spatial else None)
            for x in sized.block.layers
        ]
        sized = Block(tuple(layers)).at(
            sized.channels, sized.out_channels, sized.bottleneck, dims=dims
        )
        seen, side = autograd_field(sized)
        assert as_sets(channel_reach(sized.layers)) == seen, sized.block
        assert field_after(sized)[-1] == (side, min(map(len, seen)))


def test_windows_of_any_length_beyond_64_channels() -> None:
    # Lengths that are no power of two, and windows that roll over the end.
    for text in ("RPW(2,0)", "RPW(10,1/3)", "RPW(6,0.9)", "GC(15)+SH(6)", "RPW(30,0)+RPW(10,1/2)"):
        chain = Block.parse(text).at(150).layers
        assert as_sets(channel_reach(chain)) == reach_by_sets(chain)


@pytest.mark.slow
def test_field_at_width_4096() -> None:
    text = "RPW(64,0)+RPW(512,1/2)+DW+RPW(1024,0)+RPW(2048,1/2)+RPW(2048,0)"
    # From the last layer down: 2, w + (m-1)s = 2 + 1, 4 + 2 x 4, 8 + 11 x 4 = 52, 64 + 51 x 64.
    assert channel_field(Block.parse(text).at(4096).layers) == 52 * 64
    assert channel_field(Block.parse("RPW(2,1/3)+RPW(3,0)").at(4098).layers) == 4098
    assert channel_field(Block.parse("GPW(64)+SH(64)+GPW(64)").at(4096).layers) == 4096


def test_reach_after_every_layer() -> None:
    chain = Block.parse("DW+RPW(3,0)+SH(2)+GPW(2)").at(6).layers
    for n in range(1, len(chain) + 1):
        assert as_sets(channel_reach(chain[:n])) == reach_by_sets(chain[:n])


def test_empty_chain_sees_itself() -> None:
    assert channel_field(()) == 1
    assert channel_fields(()) == ()


def test_layers_that_do_not_fit_raise() -> None:
    chain = (SizedLayer(Layer("PW"), 4, 8), SizedLayer(Layer("PW"), 4, 4))
    with pytest.raises(BlockError, match="layers do not fit: got 8 channels into PW of 4"):
        channel_field(chain)


@pytest.mark.slow
@given(blocks(), st.sampled_from([*SIX, "CONV"]), st.data())
def test_field_never_shrinks_as_layers_are_appended(block: Block, kind: str, data) -> None:
    grouped = KINDS[kind].takes_groups
    layer = Layer(kind, data.draw(st.sampled_from(divisors(12))) if grouped else None)
    longer = Block((*block.at(12).block.layers * block.repeats, layer))
    before, after = field_after(block.at(12))[-1], field_after(longer.at(12))[-1]
    assert after[0] >= before[0]
    assert after[1] >= before[1]


def reaches(layers: list[SizedLayer], channels: int, reference: Reference) -> bool:
    side = 1 + sum((layer.layer.kernel or 1) - 1 for layer in layers)
    seen = min(map(len, reach_by_sets(layers))) if layers else 1
    return side >= reference.side and seen == channels


def removals(sized: SizedBlock, most: int) -> list[tuple[int, ...]]:
    movable = [n for n, layer in enumerate(sized.layers) if layer.c_in == layer.c_out]
    return [
        gone for n in range(1, min(most, len(movable)) + 1) for gone in combinations(movable, n)
    ]


@pytest.mark.slow
def test_decisions_equal_their_definitions() -> None:
    outcomes = set()
    for sized in random_sized(seed=5, count=400, max_length=4):
        reference = Reference(repeats=sized.block.repeats)
        unneeded = [
            gone
            for gone in removals(sized, most=8)
            if reaches(
                [layer for n, layer in enumerate(sized.layers) if n not in gone],
                sized.channels,
                reference,
            )
        ]
        side = 1 + sum((layer.layer.kernel or 1) - 1 for layer in sized.layers)
        full = reaches(list(sized.layers), sized.channels, reference) and side == reference.side
        single = tuple(gone[0] for gone in unneeded if len(gone) == 1)
        assert quality(sized, reference) == full
        assert removable_layers(sized, reference) == single
        kernels = tuple(n for n in single if sized.layers[n].layer.kind != "SH")
        assert removable_layers(sized, reference, "kernels") == kernels
        assert compact(sized, reference) == (not single)
        assert compact(sized, reference, "kernels") == (not kernels)
        assert compact(sized, reference, "subset") == (not unneeded)
        assert irreducible(sized, reference) == (not unneeded)
        assert removable_set(sized, reference) == (unneeded[0] if unneeded else ())
        outcomes.add((full, not single))
    assert outcomes == set(product([False, True], repeat=2))


def survivors(channels: int, length: int, repeats: int = 1) -> set[str]:
    """Compositions with a choice that passes quality and compactness, by trying every choice."""
    compositions = set()
    for word in product(SIX, repeat=length):
        if any(word == word[:n] * (length // n) for n in range(1, length) if length % n == 0):
            continue
        choices = [KINDS[kind].choices(channels, channels, GRID) for kind in word]
        for choice in product(*choices):
            layers = tuple(
                Layer(kind, groups, overlap, order=order)
                for kind, (groups, overlap, order) in zip(word, choice, strict=True)
            )
            sized = Block(layers, repeats).at(channels)
            reference = Reference(repeats=repeats)
            if quality(sized, reference) and compact(sized, reference):
                compositions.add("+".join(word))
                break
    return compositions


@pytest.mark.slow
def test_survivors_of_quality_and_compactness_at_small_widths() -> None:
    assert survivors(8, 1) == set()
    five = {"PW+GC", "PW+DW", "GC+PW", "DW+PW", "RPW+GC"}
    assert survivors(8, 2) == survivors(16, 2) == five
    assert len(survivors(8, 3)) == 17
    twice = survivors(16, 2, repeats=2)
    assert len(twice) == 4
    assert "DW+RPW" in twice


def test_two_layers_may_go_where_neither_can() -> None:
    # The second shuffle undoes the first: one alone spoils what the groups see, both do not.
    sized = Block.parse("DW+RPW(2,0)+SH(2)+SH(4)+GPW(4)").at(8)
    reference = Reference()
    assert quality(sized, reference)
    assert compact(sized, reference)
    assert not irreducible(sized, reference)


def test_shuffle_block_of_clcnet_is_compact_at_some_widths_only() -> None:
    def passes(channels: int) -> bool:
        choices = KINDS["GC"].choices(channels, channels)
        return any(
            quality(sized, Reference(repeats=2)) and compact(sized, Reference(repeats=2))
            for (a, *_), (b, *_), (c, *_) in product(choices, repeat=3)
            for sized in [Block((Layer("GC", a), Layer("SH", b), Layer("GPW", c)), 2).at(channels)]
        )

    assert [passes(channels) for channels in (12, 16, 32)] == [True, False, True]


def test_depthwise_shuffle_group_pointwise_sees_one_group() -> None:
    assert field_after(Block.parse("DW+SH(4)+GPW(4)").at(16))[-1] == (3, 4)


def test_a_layer_that_changes_the_width_is_never_removable() -> None:
    sized = Block.parse("PW+DW+PW").at(16, bottleneck="1/4")
    assert quality(sized, Reference())
    assert removable_layers(sized, Reference()) == ()
    assert removable_layers(Block.parse("PW+DW+PW").at(16), Reference()) == (0, 2)


def test_reference_side() -> None:
    assert [Reference(k, r).side for k, r in [(3, 1), (3, 2), (5, 3), (1, 4)]] == [3, 5, 13, 1]
    assert not quality(Block.parse("DW(5)+PW").at(8), Reference())
    assert quality(Block.parse("DW(5)+PW").at(8), Reference(repeats=2))
    assert quality(Block.parse("DW+PW").at(8), Reference(kernel=3))
    # Larger than the reference: what is left over still reaches it.
    assert removable_layers(Block.parse("DW+DW+PW").at(8), Reference()) == (0, 1)
