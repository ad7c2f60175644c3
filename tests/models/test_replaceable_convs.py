"""Which convolutions a block may replace, and why it may not replace the others."""

import copy

import pytest
import torch
from small_networks import blocks_of, resnet18, vgg
from torch import nn

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.models.decomposition import (
    Layers,
    apply_decomposition,
    decompose,
    plan_decomposition,
    planned_decomposition,
)
from ifspace.models.edits import Edits
from ifspace.models.plan_file import PlannedBlock
from ifspace.models.replaceable import replaceable_convs
from ifspace.models.tracing import trace
from ifspace.nn import named_network
from ifspace.reach import channel_field
from ifspace.stages.problem import Blocks

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 32, 32)


class Shifted(nn.Module):
    """Adds a tensor that is not a buffer, so it does not run on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.body = resnet18()
        self.shift = torch.ones(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x + self.shift)


@pytest.mark.slow
def test_norms_are_found_by_position_where_a_network_does_not_run_on_meta():
    model = Shifted()
    with pytest.raises(RuntimeError, match="device"):
        copy.deepcopy(model).to("meta")(torch.zeros(1, *IMAGE, device="meta"))
    decomposed = decompose(model, IMAGE, Blocks("DW+PW")).model
    assert len(blocks_of(decomposed)) == 16
    assert all(hasattr(module, "layer0_bn") for module in blocks_of(decomposed).values())


class Odd(nn.Module):
    """Convolutions that no block may replace, and one that every block may replace."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 7, padding=3)
        self.dilated = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.cut = nn.Conv2d(16, 16, 3)
        self.even = nn.Conv2d(16, 16, 4, padding=2)
        self.oblong = nn.Conv2d(16, 16, (3, 5), padding=(1, 2))
        self.far = nn.Conv2d(16, 16, 3, stride=3, padding=1)
        self.mirrored = nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))
        self.halved = nn.Conv2d(16, 16, 3, padding=1)
        nn.utils.parametrize.register_parametrization(self.halved, "weight", Half())
        self.own = Own(16, 16, 3, padding=1)
        self.tied = nn.Conv2d(16, 16, 3, padding=1)
        self.other = nn.Conv2d(16, 16, 3, padding=1)
        self.other.weight = self.tied.weight
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.plain = nn.Conv2d(16, 16, 3, padding="same")
        self.point = nn.Conv2d(16, 24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            x = module(x)
        return x


class Half(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / 2


class Own(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square()


WHY = {
    "first": "kernel 7 x 7",
    "even": "kernel 4 x 4, which has no middle",
    "oblong": "kernel 3 x 5",
    "far": "stride 3 x 3",
    "mirrored": "padding of reflect",
    "halved": "ParametrizedConv2d, not a plain nn.Conv2d",
    "own": "Own, not a plain nn.Conv2d",
    "tied": "weights shared with other",
    "other": "weights shared with tied",
}


def test_kept_convolutions_are_listed_with_a_reason():
    model = Odd()
    graph = trace(model, (3, 24, 24))
    plan = plan_decomposition(model, graph, Blocks("DW+PW"))
    fitting = ["dilated", "cut", "normed", "plain"]
    assert [layer.name for layer in plan.replaced] == fitting
    assert {conv.name: conv.reason for conv in plan.skipped} == WHY
    _, kept = replaceable_convs(model, graph, Layers(), every=True)
    assert kept[2].reason == "kernel 3 x 5, neither square nor along one axis"
    few = plan_decomposition(model, graph, Blocks("DW+PW"), layers=Layers(least_channels=17))
    assert {conv.name: conv.reason for conv in few.skipped} == {
        **WHY,
        **dict.fromkeys(fitting, "16 input channels, fewer than 17"),
    }
    with pytest.raises(
        SettingError, match=r"^no convolution to replace: got 4 layers: 16 "
    ) as error:
        few.check()
    assert str(error.value).endswith("; accept fewer channels: least_channels 16")
    unfit = plan_decomposition(model, graph, Blocks("DW+RPW(3,0)"))
    assert unfit.skipped[-1].reason.startswith("DW+RPW(3,0): groups do not divide the widths")


# Convolutions that read other pixels than their neighbours, and how the block says it.
ELSEWHERE = [
    (nn.Conv2d(16, 32, 3, padding=3, dilation=3), "dilation 3"),
    (nn.Conv2d(16, 32, 3, padding="same", dilation=(1, 2)), "dilation 1 x 2"),
    (nn.Conv2d(16, 32, 3, 2, padding=1, dilation=2), "dilation 2, padding 1"),
    (nn.Conv2d(16, 32, 3), "padding 0"),
    (nn.Conv2d(16, 32, 5, 2, padding=(0, 1)), "padding 0 x 1"),
    (nn.Conv2d(16, 32, (1, 7), padding=(0, 3)), "along the width"),
    (nn.Conv2d(16, 32, (5, 1), dilation=(2, 1)), "along the height, dilation 2 x 1, padding 0"),
    (nn.Conv2d(16, 32, (1, 3), padding="valid"), "along the width, padding 0"),
]


@pytest.mark.parametrize(("conv", "text"), ELSEWHERE, ids=[text for _, text in ELSEWHERE])
def test_blocks_read_the_pixels_of_their_convolution(conv: nn.Conv2d, text: str):
    """Each output sees those that the convolution sees, by autograd, and all channels."""
    model, image = nn.Sequential(conv), (16, 10, 9)
    graph = trace(model, image)
    block = Block.parse(f"DW({max(conv.kernel_size)})+GPW(4)+SH(4)+GPW(4)")
    plan = planned_decomposition(model, graph, [PlannedBlock("0", block, "")])
    result = apply_decomposition(model, plan, image)
    (replacement,) = plan.replaced
    assert str(result.model[0].geometry) == text
    assert (replacement.params, replacement.macs) == (
        tuple(sum(p.numel() for p in part.parameters()) for part in (model, result.model)),
        (graph.macs, trace(result.model, image).macs),
    )
    assert replacement.fields[0] == replacement.fields[1]
    assert channel_field(replacement.sized.layers) == 16
    torch.testing.assert_close(*(seen_by(part, image) for part in (model, result.model)))
    assert Edits.from_json(result.edits.to_json()).steps == plan.steps


def seen_by(model: nn.Module, image: tuple[int, int, int]) -> torch.Tensor:
    """Return which pixels [H W] each output pixel [H' W'] depends on, by fp64 gradients."""
    model = copy.deepcopy(model).double().eval()
    for parameter in model.parameters():
        parameter.data.abs_().add_(0.1)
    x = torch.ones(1, *image, dtype=torch.float64, requires_grad=True)
    y = model(x).sum(1).flatten()
    (gradient,) = torch.autograd.grad(y, x, torch.eye(len(y)).to(y), is_grads_batched=True)
    return gradient.sum((1, 2)).flatten(1) != 0


def test_a_hint_is_given_only_where_it_helps():
    """Of the layers of a mobile network, none has to do with --least-channels."""
    mobile = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=16),
        torch.nn.Conv2d(16, 64, 1),
    )
    graph = trace(mobile, (3, 8, 8))
    with pytest.raises(
        SettingError, match=r"; name 1 x 1 convolutions, for a block such as "
    ) as error:
        plan_decomposition(mobile, graph).check()
    block = str(error.value).rpartition(" ")[2]
    replaced = decompose(mobile, (3, 8, 8), Blocks(block), layers=Layers("2")).plan.replaced
    assert [(one.name, str(one.sized.block)) for one in replaced] == [("2", block)]
    bare = mobile[:2]
    idle = plan_decomposition(bare, trace(bare, (3, 8, 8)))
    with pytest.raises(SettingError, match=r"; leave the blocks out: stages can be "):
        idle.check()
    model = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, padding=1))
    unfit = plan_decomposition(model, trace(model, (16, 8, 8)), Blocks("DW+RPW(3,0)"))
    with pytest.raises(SettingError, match=r"; offer another block$"):
        unfit.check()


@pytest.mark.slow
def test_layers_chosen_by_name():
    model = Odd()
    decomposed = decompose(model, (3, 24, 24), Blocks("RPW(2,1/2)"), layers=Layers(["point"])).model
    assert list(blocks_of(decomposed)) == ["point"]
    cheapest = decompose(model, (3, 24, 24), layers=Layers(["point"])).model.point.sized
    assert str(cheapest.block) == "RPW(4,0)+RPW(8,0)+GPW(8)"
    assert channel_field(cheapest.layers) == 16
    small = vgg()
    decomposed = decompose(small, IMAGE, Blocks("DW+PW"), layers=Layers("0")).model
    assert list(blocks_of(decomposed)) == ["0"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["point"], r"got point \(a pointwise convolution, and the block has a spatial kind\)"),
        (["grouped"], r"no block can replace this layer: got grouped \(a layer of kind GC\)"),
        (["far"], r"got far \(stride 3 x 3\)"),
        (["nothing", "plain"], "^no such layer in the network: got 'nothing'; allowed: 15 layers"),
        ([], "^no layer named"),
    ],
)
def test_names_that_no_block_may_replace_are_an_error(names, message: str):
    with pytest.raises(SettingError, match=message) as raised:
        decompose(Odd(), (3, 24, 24), Blocks("DW+PW"), layers=Layers(names))
    assert raised.value.argument == "names"
    assert "\n" not in str(raised.value)


def test_a_network_of_cheap_convolutions_says_so():
    with pytest.raises(SettingError, match="16; 13 are 1 x 1 already; 13 are grouped or"):
        decompose(named_network("mobilenet", 32, device="meta"), IMAGE)
