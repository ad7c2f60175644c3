"""Parameters and MACs of every network: as its layout says, as torch counts, as hooks count."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch_networks
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ifspace.block import Block, Composition
from ifspace.nn.network import (
    Network,
    NetworkStyle,
    build_network,
    named_network,
    style_of,
)
from ifspace.stages.allocate import best_stages
from ifspace.stages.layout import (
    Layout,
    StemAndHead,
    StemLayer,
)
from ifspace.stages.networks import (
    NETWORKS,
    SIDES,
    fog,
    make_layout,
    network,
)
from ifspace.stages.organizer import organize
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagesProblem,
)


@pytest.fixture(autouse=True)
def shapes_only() -> Iterator[None]:
    """No number is computed: networks of large images are far too slow to run."""
    with FakeTensorMode():
        yield


def hooked_macs(net: Network, images: torch.Tensor) -> int:
    """Multiply-accumulates of one image: elements written times the weights behind each."""
    total = 0

    def hook(module: nn.Module, _: object, y: torch.Tensor) -> None:
        nonlocal total
        total += y[0].numel() * module.weight[0].numel()  # type: ignore[union-attr, operator]

    for module in net.modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() > 1:
            module.register_forward_hook(hook)
    net(images)
    return total


def same_counts(net: Network, layout: Layout) -> torch.Tensor:
    """Compare all counts and return what the network writes for two images."""
    assert net.layout == layout
    assert sum(parameter.numel() for parameter in net.parameters()) == layout.params
    images = torch.empty(2, layout.stem_and_head.inputs, layout.image, layout.image)
    net.eval()
    with FlopCounterMode(display=False) as counter:
        y = net(images)
    assert counter.get_total_flops() == 2 * 2 * layout.macs
    assert hooked_macs(net, images) == layout.macs
    return y


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", SIDES)
def test_every_named_network(name: str, side: int) -> None:
    layout = network(name, side)
    y = same_counts(named_network(name, side), layout)
    assert y.shape == (2, 10 if side == 32 else 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnet50", 25_557_032),
        ("vgg16", 138_357_544),
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg19", 143_667_240),
        ("mobilenet", 4_231_976),
    ],
)
def test_counts_of_well_known_networks(name: str, params: int) -> None:
    net = named_network(name, 224)
    assert sum(parameter.numel() for parameter in net.parameters()) == params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "depths"),
    [
        ("vgg16", 32, (5, 4, 2, 1, 1)),
        ("vgg19", 224, (3, 2, 4, 4, 3)),
        ("mobilenet", 32, (5, 4, 2, 2, 1)),
        ("resnet50", 224, (4, 5, 4, 3)),
        ("layout-residual", 32, (1, 9, 3, 4)),
        ("fog", 32, (1, 2, 3, 1)),
    ],
)
def test_counts_at_other_depths(name: str, side: int, depths: Sequence[int]) -> None:
    same_counts(named_network(name, side, depths), network(name, side).at_depths(depths))


@pytest.mark.parametrize(
    ("name", "side", "model"),
    [
        ("vgg16", 32, lambda: torch_networks.vgg((2, 2, 3, 3, 3), 32, 10)),
        ("vgg16", 224, lambda: torch_networks.vgg((2, 2, 3, 3, 3), 224, 1000, (4096, 4096))),
        ("resnet50", 224, lambda: torch_networks.resnet((3, 4, 6, 3), 224, 1000)),
        ("mobilenet", 224, lambda: torch_networks.mobilenet((2, 2, 2, 6, 2), 224, 1000)),
        ("layout-plain", 32, lambda: torch_networks.plain((64, 76, 96, 562), 32, 10)),
    ],
)
def test_weights_have_the_shapes_of_the_written_out_networks(name, side, model) -> None:
    def shapes(module: nn.Module) -> list[tuple[int, ...]]:
        return sorted(tuple(tensor.shape) for tensor in module.state_dict().values())

    assert shapes(named_network(name, side)) == shapes(model())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "width", "ratio"),
    [
        ("CONV", 64, None),
        ("DW+PW", 280, None),
        ("DW+RPW(2,1/2)", 64, None),
        ("GC(4)+SH(32)+GPW(32)", 128, None),
        ("PW+DW+PW", 400, Fraction(1, 4)),
        ("GPW(4)+SH(4)+DW+GPW(8)", 64, Fraction(1, 4)),
        ("(DW+RPW(8,0)+RPW(8,0))x2", 64, None),
    ],
)
@pytest.mark.parametrize("projections", [True, False])
def test_the_network_of_fog_with_any_block(
    unit: str, width: int, ratio: Fraction | None, projections: bool
) -> None:
    layout = fog(224, unit, width, 2, ratio, projections)
    net = build_network(layout, style_of("fog"))
    assert same_counts(net, layout).shape == (2, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11", "vgg16", "mobilenet", "resnet50", "layout-residual"])
def test_what_the_organizer_ends_with(name: str) -> None:
    layout = organize(network(name, 32)).end
    same_counts(build_network(layout, style_of(name)), layout)


RPW = BlockChoice.of(Block.parse("DW+RPW(2,1/2)"))
CHOICES = (
    BlockChoice.of(Block.parse("CONV")),
    BlockChoice.of(Block.parse("DW+PW")),
    RPW,
    BlockChoice(Composition.parse("GPW+SH+DW+GPW")),
    BlockChoice.of(Block.parse("PW+DW+PW"), Fraction(1, 4)),
)


@pytest.mark.slow
@pytest.mark.parametrize("unit", CHOICES, ids=str)
@pytest.mark.parametrize("name", ["mobilenet", "fog", "resnet50"])
def test_what_the_search_finds_for_a_block(name: str, unit: BlockChoice) -> None:
    start = network(name, 32)
    budgets = Budgets(params=90_000_000, macs=9_000_000_000)
    problem = StagesProblem(start, budgets, blocks=(Blocks(unit),) * len(start.stages), max_depth=4)
    (plan,) = best_stages(problem).plans
    same_counts(build_network(plan.layout, style_of(name)), plan.layout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "budget"), [("vgg16", 300_000), ("mobilenet", 90_000), ("layout-residual", 60_000)]
)
def test_what_the_search_finds_among_blocks_and_widths(name: str, budget: int) -> None:
    start = network(name, 32)
    # The image has three channels: no groups fit there.
    opening = (CHOICES[0], CHOICES[1])
    blocks = (Blocks(*opening), *(Blocks(*CHOICES) for _ in start.stages[1:]))
    widths = ((16, 32),) * len(start.stages)
    problem = StagesProblem(start, Budgets(params=budget), widths, blocks, max_depth=5)
    answer = best_stages(problem, top=3)
    assert len(answer.plans) == 3
    for plan in answer.plans:
        same_counts(build_network(plan.layout, style_of(name)), plan.layout)


@pytest.mark.slow
def test_a_layout_of_a_block_for_each_stage() -> None:
    blocks = [Block.parse(x) for x in ("CONV(5)", "DW+RPW(4,1/2)", "GC(4)+SH(4)+GPW(2)", "PW+DW")]
    frame = StemAndHead(bias=True, batch_norm=True, projections=True, classifier=(20, 7), pixels=4)
    layout = make_layout(
        blocks, (48, 24, 6, 6), (16, 32, 64, 20), (1, 2, 3, 2), (2, 2, 1, 2), frame
    )
    y = same_counts(build_network(layout), layout)
    assert (layout.image, y.shape) == (48, (2, 7))


@pytest.mark.slow
@pytest.mark.parametrize(
    "style",
    [
        NetworkStyle(residual=2),
        NetworkStyle(residual=3, where="end"),
        NetworkStyle("silu", "between", 1),
        NetworkStyle("hardswish", residual=9),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_projections_are_there_in_every_style(style: NetworkStyle, bias: bool) -> None:
    frame = StemAndHead(bias=bias, batch_norm=True, projections=True, classifier=(7,))
    layout = make_layout(
        "DW+GPW(4)+SH(4)+PW", (8, 8), (8, 16), (1, 5), (1, 2), replace(frame, inputs=8)
    )
    assert same_counts(build_network(layout, style), layout).shape == (2, 7)


def test_a_stem_of_several_layers() -> None:
    layers = Block.parse("CONV+SH(2)+DW+PW").at(4, 8).layers
    stem = tuple(StemLayer(layer, side) for layer, side in zip(layers, (8, 8, 4, 4), strict=True))
    frame = StemAndHead(4, stem, batch_norm=True, bias=True, image=16)
    layout = make_layout("CONV", (4, 2), (8, 6), (1, 2), stem_and_head=frame)
    assert same_counts(build_network(layout), layout).shape == (2, 6, 2, 2)
