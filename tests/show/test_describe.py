from dataclasses import replace
from typing import get_args

import pytest

from ifspace.block import Block, SizedLayer
from ifspace.errors import BlockError, SettingError
from ifspace.kinds import KINDS
from ifspace.reach import Compact, channel_reach
from ifspace.show.describe import MAX_NESTED, describe, describe_kinds
from ifspace.show.drawing import who_sees_whom

BLOCKS = [
    ("DW+PW", 16, None, None, 1),
    ("PW+DW", 16, 32, None, 2),
    ("DW+RPW(4,0)+RPW(4,1/2)", 16, None, None, 2),
    ("GPW(4)+SH(4)+DW+GPW(4)", 64, 64, "1/4", 2),
    ("(GC(2)+SH(2)+GPW(2))x2", 12, 24, None, 1),
    ("PW+GC(2,k=5)+PW", 12, 12, "1/2", 2),
]


@pytest.mark.parametrize(("text", "channels", "out", "ratio", "stride"), BLOCKS)
def test_totals_are_the_sums_of_the_layers(
    text: str, channels: int, out: int | None, ratio: str | None, stride: int
) -> None:
    about = describe(text, channels, out, ratio, stride=stride)
    sized = Block.parse(text).at(channels, out, ratio)
    assert about.params == sum(layer.params for layer in about.layers) == sized.params
    assert about.macs_per_pixel == sum(layer.macs_per_pixel for layer in about.layers)
    assert about.macs_per_pixel == sized.macs_per_pixel(stride)
    written = sum(layer.activations_per_pixel for layer in about.layers)
    assert about.activations_per_pixel == written == sized.activations_per_pixel(stride)
    assert about.field == about.layers[-1].field
    assert [(layer.c_in, layer.c_out) for layer in about.layers] == [
        (layer.c_in, layer.c_out) for layer in sized.layers
    ]


def test_a_full_description() -> None:
    about = describe("dw+rpw(4,0)+rpw(4,0)", 16)
    assert about.block == "DW+RPW(4,0)+RPW(4,0)"
    assert [layer.field for layer in about.layers] == [(3, 1), (3, 4), (3, 16)]
    assert [layer.coverage for layer in about.layers] == [1, 4, 16]
    assert [layer.formula for layer in about.layers] == [
        "1",
        "Min(C, w_1)",
        "Min(C, s_1*(w_2 - 1) + w_1)",
    ]
    assert about.condition == "C <= s_1*(w_2 - 1) + w_1"
    assert (about.quality, about.compact, about.removable) == (True, True, ())
    assert about.reference_params == 9 * 16 * 16
    assert dict(about.symbols)["s_2"] == 4


def test_removable_layers_are_named() -> None:
    about = describe("DW+SH(4)+PW", 16)
    assert about.quality
    assert not about.compact
    assert about.removable == (1,)


def test_a_block_is_compact_by_one_reading_and_not_by_another() -> None:
    def removable(block: str, channels: int) -> dict[str, tuple[int, ...]]:
        abouts = [describe(block, channels, reading=reading) for reading in get_args(Compact)]
        assert all(about.compact == (not about.removable) for about in abouts)
        return {about.reading: about.removable for about in abouts}

    # Of clcNet's block twice at 16 channels the first shuffle can go.
    clcnet = removable("(GC(8)+SH(2)+GPW(2))x2", 16)
    assert clcnet == {"single": (1,), "kernels": (), "subset": (1,)}
    two = removable("DW+RPW(2,0)+SH(2)+SH(4)+GPW(4)", 8)
    assert two == {"single": (), "kernels": (), "subset": (2, 3)}
    with pytest.raises(SettingError, match=r"too many layers .* got 18; allowed: at most 16"):
        describe("(DW+PW)x9", 8, reading="subset")


def test_a_block_that_falls_short_says_so() -> None:
    about = describe("DW+SH(4)+GPW(4)", 16)
    assert not about.quality
    assert about.field == (3, 4)


def test_another_width_at_the_end_does_not_excuse_a_layer() -> None:
    # GPW(2) changes the width, so it cannot be removed at 12 to 24 channels; it can at 12.
    assert describe("DW+PW+GPW(2)", 12).removable == (2,)
    assert describe("DW+PW+GPW(2)", 12, 24).removable == (2,)


def test_the_reference_is_the_replaced_convolution() -> None:
    assert describe("DW(5)+PW", 16).reference == "CONV(5)"
    assert describe("DW(5)+PW", 16, kernel=3).quality is False
    about = describe("(DW+RPW(2,1/2))x2", 16)
    assert (about.reference, about.reference_field) == ("(CONV)x2", (5, 16))


def test_formulas_name_the_inner_widths() -> None:
    # RPW counts its windows, so a grouped layer after it brings the widths into the formula.
    narrow = describe("GPW(2)+DW+GPW(2)+PW", 16, 16, "1/2").layers
    assert "K" in narrow[2].formula
    assert "F" not in narrow[2].formula
    wide = describe("GPW(2)+GPW(4)+PW", 16, 32).layers
    assert "F" not in wide[1].formula
    # After a shuffle the formula is the upper bound of the fan-ins; later copies have none.
    copies = describe("(GC(2)+SH(2)+GPW(2))x2", 12).layers
    assert [layer.formula for layer in copies] == [
        "Min(C, w_1)",
        "<= Min(C, w_1)",
        "<= Min(C, w_1*w_3)",
        "",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "channels", "message"),
    [
        ("DW+RPW+PW", 16, r"RPW needs groups.*RPW\(groups,overlap,rolling\|blocked\)"),
        ("DW+GPW(3)", 16, "groups do not divide the widths.*allowed: groups 1, 2, 4, 8, 16"),
        ("", 16, "a block needs a layer"),
    ],
)
def test_a_wrong_block_raises(text: str, channels: int, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        describe(text, channels)


def test_a_width_that_takes_too_long_raises() -> None:
    with pytest.raises(SettingError, match="channels out of range: got 5000"):
        describe("DW+PW", 5000)
    with pytest.raises(SettingError, match="out_channels out of range: got 5000"):
        describe("DW+PW", 16, 5000)


@pytest.mark.parametrize("ratio", ["257", "4097/16", "1/3", "1e999999999"])
def test_an_inner_width_that_takes_too_long_raises(ratio: str) -> None:
    with pytest.raises(SettingError, match=r"bottleneck is not .*, ratio x 16 whole, 1 to 4096"):
        describe("PW+PW", 16, bottleneck=ratio)


@pytest.mark.parametrize("text", ["(DW)x65", "(DW+PW+PW)x43", "+".join(["DW"] * 129)])
def test_a_block_that_takes_too_long_raises(text: str) -> None:
    allowed = "at most 64 copies and 128 layers in all"
    with pytest.raises(BlockError, match=f"composition too long.*; allowed: {allowed}; "):
        describe(text, 16)


@pytest.mark.slow
def test_the_longest_block_is_described() -> None:
    # Its formula would nest 128 layers; without one it is a matter of a second.
    about = describe("(GPW(2)+RPW(2,0))x64", 8)
    assert (about.field[1], len(about.layers), about.condition) == (8, 128, "")
    shuffled = describe("(GPW(2)+SH(2))x64", 8)
    assert shuffled.condition.startswith("C <= w_1")
    short = describe("+".join(["RPW(2,0)"] * MAX_NESTED), 8)
    assert short.condition
    assert all(layer.formula for layer in short.layers)


def test_the_table_of_fields_has_every_output_once() -> None:
    sized = Block.parse("GPW(4)+SH(4)+RPW(4,1/2)").at(16)
    drawn = who_sees_whom(sized)
    for length, groups in enumerate(drawn, start=1):
        seen = {output: group.seen for group in groups for output in group.outputs}
        assert [seen[output] for output in range(16)] == channel_reach(sized.layers[:length])
        assert len({group.seen for group in groups}) == len(groups)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("(DW+RPW(8,0))x2", ((64, 64), (8, 8))),
        ("(DW+RPW(8,0.33))x2", ((50, 64), (26, 8))),
        ("(DW+RPW(8,0.5,blocked))x2", ((36, 64), (12, 8))),
        ("(DW+RPW(8,0.75))x2", ((22, 64), (14, 8))),
        ("DW+PW", ()),
    ],
)
def test_what_both_orders_see_is_described(text: str, fields: tuple) -> None:
    orders = describe(text, 64).orders
    assert [order.order for order in orders] == (["rolling", "blocked"] if fields else [])
    assert tuple((order.field, order.without_overlap) for order in orders) == fields


def test_an_order_that_is_not_legal_has_no_field() -> None:
    about = describe("DW+RPW(4,3/4)", 64, 8)
    assert [(order.order, order.field) for order in about.orders] == [
        ("rolling", 16),
        ("blocked", None),
    ]


@pytest.mark.parametrize(
    ("text", "channels", "widths", "same"),
    [
        ("RPW(8,0)", 64, 128, "GPW(8)+SH(8)"),
        ("RPW(8,0,blocked)", 64, 128, "GPW(8)"),
        # A third of a window of 2 channels is none.
        ("RPW(8,0.33)", 16, 16, "GPW(8)+SH(8)"),
        ("RPW(8,1/2)", 64, 64, None),
        ("RPW(8,1/2,blocked)", 64, 64, None),
        ("GPW(8)", 64, 64, None),
    ],
)
def test_a_rolling_layer_without_overlap_is_one_of_every_framework(
    text: str, channels: int, widths: int, same: str | None
) -> None:
    (layer,) = describe(text, channels, widths).layers
    assert layer.same_as == same
    if same is not None:
        # The shuffle stands behind a layer that changes the width: at the width it leaves.
        parts = Block.parse(same).layers
        reads = [SizedLayer(parts[0], channels, widths).reads().tolist()]
        for shuffle in parts[1:]:
            (rows,) = reads
            dealt = SizedLayer(shuffle, widths, widths).reads()[:, 0].tolist()
            reads = [[rows[j] for j in dealt]]
        assert (
            SizedLayer(Block.parse(text).layers[0], channels, widths).reads().tolist() == reads[0]
        )


def test_formulas_of_a_block_are_those_of_its_orders() -> None:
    about = describe("DW+RPW(8,1/2,blocked)+RPW(8,0)", 64)
    assert about.condition == "C <= s_1*floor(P_1*(w_2 - 1)/C) + w_1"
    assert dict(about.symbols)["P_1"] == 16
    assert about.layers[2].formula == "Min(C, s_1*floor(P_1*(w_2 - 1)/C) + w_1)"
    assert [layer.order for layer in about.layers] == [None, "blocked", "rolling"]


def test_every_kind_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [about.kind for about in describe_kinds()] == list(KINDS)
    by_kind = {about.kind: about for about in describe_kinds()}
    assert by_kind["RPW"].fan_in == "C_in/g"
    assert by_kind["RPW"].property_blocked == "U(Min(C_in, s*floor(P*(m - 1)/C_out) + w))"
    assert by_kind["GPW"].property_blocked is None
    assert by_kind["DW"].macs == "C_in*H_out*W_out*k**d"
    assert "\\frac" in {about.kind: about for about in describe_kinds(latex=True)}["GC"].params
    monkeypatch.setitem(KINDS, "TPW", replace(KINDS["GPW"], symbol="TPW"))  # type: ignore[arg-type]
    assert describe_kinds()[-1].kind == "TPW"
    assert describe("DW+TPW(4)+SH(4)+TPW(4)", 16).field == (3, 16)


def test_the_peak_is_that_of_the_largest_layer_and_in_bytes_at_a_side() -> None:
    about = describe("PW+DW+PW", 24, bottleneck="6", side=28, dtype="fp16", stride=2)
    assert [layer.peak_per_pixel for layer in about.layers] == [4 * 168, 4 * 144 + 144, 168]
    assert about.peak_per_pixel == 720
    # The second layer reads 144 channels at side 56 and writes them at 28; with a projection around
    # the block its input stays.
    assert about.peak_memory is not None
    assert about.peak_memory.bytes == 2 * 144 * (56**2 + 28**2)
    assert about.peak_memory.with_shortcut == 2 * (24 * 56**2 + 144 * (56**2 + 28**2))
    assert describe("DW+PW", 24).peak_memory is None
