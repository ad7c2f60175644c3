"""Units: what a stage repeats, found from the module tree and the graph of maps."""

from collections import OrderedDict

import pytest
import torch
from models import odd_networks as odd
from models.odd_networks import conv
from models.zoo import ZOO, on_meta
from small_networks import BasicBlock
from torch import Tensor, nn

from ifspace.models.tracing import trace
from ifspace.models.units import (
    Unit,
    units_of,
    within,
)
from ifspace.nn import named_network

pytestmark = pytest.mark.usefixtures("one_thread")


def found(model: nn.Module, image: tuple[int, ...]) -> tuple[Unit, ...]:
    return units_of(trace(model, image), model)


def names(model: nn.Module, image: tuple[int, ...]) -> list[str]:
    return [unit.name for unit in found(model, image)]


class Block(nn.Module):
    """A residual block on a width."""

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
    row = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.MaxPool2d(2), conv(8, 8))
    assert names(row, (3, 8, 8)) == ["0", "2", "4"]
    first, second, third = found(row, (3, 8, 8))
    assert (first.nodes, first.inputs, first.output) == ((1,), (0,), 1)
    assert (second.nodes, second.inputs, second.output) == ((2,), (1,), 2)
    # The pooled map enters.
    assert (third.nodes, third.inputs, third.output) == ((4,), (3,), 4)


def test_a_run_in_a_row_ends_where_all_channels_are_seen() -> None:
    row = nn.Sequential(conv(3, 8), *depthwise(8, 8), *depthwise(8, 16, 2), nn.Conv2d(16, 8, 1))
    assert names(row, (3, 8, 8)) == ["0", "1 … 4", "6 … 9", "11"]
    assert [len(unit.nodes) for unit in found(row, (3, 8, 8))] == [1, 2, 2, 1]
    shuffled = nn.Sequential(
        nn.Conv2d(8, 8, 1, groups=4), nn.ChannelShuffle(4), conv(8, 8, groups=2), conv(8, 8)
    )
    assert [unit.nodes for unit in found(shuffled, (8, 6, 6))] == [(1, 3), (4,)]


def test_a_run_does_not_go_on_behind_a_pool() -> None:
    row = nn.Sequential(conv(8, 8, groups=8), nn.MaxPool2d(2), nn.Conv2d(8, 16, 1))
    assert names(row, (8, 8, 8)) == ["0", "2"]
    row = nn.Sequential(conv(8, 8, groups=8), nn.Upsample(scale_factor=2), nn.Conv2d(8, 16, 1))
    assert names(row, (8, 8, 8)) == ["0", "2"]
    row = nn.Sequential(conv(8, 8, groups=8), nn.ConvTranspose2d(8, 8, 2, 2))
    assert names(row, (8, 8, 8)) == ["0", "1"]


def test_what_joins_maps_is_a_unit_with_all_inside() -> None:
    net = nn.Sequential(OrderedDict(stem=conv(3, 8), one=Block(8), two=Block(8)))
    assert names(net, (3, 8, 8)) == ["stem", "one", "two"]
    _, one, two = found(net, (3, 8, 8))
    assert (len(one.nodes), one.inputs) == (2, (1,))
    assert two.inputs == (one.output,)


def test_a_row_of_one_block_is_that_block() -> None:
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


def test_a_network_that_joins_is_no_unit_itself() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.more, self.again = conv(3, 8, stride=2), conv(8, 8), conv(8, 8)
            self.last = conv(8, 8, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.down(x)
            return self.last(x + self.again(self.more(x)))

    assert names(Network(), (3, 8, 8)) == ["down", "more", "again", "last"]
    # Inside another module too: it makes maps smaller twice.
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
    units = found(net, (3, 8, 8))
    assert [node for unit in units for node in unit.nodes] == [
        node.index for node in trace(net, (3, 8, 8)).nodes if node.layer
    ]
    assert {unit.name for unit in units} == {"stem", "one"}


def test_a_module_with_weights_of_its_own_and_layers_is_one_unit() -> None:
    net = odd.Attention()
    assert names(net, odd.IMAGE) == ["patches", "mix", "dense"]


def test_a_strided_block_is_one_unit_and_what_enters_it_enters_once() -> None:
    net = nn.Sequential(conv(3, 8), BasicBlock(8, 12, 2), BasicBlock(12, 12, 1))
    first, second, third = found(net, (3, 8, 8))
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
    first, second = found(net, (8, 8, 8))
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


@pytest.mark.parametrize("model", BLOCKS)
def test_units_of_the_zoo_are_its_blocks(model: str) -> None:
    entry = next(each for each in ZOO if each.model == model)
    net = on_meta(entry)
    units = found(net, entry.small if next(net.parameters()).is_meta else entry.image)
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


def test_paths_hold_what_is_below_them() -> None:
    assert within("layer1.0.conv1", "layer1.0")
    assert within("layer1", "layer1")
    assert not within("layer10.conv1", "layer1")


def test_a_unit_says_where_it_begins_and_ends() -> None:
    assert Unit(("a.0",), (1,), (0,), 1).name == "a.0"
    assert Unit(("a.0", "a.3"), (1, 2), (0,), 2).name == "a.0 … a.3"


def test_layers_in_a_row_are_units_where_branches_are_not_seen() -> None:
    class Numbers(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.from_numpy(x.numpy()))

    net = nn.Sequential(conv(3, 8), Numbers(8))
    trace_of = trace(net, (3, 8, 8))
    assert trace_of.how == "hooks"
    assert [unit.name for unit in units_of(trace_of, net)] == ["0", "1.body.0", "1.body.2"]
