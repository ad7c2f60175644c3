import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from witness import blocks

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.stages.layout import (
    Layout,
    Stage,
    StemAndHead,
    StemLayer,
    layout_from_json,
    layout_json,
)
from ifspace.stages.networks import (
    NETWORKS,
    SIDES,
    fog,
    network,
    resnet50,
)


def through_text(layout: Layout) -> Layout:
    return layout_from_json(json.loads(json.dumps(layout_json(layout))))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", SIDES)
def test_every_network_comes_back(name: str, side: int) -> None:
    layout = network(name, side)
    deeper = layout.at_depths([depth + 1 for depth in layout.depths])
    assert through_text(layout) == layout
    assert through_text(deeper) == deeper != layout


def frames() -> st.SearchStrategy[StemAndHead]:
    stem = StemLayer(Block.parse("CONV(5)").at(3, 12).layers[0], 16)
    return st.builds(
        StemAndHead,
        inputs=st.integers(1, 64),
        stem=st.sampled_from([(), (stem,), (stem, stem)]),
        batch_norm=st.booleans(),
        bias=st.booleans(),
        projections=st.booleans(),
        classifier=st.sampled_from([(), (10,), (4096, 1000)]),
        pixels=st.integers(1, 49),
        stem_counts=st.booleans(),
        image=st.none() | st.integers(1, 512),
    )


@settings(max_examples=60)
@given(frames(), blocks(12), blocks(12), st.integers(3, 9), st.integers(1, 224), st.booleans())
def test_any_layout_comes_back(
    frame: StemAndHead, first: Block, more: Block, depth: int, side: int, flat: bool
) -> None:
    dims = 1 if flat else 2
    stage = Stage(
        side, first.at(12, dims=dims), more.at(12, dims=dims), depth, 2, frame.counted_stem
    )
    layout = Layout((stage, stage), frame)
    assert through_text(layout) == layout


@pytest.mark.parametrize("inner", [(16, 8), (64, 128), (12, 12)])
def test_widths_inside_a_block_come_back(inner: tuple[int, int]) -> None:
    parsed = Block.parse("PW+DW+GPW(4)+PW")
    for unit in (parsed.at(12, 24, widths=inner), replace(parsed, repeats=2).at(12, widths=inner)):
        layout = Layout((Stage(8, unit, parsed.at(24, bottleneck="1/3")),), StemAndHead())
        back = through_text(layout)
        assert back == layout
        assert [x.c_out for x in back.stages[0].first.layers][::2][:2] == [inner[0], inner[1]]


def test_interior_widths_that_look_like_none_given_come_back() -> None:
    # The second copy of 12 -> 24 would be 24 wide inside if nothing were said.
    unit = Block.parse("(PW+PW)x2").at(12, 24, widths=(12,))
    layout = Layout((Stage(8, unit, unit.block.at(24)),), StemAndHead())
    assert through_text(layout) == layout
    assert [x.c_out for x in layout.stages[0].first.layers] == [12, 24, 12, 24]


def test_ratios_are_exact() -> None:
    values = layout_json(resnet50(32))["stages"][0]["more"]
    assert (values["bottleneck"], values["widths"]) == ("1/4", None)
    third = fog(32, "PW+DW+PW", width=48, bottleneck=Fraction(1, 3))
    assert through_text(third).stages[0].repeated.bottleneck == Fraction(1, 3)


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    values = deepcopy(layout_json(network("resnet50", 32)))
    change(values)
    return values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("frame"), "no 'frame'"),
        (lambda v: v.update(stages=[]), "no stage"),
        (lambda v: v.update(stages=7), "not iterable"),
        (lambda v: v["frame"].pop("image"), "no 'image'"),
        (lambda v: v["frame"].update(bias=1), "bias 1"),
        (lambda v: v["frame"].update(pixels=0), "pixels out of range"),
        (lambda v: v["frame"].update(inputs="3"), "width out of range"),
        (lambda v: v["frame"]["stem"][0].update(layer="XY"), "unknown kind"),
        (lambda v: v["stages"][1].update(depth=0), "depth out of range"),
        (lambda v: v["stages"][1].update(depth=10**9), "depth out of range"),
        (lambda v: v["stages"][1].update(stride=1.5), "stride out of range"),
        (lambda v: v["stages"][0]["more"].update(block="PW+GPW(7)"), "groups do not divide"),
        (lambda v: v["stages"][0]["more"].update(bottleneck="x"), "Invalid literal"),
        (lambda v: v["stages"][0]["more"].update(widths=[64]), "interior widths given twice"),
        (lambda v: v["stages"][0]["more"].update(dims=3), "dims out of range"),
        (lambda v: v["stages"][0].update(first=None), "not subscriptable"),
    ],
)
def test_what_is_no_layout_is_refused_in_a_line(
    change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    with pytest.raises(SettingError, match=f"^a layout that cannot be read: got .*{said}") as fault:
        layout_from_json(broken(change))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("values", [None, [], "x", 3, {}])
def test_other_values_are_refused(values: object) -> None:
    with pytest.raises(SettingError, match="a layout that cannot be read"):
        layout_from_json(values)
