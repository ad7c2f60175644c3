"""Stages: what opens one, what enters it, and on which maps it works."""

import pytest
import torch
import torch.nn.functional as F
from models import odd_networks as odd
from models.odd_networks import IMAGE, conv
from models.zoo import ZOO, on_meta
from small_networks import BasicBlock
from torch import Tensor, nn

from ifspace.models.graph import Op
from ifspace.models.tracing import trace
from ifspace.models.units import (
    TracedStage,
    stages_of,
    units_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")
Row = tuple[tuple[int, int], int, list[str]]


def stages(model: nn.Module, image: tuple[int, ...] = IMAGE) -> tuple[TracedStage, ...]:
    found = trace(model, image)
    return stages_of(found, units_of(found, model))


def rows(model: nn.Module, image: tuple[int, ...] = IMAGE) -> list[Row]:
    """Of every stage the side, the channels that enter, and its units."""
    return [
        (stage.side, stage.channels, [unit.name for unit in stage.units])
        for stage in stages(model, image)
    ]


def test_a_strided_layer_opens_a_stage_and_counts_in_it() -> None:
    row = nn.Sequential(
        conv(3, 8), conv(8, 12, stride=2), conv(12, 12), conv(12, 12, stride=(2, 1))
    )
    assert rows(row) == [((16, 16), 3, ["0"]), ((8, 8), 8, ["1", "2"]), ((4, 8), 12, ["3"])]
    first, second, _ = stages(row)
    assert second.field(second.units[0].output).volume == 9 * 8
    assert second.elements == 64 * 8
    assert (first.inputs, second.inputs) == ((0,), (1,))


def test_a_pool_opens_a_stage_on_its_own() -> None:
    row = nn.Sequential(conv(3, 8), nn.MaxPool2d(2), conv(8, 12), nn.AvgPool2d((4, 2)), conv(12, 4))
    assert rows(row) == [((16, 16), 3, ["0"]), ((8, 8), 8, ["2"]), ((2, 4), 12, ["4"])]
    found = trace(row, IMAGE)
    for stage in stages(row)[1:]:
        (entry,) = stage.inputs
        assert found.nodes[entry].op is Op.POOL
        assert found.nodes[entry].size == stage.side


def test_a_pool_of_stride_one_does_not() -> None:
    row = nn.Sequential(conv(3, 8), nn.MaxPool2d(3, 1, 1), conv(8, 8), nn.MaxPool2d(2, 1))
    (stage,) = stages(row)
    assert stage.field(stage.units[1].output).size == (7, 7)


def test_a_pool_of_the_whole_map_ends_the_stages() -> None:
    row = nn.Sequential(conv(3, 8), nn.AvgPool2d(16), conv(8, 4, 1))
    assert rows(row) == [((16, 16), 3, ["0"])]
    assert [layer.name for layer in trace(row, IMAGE).head] == ["2"]
    # One pixel that has not seen everything is a map like any other.
    row = nn.Sequential(conv(3, 8), nn.AvgPool2d(15), conv(8, 4, 1))
    assert rows(row) == [((16, 16), 3, ["0"]), ((1, 1), 8, ["2"])]


def test_a_unit_that_holds_a_stride_opens_the_stage_as_a_whole() -> None:
    # The first layer of an inverted residual works on the maps before.
    class Inverted(nn.Module):
        def __init__(self, c_in: int, c_out: int, stride: int) -> None:
            super().__init__()
            self.wide, self.deep = conv(c_in, 12, 1), conv(12, 12, stride=stride, groups=12)
            self.thin = conv(12, c_out, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.thin(self.deep(self.wide(x)))
            return x + y if x.shape == y.shape else y

    net = nn.Sequential(Inverted(3, 8, 1), Inverted(8, 8, 1), Inverted(8, 6, 2), Inverted(6, 6, 1))
    assert rows(net) == [((16, 16), 3, ["0", "1"]), ((8, 8), 8, ["2", "3"])]
    second = stages(net)[1]
    assert len(second.nodes) == 6
    assert [second.field(number).size for number in second.nodes[:3]] == [(1, 1), (3, 3), (3, 3)]


def test_pools_and_strides_one_after_another_leave_no_empty_stage() -> None:
    net = nn.Sequential(conv(3, 8, stride=2), nn.MaxPool2d(2), BasicBlock(8, 12, 2))
    assert rows(net) == [((8, 8), 3, ["0"]), ((2, 2), 8, ["2"])]


class Parallel(nn.Module):
    """A strided layer beside a pool and a layer behind it, as in DLA."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.strided = conv(3, 8), conv(8, 12, stride=2)
        self.behind, self.last = nn.Conv2d(8, 12, 1), conv(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.strided(x) + self.behind(F.avg_pool2d(x, 2)))


def test_a_pool_beside_a_strided_layer_is_a_branch_of_it() -> None:
    assert rows(Parallel()) == [((16, 16), 3, ["stem"]), ((8, 8), 8, ["strided", "behind", "last"])]
    stage = stages(Parallel())[1]
    fields = [stage.field(unit.output) for unit in stage.units]
    assert [field.size for field in fields] == [(3, 3), (2, 2), (5, 5)]
    assert [field.channels for field in fields] == [8, 8, 8]


def test_maps_made_larger_open_a_stage_and_connections_enter_it() -> None:
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


def test_maps_made_larger_by_a_pixel_shuffle_too() -> None:
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
        """The stage begins with two strided layers, on two maps."""

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


def test_a_stage_of_constants_alone_is_no_error() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            made = x.new_zeros(x.shape)
            made[:, :1] = x[:, :1]
            made[:, :2] = torch.zeros_like(made[:, :2])
            return self.a(made)

    (stage,) = stages(Constant())
    assert (stage.side, stage.channels) == ((16, 16), 0)


STAGES = {
    "torchvision:vgg11_bn": ([224, 112, 56, 28, 14], [3, 64, 128, 256, 512], [1, 1, 2, 2, 2]),
    "torchvision:resnet50": ([112, 56, 28, 14, 7], [3, 64, 256, 512, 1024], [1, 3, 4, 6, 3]),
    "torchvision:mobilenet_v2": ([112, 56, 28, 14, 7], [3, 16, 24, 32, 96], [2, 2, 3, 7, 5]),
    "torchvision:shufflenet_v2_x1_0": ([112, 28, 14, 7], [3, 24, 116, 232], [1, 4, 8, 5]),
    "torchvision:densenet121": ([112, 56, 28, 14, 7], [3, 64, 128, 256, 512], [1, 2, 2, 2, 1]),
    "torchvision:convnext_tiny": ([56, 28, 14, 7], [3, 96, 192, 384], [4, 4, 10, 4]),
    "torchvision:inception_v3": ([149, 73, 35, 17, 8], [3, 64, 192, 288, 768], [3, 2, 3, 5, 3]),
    "timm:mobilenetv1_100": ([112, 56, 28, 14, 7], [3, 64, 128, 256, 512], [2, 2, 2, 6, 2]),
    "mobilenet": ([32, 16, 8, 4, 2], [3, 64, 128, 256, 512], [2, 2, 2, 6, 2]),
    "fog": ([32, 16, 8, 4], [3, 64, 128, 256], [5, 4, 4, 4]),
}


@pytest.mark.parametrize("model", STAGES)
def test_stages_of_the_zoo(model: str) -> None:
    entry = next(each for each in ZOO if each.model == model)
    found = stages(on_meta(entry), entry.image)
    sides, channels, depths = STAGES[model]
    assert [stage.side for stage in found] == [(side, side) for side in sides]
    assert [stage.channels for stage in found] == channels
    assert [len(stage.units) for stage in found] == depths
