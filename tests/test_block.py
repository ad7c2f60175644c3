import random
from fractions import Fraction
from itertools import pairwise

import pytest
import sympy
from hypothesis import given
from witness import blocks, build_torch_block, count_by_hooks, random_sized

from ifspace import kinds
from ifspace.block import Block, Composition, Layer, SizedLayer
from ifspace.errors import BlockError


@pytest.mark.slow
@given(blocks())
def test_notation_round_trip(block: Block) -> None:
    assert Block.parse(str(block)) == block
    assert str(Block.parse(str(block))) == str(block)
    assert Block.parse(str(block).lower().replace("+", " +\t")) == block
    assert eval(repr(block)) == block
    assert Composition.parse(str(block.composition)) == block.composition
    assert eval(repr(block.composition)) == block.composition
    assert len(block) == len(block.composition) == len(block.layers)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("pw", "PW"),
        ("DW(3)+dw(5)", "DW+DW(5)"),
        ("GC(4)+gc( 4 , K=5 )", "GC(4)+GC(4,k=5)"),
        ("GC(4,k=3)", "GC(4)"),
        ("DW(k=5)", "DW(5)"),
        ("RPW(8)+RPW(8,0.33)+RPW(8,.5)", "RPW(8,0)+RPW(8,33/100)+RPW(8,1/2)"),
        ("RPW(8,0,rolling)+RPW(8,Rolling)", "RPW(8,0)+RPW(8,0)"),
        ("rpw(8, 0.5, BLOCKED)+RPW(8,blocked)", "RPW(8,1/2,blocked)+RPW(8,0,blocked)"),
        ("CONV(3)+CONV(5)", "CONV+CONV(5)"),
        ("DW+RPW(8,1/2)+SH(4)+GPW(8)", "DW+RPW(8,1/2)+SH(4)+GPW(8)"),
        ("( dw + rpw(2,2/4) )X2", "(DW+RPW(2,1/2))x2"),
        ("(DW+PW)", "DW+PW"),
        ("(DW+PW)x1", "DW+PW"),
        ("(conv)x2", "(CONV)x2"),
    ],
)
def test_canonical_notation(text: str, canonical: str) -> None:
    assert str(Block.parse(text)) == canonical
    assert Block.parse(text) == Block.parse(canonical)


def test_values_are_canonical_when_constructed() -> None:
    assert Layer("rpw", 8) == Layer("RPW", 8, Fraction(0), order="rolling")
    assert Layer("rpw", 8) != Layer("RPW", 8, order="blocked")
    assert Layer("DW").order is Layer("GPW", 2).order is None
    assert Layer("dw") == Layer("DW", kernel=3)
    assert Composition(("dw", "pw")) == Composition.parse("DW+PW")
    assert hash(Block.parse("gc(4)")) == hash(Block.parse("GC(4,k=3)"))


MALFORMED = [
    ("", "a block needs a layer: got ''; allowed: one layer or more"),
    ("   ", "a block needs a layer"),
    ("()", "a block needs a layer"),
    ("()x2", "a block needs a layer"),
    ("DW++PW", r"malformed block: got 'DW\+\+PW'"),
    ("DW+", r"malformed block: got 'DW\+'"),
    ("QW", "unknown kind of convolution: got 'QW'; allowed: PW, GC, DW, GPW, RPW, SH, CONV"),
    ("DW+PWx2", "unknown kind of convolution: got 'PWx2'"),
    ("(DW)+(PW)", "malformed block"),
    ("(DW+PW)x", "malformed block"),
    ("(DW+PW)x0", "repeats out of range: got 0; allowed: whole numbers from 1"),
    ("GPW(8", "malformed block: got 'GPW.8'"),
    ("GPW(8))", "malformed block"),
    ("GPW(a)", "malformed block: .*; allowed: GPW.groups.;"),
    ("GPW(-2)", "malformed block"),
    ("GPW(1.5)", "malformed block"),
    ("GPW(8,1/2)", "malformed block: .*; allowed: GPW.groups.;"),
    ("GPW()", "malformed block"),
    ("PW(3)", "malformed block: .*; allowed: plain PW;"),
    ("DW(3,5)", "malformed block: .*; allowed: DW.odd kernel size.;"),
    ("DW(k=3,k=5)", "malformed block"),
    ("RPW(1/2)", r"malformed block: .*; allowed: RPW.groups,overlap,rolling\|blocked.;"),
    ("RPW(8,0,folded)", "malformed block: .*rolling"),
    ("RPW(8,0,blocked,blocked)", "malformed block"),
    ("RPW(8,0,blocked,rolling)", "malformed block"),
    ("RPW(blocked)", "RPW needs groups"),
    ("GPW(8,blocked)", r"malformed block: .*; allowed: GPW\(groups\);"),
    ("GPW", "GPW needs groups: got none; allowed: GPW.groups.;"),
    ("GC(k=5)", "GC needs groups"),
    ("GPW(0)", "GPW groups out of range: got 0; allowed: whole numbers from 1"),
    ("GPW(8,k=3)", "GPW takes no kernel: got 3"),
    ("RPW(8,1)", "overlap out of range: got 1; allowed: 0 <= o < 1"),
    ("RPW(8,1.5)", "overlap out of range"),
    ("DW(4)", "kernel size is even: got 4; allowed: DW.odd kernel size."),
    ("DW(0)", "kernel size out of range"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_a_wrong_block_says_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(BlockError, match=message) as caught:
        Block.parse(text)
    assert "\n" not in str(caught.value)
    assert "; allowed: " in str(caught.value)


def test_wrong_values_raise_at_construction() -> None:
    with pytest.raises(BlockError, match=r"overlap out of range: got 0.5"):
        Layer("RPW", 8, 0.5)
    with pytest.raises(BlockError, match=r"GPW groups out of range: got 2.0"):
        Layer("GPW", 2.0)
    with pytest.raises(BlockError, match="GPW groups out of range: got True"):
        Layer("GPW", True)
    with pytest.raises(BlockError, match="PW takes no groups: got 4"):
        Layer("PW", 4)
    with pytest.raises(BlockError, match="GC takes no overlap: got 0"):
        Layer("GC", 4, Fraction(0))
    with pytest.raises(BlockError, match="GPW takes no order: got rolling"):
        Layer("GPW", 4, order="rolling")
    with pytest.raises(BlockError, match="unknown order of RPW: got 'folded'"):
        Layer("RPW", 4, order="folded")
    with pytest.raises(BlockError, match="a block needs a layer"):
        Block(())
    with pytest.raises(BlockError, match="a block needs a layer"):
        Composition(())
    with pytest.raises(BlockError, match=r"malformed block: .* without parameters"):
        Composition.parse("DW+GPW(4)")


@pytest.mark.parametrize(
    ("text", "widths", "message"),
    [
        (
            "DW+GPW(5)",
            {"channels": 12},
            r"groups do not divide the widths: got GPW\(5\) from 12 to 12 channels; "
            r"allowed: groups 1, 2, 3, 4, 6, 12; ",
        ),
        ("GPW(8)", {"channels": 16, "out_channels": 12}, "allowed: groups 1, 2, 4; "),
        (
            "RPW(4,3/4,blocked)",
            {"channels": 64, "out_channels": 8},
            r"more windows than filters: got 16 windows in RPW\(4,3/4,blocked\) from 64 to 8 "
            "channels; allowed: at most 8 windows in blocked order; ",
        ),
        ("DW", {"channels": 16, "out_channels": 32}, "no layer can change the width: got 16 to 32"),
        ("DW+PW", {"channels": 16, "bottleneck": "1/4"}, "needs two channel-mixing layers: got 1"),
        ("PW+PW", {"channels": 6, "bottleneck": "1/4"}, "not a whole number .* got 1/4 of 6"),
        ("PW+PW", {"channels": 6, "bottleneck": "0"}, "not a whole number of channels"),
        ("PW+PW", {"channels": 6, "bottleneck": "x"}, "malformed bottleneck ratio: got 'x'"),
        ("PW+PW", {"channels": 6, "bottleneck": 0.5}, "malformed bottleneck ratio: got 0.5"),
        ("PW", {"channels": 0}, "channels out of range: got 0; allowed: whole numbers from 1"),
        ("PW", {"channels": 4, "out_channels": -1}, "out_channels out of range: got -1"),
        ("PW", {"channels": 4, "dims": 3}, "wrong number of dimensions: got 3; allowed: 1, 2"),
    ],
)
def test_widths_that_do_not_fit_say_what_does(text: str, widths: dict, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        Block.parse(text).at(**widths)


def test_a_kind_that_keeps_its_width_cannot_be_sized_otherwise() -> None:
    with pytest.raises(BlockError, match=r"SH cannot change the width: got SH.2. from 4 to 8"):
        SizedLayer(Layer("SH", 2), 4, 8)


@pytest.mark.parametrize(
    ("text", "widths", "chain"),
    [
        ("DW+PW+DW+SH(4)", (16, 32, None), [16, 16, 32, 32, 32]),
        ("PW+GC(4)+DW", (16, 32, None), [16, 16, 32, 32]),
        ("(PW+DW)x2", (16, 32, None), [16, 32, 32, 32, 32]),
        ("DW+PW+SH(2)+PW+DW", (64, 32, "1/4"), [64, 64, 8, 8, 32, 32]),
        ("PW+PW+PW", (64, 32, "1/4"), [64, 8, 8, 32]),
        ("(PW+PW)x2", (64, 32, "1/4"), [64, 8, 32, 8, 32]),
        ("PW+DW+PW", (16, 16, 6), [16, 96, 96, 16]),
    ],
)
def test_only_channel_mixing_layers_change_the_width(text, widths, chain) -> None:
    layers = Block.parse(text).at(*widths).layers
    assert [layer.c_in for layer in layers] == chain[:-1]
    assert [layer.c_out for layer in layers] == chain[1:]
    assert [layer.changes_width for layer in layers] == [a != b for a, b in pairwise(chain)]


@pytest.mark.slow
def test_parameters_equal_numel() -> None:
    for sized in random_sized(seed=1, count=150):
        module = build_torch_block(sized)
        assert sized.params == sum(weight.numel() for weight in module.parameters())
        for layer, part in zip(sized.layers, module, strict=True):
            assert layer.params == sum(weight.numel() for weight in part.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_macs_and_activations_equal_what_hooks_count(stride: int) -> None:
    strided = 0
    for sized in random_sized(seed=1 + stride, count=150):
        spatial = any(layer.conv.spatial for layer in sized.layers)
        if stride > 1 and not spatial:
            continue
        strided += spatial
        macs, written, pixels = count_by_hooks(sized, side=8, stride=stride)
        assert pixels == (8 // stride) ** sized.dims
        assert sized.macs_per_pixel(stride) * pixels == macs, sized.block
        assert sized.activations_per_pixel(stride) * pixels == written, sized.block
    assert strided > 50


def test_macs_at_stride_one_are_the_parameters() -> None:
    for sized in random_sized(seed=4, count=30):
        assert sized.macs_per_pixel() == sized.params


def test_stride_sits_on_the_first_spatial_layer() -> None:
    sized = Block.parse("PW+DW+PW+DW").at(8)
    assert sized.macs_per_pixel(2) == 4 * 64 + 72 + 64 + 72
    assert sized.activations_per_pixel(2) == 4 * 8 + 8 + 8 + 8
    assert Block.parse("PW+DW").at(8, dims=1).macs_per_pixel(2) == 2 * 64 + 24
    with pytest.raises(BlockError, match=r"no layer can hold the stride: got stride 2 in PW\+PW"):
        Block.parse("PW+PW").at(8).macs_per_pixel(2)
    with pytest.raises(BlockError, match="stride out of range: got 0"):
        sized.activations_per_pixel(0)


@pytest.mark.parametrize(
    ("text", "widths", "params"),
    [
        ("DW+PW", (64,), 4672),
        ("GC(32)+SH(32)+GPW(2)", (64,), 3200),
        ("DW+RPW(8,0)+RPW(8,0)", (64,), 1600),
        ("DW+RPW(16,0)+RPW(16,0)+RPW(16,0)", (64,), 1344),
        ("PW+DW+PW", (64, 128, "1/4"), 32 * (64 + 128 + 9)),
        ("GPW(4)+SH(4)+DW+GPW(8)", (64, 64, "1/2"), 32 * 64 // 4 + 9 * 32 + 32 * 64 // 8),
    ],
)
def test_parameters_of_published_blocks(text: str, widths: tuple, params: int) -> None:
    assert Block.parse(text).at(*widths).params == params


def test_parameter_formula_gives_the_parameters() -> None:
    for sized in random_sized(seed=7, count=60):
        if sized.dims == 1 or len({layer.layer.kernel for layer in sized.layers} - {None}) > 1:
            continue
        block = sized.block
        formula = block.params_formula(bottleneck=sized.bottleneck is not None)
        groups = [layer.groups for layer in block.layers if layer.groups is not None]
        values = {
            kinds.C: sized.channels,
            kinds.F: sized.out_channels,
            kinds.K: int((sized.bottleneck or 0) * sized.out_channels),
            kinds.k: next((layer.kernel for layer in block.layers if layer.kernel), 3),
        }
        for number, count in enumerate(groups, start=1):
            values[sympy.Symbol(f"g_{number}", integer=True, positive=True)] = count
        assert formula.subs(values) == sized.params, str(block)


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("DW+PW", "C*F + 9*C"),
        ("GC+SH+GPW", "9*C**2/g_1 + C*F/g_3"),
        ("DW", "9*C"),
        ("(PW)x2", "C*F + F**2"),
    ],
)
def test_parameter_formula_text(text: str, formula: str) -> None:
    assert str(Composition.parse(text).params_formula(kernel=3)) == formula


def test_without_leaves_out_layers_that_keep_the_width() -> None:
    sized = Block.parse("(DW+PW)x2").at(8, 16)
    assert [str(layer.layer) for layer in sized.without(2)] == ["DW", "PW", "PW"]
    with pytest.raises(BlockError, match=r"layer cannot be left out: got 1; .* width: 0, 2, 3;"):
        sized.without(1)
    with pytest.raises(BlockError, match="layer cannot be left out: got 4"):
        sized.without(4)


def test_canonical_order() -> None:
    words = [
        "PW",
        "SH(2)",
        "PW+GC(2)",
        "PW+DW",
        "GC(2)+PW",
        "GC(4)+PW",
        "RPW(2,0)+PW",
        "RPW(2,1/2)+PW",
        "RPW(4,0)+PW",
        "DW+PW+PW",
    ]
    ordered = [Block.parse(word) for word in words]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    assert sorted(shuffled, key=lambda block: block.sort_key) == ordered
    compositions = list(dict.fromkeys(block.composition for block in ordered))
    assert sorted(set(compositions), key=lambda word: word.sort_key) == compositions


@pytest.mark.parametrize("ratio", ["1e999999999", "1" * 10, "wide", "1/0"])
def test_a_bottleneck_ratio_of_other_text_raises(ratio: str) -> None:
    with pytest.raises(BlockError, match=r"malformed bottleneck ratio: got .*; write 1/4 or 2"):
        Block.parse("PW+PW").at(16, bottleneck=ratio)


def test_blocks_have_limits() -> None:
    assert Block.parse("(DW+PW)x64").repeats == 64
    assert len(Composition.parse("+".join(["DW"] * 128))) == 128
    for text in ("(DW+PW)x999999", "(DW)x65", "+".join(["DW"] * 129)):
        for parse in (Block.parse, Composition.parse):
            with pytest.raises(BlockError, match=r"^composition too long: got \d+ x \d+"):
                parse(text)
    with pytest.raises(BlockError, match=r"kernel size out of range: got .* to 9999"):
        Block.parse("DW(999999999)")
