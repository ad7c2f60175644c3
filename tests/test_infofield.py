import random
from itertools import pairwise
from math import prod

import pytest
import sympy
from hypothesis import given
from witness import SIX, autograd_field, blocks, random_block

from ifspace import kinds
from ifspace.block import Block, Composition, SizedBlock
from ifspace.errors import SettingError
from ifspace.infofield import (
    coverage,
    coverage_expr,
    fields,
    full_field_condition,
    gain,
    spatial_field,
    volume,
)
from ifspace.reach import channel_field, channel_fields, channel_reach, field_after

UNSHUFFLED = ("PW", "GC", "DW", "GPW", "RPW", "CONV")


def random_blocks(seed: int, count: int, symbols: tuple[str, ...]) -> list[SizedBlock]:
    rng = random.Random(seed)
    widths = [rng.choice([8, 12, 16, 24, 36]) for _ in range(count)]
    return [random_block(rng, c, rng.randint(1, 6), symbols).at(c) for c in widths]


def values_of(sized: SizedBlock) -> dict:
    """The numbers for the symbols of a composition at equal widths."""
    values = dict.fromkeys((kinds.C, kinds.F), sized.channels)
    grouped = [layer for layer in sized.layers if layer.layer.groups is not None]
    for number, layer in enumerate(grouped, start=1):
        for name, value in (("g", layer.groups), ("w", layer.fan_in), ("s", layer.step)):
            values[sympy.Symbol(f"{name}_{number}", integer=True, positive=True)] = value
    return values


@pytest.mark.slow
def test_coverage_is_the_exact_field_without_shuffles() -> None:
    for sized in random_blocks(seed=1, count=2000, symbols=UNSHUFFLED):
        assert fields(sized) == field_after(sized), sized.block


def test_coverage_of_more_outputs_is_what_they_see_together() -> None:
    for sized in random_blocks(seed=2, count=100, symbols=UNSHUFFLED):
        union = 0
        for count, row in enumerate(channel_reach(sized.layers), start=1):
            union |= row
            assert coverage(sized.layers, count) == union.bit_count(), (sized.block, count)


@pytest.mark.slow
def test_aligned_shuffles_are_exact_and_others_are_bounded() -> None:
    for c, text in [
        (16, "GPW(4)+SH(4)+GPW(4)"),
        (64, "GC(32)+SH(32)+GPW(2)"),
        (16, "SH(4)+RPW(4,0)"),
        (36, "GPW(6)+SH(6)+DW+GPW(6)"),
    ]:
        assert coverage(Block.parse(text).at(c).layers) == channel_field(
            Block.parse(text).at(c).layers
        )
    over = under = 0
    for sized in random_blocks(seed=3, count=2000, symbols=SIX):
        bound = min(sized.channels, prod(layer.fan_in for layer in sized.layers))
        exact, estimate = channel_field(sized.layers), coverage(sized.layers)
        assert max(exact, estimate) <= bound, sized.block
        over, under = over + (estimate > exact), under + (estimate < exact)
    # It errs both ways, which is why it never decides.
    assert over
    assert under


def test_coverage_of_no_inputs_and_of_no_layers() -> None:
    sized = Block.parse("PW+SH(4)+RPW(4,1/2)").at(16)
    assert coverage(sized.layers, 0) == 0
    assert coverage((), 1) == 1


@pytest.mark.slow
def test_symbolic_coverage_gives_the_integer_one() -> None:
    for sized in random_blocks(seed=4, count=80, symbols=SIX):
        if len(sized.layers) > 4:
            continue
        expression = coverage_expr(sized.block)
        assert expression == coverage_expr(sized.block.composition)
        assert expression.subs(values_of(sized)) == coverage(sized.layers), sized.block


def test_symbolic_coverage_with_a_bottleneck_and_repeats() -> None:
    word = Composition.parse("RPW+DW+RPW")
    assert str(coverage_expr(word, bottleneck=True)) == "Min(C, s_1*(w_2 - 1) + w_1)"
    twice = Composition.parse("(DW+RPW)x2")
    sized = Block.parse("(DW+RPW(4,1/2))x2").at(16)
    assert coverage_expr(twice).subs(values_of(sized)) == coverage(sized.layers) == 10


@pytest.mark.slow
def test_condition_is_the_full_field() -> None:
    outcomes = set()
    for sized in random_blocks(seed=5, count=400, symbols=UNSHUFFLED):
        condition = full_field_condition(sized.block).subs(values_of(sized))
        full = channel_field(sized.layers) == sized.channels
        assert bool(condition) == full, sized.block
        outcomes.add(full)
    assert outcomes == {False, True}


@pytest.mark.slow
def test_condition_is_necessary_with_shuffles() -> None:
    excluded = 0
    for sized in random_blocks(seed=6, count=400, symbols=SIX):
        condition = full_field_condition(sized.block).subs(values_of(sized))
        if channel_field(sized.layers) == sized.channels:
            assert condition == True, sized.block  # noqa: E712
        excluded += not condition
    assert excluded


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("DW+RPW+RPW", "C <= s_1*(w_2 - 1) + w_1"),
        ("DW+RPW+RPW+RPW", "C <= s_1*(s_2*(w_3 - 1) + w_2 - 1) + w_1"),
        ("GC+SH+GPW", "C <= w_1*w_3"),
        ("GPW+SH+DW+GPW", "C <= w_1*w_3"),
        ("DW+PW", "True"),
        ("DW", "C <= 1"),
        ("GPW+RPW", "C <= w_1*ceiling(w_2/w_1)"),
    ],
)
def test_the_condition_of_a_full_field_as_text(text: str, condition: str) -> None:
    assert str(full_field_condition(Composition.parse(text))) == condition


@pytest.mark.slow
@given(blocks(channels=12, kinds=UNSHUFFLED, max_repeats=1))
def test_prepending_and_appending_never_shrink_the_field(block: Block) -> None:
    field = fields(block.at(12))
    assert list(field) == sorted(field, key=lambda pair: pair[0])
    assert [c for _, c in field] == sorted(c for _, c in field)
    assert fields(block.at(12)) == field_after(block.at(12))


def test_spatial_field_is_that_of_gradients_and_is_capped_by_the_stage() -> None:
    sized = Block.parse("CONV(5)+PW+DW+DW(1)").at(4)
    assert [w for w, _ in fields(sized)] == [5, 5, 7, 7]
    assert fields(sized)[-1][0] == autograd_field(sized)[1]
    assert [w for w, _ in fields(sized, w0=6)] == [5, 5, 6, 6]
    assert spatial_field([]) == 1
    assert spatial_field([3, 3, 3], w0=2) == 2


def stage_gains(side: int, width: int, convolutions: int) -> list[float]:
    sized = Block.parse(f"({'+'.join(['CONV'] * convolutions)})").at(width)
    volumes = [volume(*field) for field in fields(sized, w0=side)]
    return [gain(before, after, v0=side**2 * width) for before, after in pairwise(volumes)]


def test_field_and_gain_of_a_published_stage() -> None:
    # [IF] Table 1: a stage of 8 x 8 x 128 with three convolutions.
    sized = Block.parse("CONV+CONV+CONV").at(128)
    assert [volume(*field) for field in fields(sized, w0=8)] == [1152, 3200, 6272]
    assert stage_gains(8, 128, 3) == pytest.approx([1.166, 0.297], abs=5e-4)


def test_gain_of_one_convolution_more_in_each_stage_of_vgg_11() -> None:
    # [IF] Table 2: 1, 1, 2, 2, 2 convolutions at sides 32 to 2.
    stages = [(32, 64, 1), (16, 128, 1), (8, 256, 2), (4, 512, 2), (2, 512, 2)]
    more = [stage_gains(side, width, count + 1)[-1] for side, width, count in stages]
    assert more == pytest.approx([1.73, 1.60, 0.30, 0, 0], abs=5e-3)


def test_volume_in_one_dimension_is_linear_in_the_side() -> None:
    assert volume(5, 12, dims=1) == 60
    assert volume(5, 12, dims=2) == 300
    line = Block.parse("DW(5)+PW").at(12, dims=1)
    assert volume(*fields(line)[-1], dims=1) == volume(*field_after(line)[-1], dims=1) == 60
    assert channel_fields(line.layers) == (1, 12)


def test_gain_takes_alpha_and_raises_for_empty_fields() -> None:
    assert gain(10, 20, v0=100, alpha=0) == 1.0
    assert gain(10, 20, v0=100) < gain(10, 20, v0=100, alpha=1)
    with pytest.raises(SettingError, match="a gain needs positive volumes: got previous 0"):
        gain(0, 9, v0=64)
