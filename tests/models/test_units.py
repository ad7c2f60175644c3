"""Units and stages: residual blocks and single layers; what opens a stage, and what enters it."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from models import odd_networks as odd
from models.odd_networks import IMAGE, conv
from models.zoo import ZOO, on_meta
from small_networks import BasicBlock
from torch import Tensor, nn

import ifspace
from ifspace.models.graph import Op
from ifspace.models.surgery import Replace
from ifspace.models.tracing import trace
from ifspace.models.units import (
    TracedStage,
    Unit,
    stages_of,
    units_of,
    within,
)
from ifspace.nn import build, named_network

pytestmark = pytest.mark.usefixtures("one_thread")


def units_in(model: nn.Module, image: tuple[int, ...]) -> tuple[Unit, ...]:
    return units_of(trace(model, image), model)


def names(model: nn.Module, image: tuple[int, ...]) -> list[str]:
    return [unit.name for unit in units_in(model, image)]


class Block(nn.Module):
    """A residual block of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def depthwise(c_in: int, c_out: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in),
        nn.BatchNorm2d(c_in),
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, 1),
        nn.ReLU(),
    ]


def test_layers_that_see_everything_are_units_of_their_own() -> None:
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.MaxPool2d(2), conv(8, 8))
    assert names(model, (3, 8, 8)) == ["0", "2", "4"]
    first, second, third = units_in(model, (3, 8, 8))
    assert (first.nodes, first.inputs, first.output) == ((1,), (0,), 1)
    assert (second.nodes, second.inputs, second.output) == ((2,), (1,), 2)
    # The pooled feature map is an input.
    assert (third.nodes, third.inputs, third.output) == ((4,), (3,), 4)


def test_consecutive_layers_are_a_unit_until_all_channels_are_seen() -> None:
    model = nn.Sequential(conv(3, 8), *depthwise(8, 8), *depthwise(8, 16, 2), nn.Conv2d(16, 8, 1))
    assert names(model, (3, 8, 8)) == ["0", "1 … 4", "6 … 9", "11"]
    assert [len(unit.nodes) for unit in units_in(model, (3, 8, 8))] == [1, 2, 2, 1]
    shuffled = nn.Sequential(
        nn.Conv2d(8, 8, 1, groups=4), nn.ChannelShuffle(4), conv(8, 8, groups=2), conv(8, 8)
    )
    assert [unit.nodes for unit in units_in(shuffled, (8, 6, 6))] == [(1, 3), (4,)]


def test_a_block_continues_the_unit_of_the_layer_that_it_replaces() -> None:
    convs = nn.Sequential(conv(8, 16), *depthwise(16, 32), nn.Conv2d(32, 8, 1))
    before = names(convs, (8, 9, 9))
    at = next(n for n, part in enumerate(convs) if getattr(part, "out_channels", 0) == 32)
    Replace(f"{at}", ifspace.Block.parse("GPW(4)+SH(4)+GPW(4)").at(16, 32)).apply(convs)
    assert names(convs, (8, 9, 9)) == before
    assert len(before) == 3
    # Blocks of a stage, each short of channels, stay units of their own.
    short = [build("DW+GPW(4)", 16) for _ in range(2)]
    assert names(nn.Sequential(conv(8, 16), *short), (8, 9, 9)) == ["0", "1", "2"]


def test_a_run_ends_at_a_pool() -> None:
    model = nn.Sequential(conv(8, 8, groups=8), nn.MaxPool2d(2), nn.Conv2d(8, 16, 1))
    assert names(model, (8, 8, 8)) == ["0", "2"]
    model = nn.Sequential(conv(8, 8, groups=8), nn.Upsample(scale_factor=2), nn.Conv2d(8, 16, 1))
    assert names(model, (8, 8, 8)) == ["0", "2"]
    model = nn.Sequential(conv(8, 8, groups=8), nn.ConvTranspose2d(8, 8, 2, 2))
    assert names(model, (8, 8, 8)) == ["0", "1"]


def test_a_module_that_joins_feature_maps_is_a_unit() -> None:
    net = nn.Sequential(OrderedDict(stem=conv(3, 8), one=Block(8), two=Block(8)))
    assert names(net, (3, 8, 8)) == ["stem", "one", "two"]
    _, one, two = units_in(net, (3, 8, 8))
    assert (len(one.nodes), one.inputs) == (2, (1,))
    assert two.inputs == (one.output,)


def test_a_sequential_of_one_block_is_that_block() -> None:
    net = nn.Sequential(OrderedDict(stem=conv(3, 8), layer1=nn.Sequential(Block(8))))
    assert names(net, (3, 8, 8)) == ["stem", "layer1.0"]
    deeper = nn.Sequential(conv(3, 8), nn.Sequential(nn.Sequential(Block(8))))
    assert names(deeper, (3, 8, 8)) == ["0", "1.0.0"]


def test_a_module_of_conv_and_norm_names_its_layer() -> None:
    net = nn.Sequential(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8)), nn.Sequential(conv(8, 8)))
    assert names(net, (3, 8, 8)) == ["0", "1"]
    separable = nn.Sequential(conv(3, 8), nn.Sequential(*depthwise(8, 8)))
    assert names(separable, (3, 8, 8)) == ["0", "1"]


def test_all_modules_of_a_class_that_joins_are_units() -> None:
    # The first of them changes the width, and has nothing to add.
    class Maybe(nn.Module):
        def __init__(self, c_in: int, c_out: int) -> None:
            super().__init__()
            self.one, self.two = conv(c_in, 12), conv(12, c_out)

        def forward(self, x: Tensor) -> Tensor:
            y = self.two(self.one(x))
            return x + y if x.shape == y.shape else y

    net = nn.Sequential(Maybe(3, 8), Maybe(8, 8))
    assert names(net, (3, 8, 8)) == ["0", "1"]


def test_a_network_that_joins_is_not_a_unit() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.more, self.again = conv(3, 8, stride=2), conv(8, 8), conv(8, 8)
            self.last = conv(8, 8, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.down(x)
            return self.last(x + self.again(self.more(x)))

    assert names(Network(), (3, 8, 8)) == ["down", "more", "again", "last"]
    # Inside another module too, as it strides twice.
    assert names(nn.Sequential(Network()), (3, 8, 8)) == ["0.down", "0.more", "0.again", "0.last"]


def test_shared_modules_are_units_by_any_name() -> None:
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one = conv(3, 8), Block(8)
            self.two = self.one

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(self.stem(x)))

    net = Shares()
    units = units_in(net, (3, 8, 8))
    assert [node for unit in units for node in unit.nodes] == [
        node.index for node in trace(net, (3, 8, 8)).nodes if node.layer
    ]
    assert {unit.name for unit in units} == {"stem", "one"}


def test_a_module_with_weights_of_its_own_and_layers_is_one_unit() -> None:
    net = odd.Attention()
    assert names(net, odd.IMAGE) == ["patches", "mix", "dense"]


def test_a_strided_block_is_one_unit_and_what_enters_it_enters_once() -> None:
    net = nn.Sequential(conv(3, 8), BasicBlock(8, 12, 2), BasicBlock(12, 12, 1))
    first, second, third = units_in(net, (3, 8, 8))
    assert (second.name, len(second.nodes), second.inputs) == ("1", 3, (first.output,))
    assert (third.name, third.inputs) == ("2", (second.output,))


def test_a_pool_at_the_end_is_not_the_output() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.pool = conv(8, 8), conv(8, 8), nn.AvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x + self.two(self.one(x)))

    net = nn.Sequential(Pooled(), Pooled())
    first, second = units_in(net, (8, 8, 8))
    nodes = trace(net, (8, 8, 8)).nodes
    assert nodes[first.output].size == (8, 8)
    assert [nodes[number].size for number in second.inputs] == [(4, 4)]


BLOCKS = {
    "torchvision:vgg16": ["features.0", "features.2", "features.5"],
    "torchvision:resnet50": ["conv1", "layer1.0", "layer1.1"],
    "torchvision:mobilenet_v2": ["features.0", "features.1", "features.2"],
    "torchvision:shufflenet_v2_x1_0": ["conv1", "stage2.0", "stage2.1"],
    "torchvision:densenet121": ["features.conv0", "features.denseblock1", "features.transition1"],
    "torchvision:inception_v3": ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"],
    "torchvision:regnet_y_400mf": [
        "stem",
        "trunk_output.block1.block1-0",
        "trunk_output.block2.block2-0",
    ],
    "torchvision:convnext_tiny": ["features.0", "features.1.0", "features.1.1"],
    "timm:mobilenetv1_100": ["conv_stem", "blocks.0.0", "blocks.1.0"],
    "timm:ghostnet_100": ["conv_stem", "blocks.0.0", "blocks.1.0"],
    "resnet50": ["stem", "stages.stage1.unit1", "stages.stage1.unit2"],
    "mobilenet": ["stem", "stages.stage1.unit1", "stages.stage2.unit1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("model", BLOCKS)
def test_units_of_the_zoo_are_its_blocks(model: str) -> None:
    entry = next(entry for entry in ZOO if entry.model == model)
    net = on_meta(entry)
    units = units_in(net, entry.small if next(net.parameters()).is_meta else entry.image)
    assert [unit.name for unit in units][:3] == BLOCKS[model]
    # Every layer is in one unit, and every unit has the modules that hold it.
    layers = [
        node.index
        for node in trace(net, entry.small).nodes
        if node.layer is not None and node.layer.kind != "SH"
    ]
    assert sorted(number for unit in units for number in unit.nodes) == layers
    modules = dict(net.named_modules())
    assert all(name in modules for unit in units for name in unit.names)


def test_a_network_of_layouts_has_the_units_of_its_layout() -> None:
    net = named_network("vgg16", 32)
    assert names(net, (3, 32, 32)) == [
        f"stages.stage{stage}.unit{unit}"
        for stage, depth in enumerate((2, 2, 3, 3, 3), 1)
        for unit in range(1, depth + 1)
    ]


def test_modules_hold_those_inside_them_by_name() -> None:
    assert within("layer1.0.conv1", "layer1.0")
    assert within("layer1", "layer1")
    assert not within("layer10.conv1", "layer1")


def test_a_unit_has_its_first_and_last_node() -> None:
    assert Unit(("a.0",), (1,), (0,), 1).name == "a.0"
    assert Unit(("a.0", "a.3"), (1, 2), (0,), 2).name == "a.0 … a.3"


def test_with_hooks_every_layer_is_a_unit() -> None:
    class Numbers(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.from_numpy(x.numpy()))

    net = nn.Sequential(conv(3, 8), Numbers(8))
    trace_of = trace(net, (3, 8, 8))
    assert trace_of.how == "hooks"
    assert [unit.name for unit in units_of(trace_of, net)] == ["0", "1.body.0", "1.body.2"]


Row = tuple[tuple[int, int], int, list[str]]


def stages(model: nn.Module, image: tuple[int, ...] = IMAGE) -> tuple[TracedStage, ...]:
    graph = trace(model, image)
    return stages_of(graph, units_of(graph, model))


def rows(model: nn.Module, image: tuple[int, ...] = IMAGE) -> list[Row]:
    """Return the side, the input channels and the units of every stage."""
    return [
        (stage.side, stage.channels, [unit.name for unit in stage.units])
        for stage in stages(model, image)
    ]


def test_a_strided_layer_opens_a_stage_and_counts_in_it() -> None:
    model = nn.Sequential(
        conv(3, 8), conv(8, 12, stride=2), conv(12, 12), conv(12, 12, stride=(2, 1))
    )
    # What enters a stage is twice what it writes, in the direction of the stride.
    assert rows(model) == [((16, 16), 3, ["0"]), ((16, 16), 8, ["1", "2"]), ((8, 8), 12, ["3"])]
    first, second, third = stages(model)
    assert [stage.side_out for stage in (first, second, third)] == [(16, 16), (8, 8), (4, 8)]
    assert second.field(second.units[0].output).volume == 9 * 8
    assert second.elements == 256 * 8
    assert (first.inputs, second.inputs) == ((0,), (1,))


def test_a_pool_opens_a_stage_on_its_own() -> None:
    model = nn.Sequential(
        conv(3, 8), nn.MaxPool2d(2), conv(8, 12), nn.AvgPool2d((4, 2)), conv(12, 4)
    )
    assert rows(model) == [((16, 16), 3, ["0"]), ((8, 8), 8, ["2"]), ((2, 4), 12, ["4"])]
    graph = trace(model, IMAGE)
    for stage in stages(model)[1:]:
        (entry,) = stage.inputs
        assert graph.nodes[entry].op is Op.POOL
        assert graph.nodes[entry].size == stage.side


def test_a_pool_of_stride_one_does_not() -> None:
    model = nn.Sequential(conv(3, 8), nn.MaxPool2d(3, 1, 1), conv(8, 8), nn.MaxPool2d(2, 1))
    (stage,) = stages(model)
    assert stage.field(stage.units[1].output).size == (7, 7)


def test_global_pooling_ends_the_stages() -> None:
    model = nn.Sequential(conv(3, 8), nn.AvgPool2d(16), conv(8, 4, 1))
    assert rows(model) == [((16, 16), 3, ["0"])]
    assert [layer.name for layer in trace(model, IMAGE).head] == ["2"]
    # A single pixel that has not seen the whole image is an ordinary feature map.
    model = nn.Sequential(conv(3, 8), nn.AvgPool2d(15), conv(8, 4, 1))
    assert rows(model) == [((16, 16), 3, ["0"]), ((1, 1), 8, ["2"])]


def test_a_unit_that_holds_a_stride_opens_the_stage_as_a_whole() -> None:
    # The first layer of an inverted residual works at the size of the stage before.
    class Inverted(nn.Module):
        def __init__(self, c_in: int, c_out: int, stride: int) -> None:
            super().__init__()
            self.wide, self.deep = conv(c_in, 12, 1), conv(12, 12, stride=stride, groups=12)
            self.thin = conv(12, c_out, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.thin(self.deep(self.wide(x)))
            return x + y if x.shape == y.shape else y

    net = nn.Sequential(Inverted(3, 8, 1), Inverted(8, 8, 1), Inverted(8, 6, 2), Inverted(6, 6, 1))
    assert rows(net) == [((16, 16), 3, ["0", "1"]), ((16, 16), 8, ["2", "3"])]
    second = stages(net)[1]
    assert len(second.nodes) == 6
    assert [second.field(number).size for number in second.nodes[:3]] == [(1, 1), (3, 3), (3, 3)]


def test_pools_and_strides_one_after_another_leave_no_empty_stage() -> None:
    net = nn.Sequential(conv(3, 8, stride=2), nn.MaxPool2d(2), BasicBlock(8, 12, 2))
    assert rows(net) == [((16, 16), 3, ["0"]), ((4, 4), 8, ["2"])]
    assert [stage.side_out for stage in stages(net)] == [(8, 8), (2, 2)]


class Parallel(nn.Module):
    """A strided layer parallel to a pool followed by a layer, as in DLA."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.strided = conv(3, 8), conv(8, 12, stride=2)
        self.behind, self.last = nn.Conv2d(8, 12, 1), conv(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.strided(x) + self.behind(F.avg_pool2d(x, 2)))


def test_a_pool_parallel_to_a_strided_layer_is_a_branch_of_it() -> None:
    assert rows(Parallel()) == [
        ((16, 16), 3, ["stem"]),
        ((16, 16), 8, ["strided", "behind", "last"]),
    ]
    stage = stages(Parallel())[1]
    fields = [stage.field(unit.output) for unit in stage.units]
    assert [field.size for field in fields] == [(3, 3), (2, 2), (5, 5)]
    assert [field.channels for field in fields] == [8, 8, 8]


def test_upsampling_opens_a_stage_and_skip_connections_enter_it() -> None:
    assert rows(odd.UNet()) == [
        ((16, 16), 3, ["one"]),
        ((8, 8), 8, ["two"]),
        ((4, 4), 12, ["low"]),
        ((8, 8), 16 + 12, ["up", "three"]),
        ((16, 16), 12 + 8, ["four", "classes"]),
    ]
    _, _, _, fourth, fifth = stages(odd.UNet())
    # A transposed convolution counts with the new side; the skip connection itself enters.
    up, three = (fourth.field(unit.output) for unit in fourth.units)
    assert (up.size, up.channels, three.size, three.channels) == ((2, 2), 16, (4, 4), 28)
    four, classes = (fifth.field(unit.output) for unit in fifth.units)
    assert (four.size, four.channels, classes.volume) == ((3, 3), 20, 9 * 20)


def test_a_pixel_shuffle_opens_a_stage() -> None:
    assert rows(odd.Enlarged()) == [((16, 16), 3, ["a"]), ((32, 32), 2, ["b"])]


def test_an_image_resized_at_once_is_the_image_of_the_first_stage() -> None:
    class Resized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = conv(3, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(F.interpolate(x, (24, 24), mode="bilinear"))

    assert rows(Resized()) == [((24, 24), 3, ["one"])]


def test_several_inputs_are_counted_one_by_one() -> None:
    class Both(nn.Module):
        """The stage begins with two strided layers on two feature maps."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(3, 8), conv(8, 6)
            self.c, self.d = conv(8, 4, stride=2), conv(6, 4, stride=2)
            self.last = conv(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            b = self.b(a)
            return self.last(torch.cat([self.c(a), self.d(b)], 1))

    first, second = stages(Both())
    assert (first.channels, second.channels) == (3, 14)
    assert len(second.inputs) == 2
    fields = [second.field(unit.output) for unit in second.units]
    assert [field.channels for field in fields] == [8, 6, 14]
    assert fields[-1].size == (5, 5)


class Reduced(nn.Module):
    """Attention with keys and values from a feature map of half the size, as in PVT and Twins."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.smaller = nn.Conv2d(width, width, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens, smaller = (y.flatten(2).transpose(1, 2) for y in (x, self.smaller(x)))
        attention = (self.query(tokens) @ smaller.transpose(1, 2)).softmax(-1) @ smaller
        return x + self.out(attention).transpose(1, 2).reshape(x.shape)


class ClassAttention(nn.Module):
    """A token that no image changes looks at all pixels and is put in front of them, as in XCiT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, width))
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.token, x.flatten(2).transpose(1, 2)], 1)
        attention = self.query(self.token) @ self.key(both).transpose(1, 2)
        return torch.cat([attention.softmax(-1) @ both, both[:, 1:]], 1)[:, 0]


def test_a_unit_that_returns_as_many_pixels_as_enter_it_opens_no_stage() -> None:
    model = nn.Sequential(conv(3, 8), Reduced(8), Reduced(8), conv(8, 16, stride=2), Reduced(16))
    opened = stages(model, (3, 16, 16))
    assert [(stage.side, [unit.name for unit in stage.units]) for stage in opened] == [
        ((16, 16), ["0", "1", "2"]),
        ((16, 16), ["3", "4"]),
    ]
    assert [stage.channels for stage in opened] == [3, 8]


def test_a_layer_on_a_constant_is_in_the_stage_of_its_unit() -> None:
    opened = stages(nn.Sequential(conv(3, 8), ClassAttention(8)), (3, 8, 8))
    assert [[unit.name for unit in stage.units] for stage in opened] == [["0", "1"]]


def test_a_stage_of_constants_alone_is_not_an_error() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            padded = x.new_zeros(x.shape)
            padded[:, :1] = x[:, :1]
            padded[:, :2] = torch.zeros_like(padded[:, :2])
            return self.a(padded)

    (stage,) = stages(Constant())
    assert (stage.side, stage.channels) == ((16, 16), 0)


# What enters each stage and what it writes in pixels, the channels that enter, and its units.
STAGES = {
    "torchvision:vgg11_bn": (
        [224, 112, 56, 28, 14],
        [224, 112, 56, 28, 14],
        [3, 64, 128, 256, 512],
        [1, 1, 2, 2, 2],
    ),
    "torchvision:resnet50": (
        [224, 56, 56, 28, 14],
        [112, 56, 28, 14, 7],
        [3, 64, 256, 512, 1024],
        [1, 3, 4, 6, 3],
    ),
    "torchvision:mobilenet_v2": (
        [224, 112, 56, 28, 14],
        [112, 56, 28, 14, 7],
        [3, 16, 24, 32, 96],
        [2, 2, 3, 7, 5],
    ),
    "torchvision:shufflenet_v2_x1_0": (
        [224, 56, 28, 14],
        [112, 28, 14, 7],
        [3, 24, 116, 232],
        [1, 4, 8, 5],
    ),
    "torchvision:densenet121": (
        [224, 56, 28, 14, 7],
        [112, 56, 28, 14, 7],
        [3, 64, 128, 256, 512],
        [1, 2, 2, 2, 1],
    ),
    "torchvision:convnext_tiny": (
        [224, 56, 28, 14],
        [56, 28, 14, 7],
        [3, 96, 192, 384],
        [4, 4, 10, 4],
    ),
    "torchvision:inception_v3": (
        [299, 73, 35, 35, 17],
        [149, 73, 35, 17, 8],
        [3, 64, 192, 288, 768],
        [3, 2, 3, 5, 3],
    ),
    "timm:mobilenetv1_100": (
        [224, 112, 56, 28, 14],
        [112, 56, 28, 14, 7],
        [3, 64, 128, 256, 512],
        [2, 2, 2, 6, 2],
    ),
    "mobilenet": ([32, 32, 16, 8, 4], [32, 16, 8, 4, 2], [3, 64, 128, 256, 512], [2, 2, 2, 6, 2]),
    "fog": ([32, 32, 16, 8], [32, 16, 8, 4], [3, 64, 128, 256], [5, 4, 4, 4]),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", STAGES)
def test_stages_of_the_zoo(model: str) -> None:
    entry = next(entry for entry in ZOO if entry.model == model)
    zoo_stages = stages(on_meta(entry), entry.image)
    sides, written, channels, depths = STAGES[model]
    assert [stage.side for stage in zoo_stages] == [(side, side) for side in sides]
    assert [stage.side_out for stage in zoo_stages] == [(side, side) for side in written]
    assert [stage.channels for stage in zoo_stages] == channels
    assert [len(stage.units) for stage in zoo_stages] == depths
