"""Fields of traced networks, by gradients of the modules themselves; and receptive fields."""

from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from models.autograd_field import Field, fields_of
from models.random_networks import Drawn
from timm.models.efficientnet import _gen_mobilenet_v1
from torch import Tensor, nn
from torchvision.models import MobileNetV2, ShuffleNetV2, vgg
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1
from torchvision.ops.misc import Conv2dNormActivation

from ifspace.models.analysis import Report, analyze
from ifspace.models.fields import Propagation, Receptive, receptive_fields
from ifspace.models.graph import Op
from ifspace.models.options import layer_text
from ifspace.models.tracing import trace
from ifspace.nn import RollingPointwiseConv2d

pytestmark = pytest.mark.usefixtures("one_thread")
# A network, its image, and the modules of each stage in the order in which they run.
Case = tuple[nn.Module, tuple[int, int, int], list[list[str]]]


def small_vgg() -> Case:
    features = vgg.make_layers([8, 8, "M", 12, "M", 16, 12, 12, "M"], batch_norm=True)
    net = nn.Sequential(OrderedDict(features=features))
    places = [[*range(6)], [*range(7, 10)], [*range(11, 20)]]
    return net, (3, 32, 24), [[f"features.{place}" for place in row] for row in places]


def sequence_of(
    block: type[BasicBlock | Bottleneck], widths: list[int], depth: int
) -> nn.Sequential:
    """A stage of torchvision's residual blocks for every width but the first."""
    stages = []
    for before, width in pairwise(widths):
        inner, stride = width // block.expansion, 2 if stages else 1
        side = nn.Sequential(conv1x1(before, width, stride), nn.BatchNorm2d(width))
        units = [block(before, inner, stride, side if before != width or stride > 1 else None)]
        units += [block(width, inner) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*units))
    return nn.Sequential(*stages)


def resnet18() -> Case:
    return sequence_of(BasicBlock, [4, 4, 6, 8], 2), (4, 16, 16), [["0"], ["1"], ["2"]]


def resnet50() -> Case:
    return sequence_of(Bottleneck, [6, 16, 24], 3), (6, 12, 12), [["0"], ["1"]]


def mobilenet_v1() -> Case:
    net = _gen_mobilenet_v1("mobilenetv1_100", channel_multiplier=0.06)
    return net, (3, 96, 96), [["conv_stem", "blocks.0"], *([f"blocks.{n}"] for n in range(1, 5))]


def mobilenet_v2() -> Case:
    settings = [[1, 8, 1, 1], [3, 8, 2, 2], [3, 16, 3, 2], [2, 16, 1, 1]]
    net = MobileNetV2(10, inverted_residual_setting=settings, width_mult=0.25, round_nearest=4)
    net.features[-1] = Conv2dNormActivation(net.features[-1][0].in_channels, 40, 1)  # not 1,280
    net.classifier = nn.Linear(40, 10)
    rows = [[0, 1], [2, 3], [4, 5, 6, 7, 8]]
    return net, (3, 48, 48), [[f"features.{place}" for place in row] for row in rows]


def shufflenet_v2() -> Case:
    net = ShuffleNetV2([2, 3, 2], [6, 12, 16, 24, 20], num_classes=10)
    return net, (3, 96, 96), [["conv1"], ["stage2"], ["stage3"], ["stage4", "conv5"]]


NETWORKS: list[Callable[[], Case]] = [
    small_vgg,
    resnet18,
    resnet50,
    mobilenet_v1,
    mobilenet_v2,
    shufflenet_v2,
]


def of_layers(report: Report) -> dict[str, Field]:
    return {
        entry.layer.name: (entry.field.size, entry.field.channels)
        for entry in report.layers
        if entry.layer.kind != "SH"
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.__name__)
def test_fields_are_those_of_gradients(case: Callable[[], Case]) -> None:
    torch.manual_seed(0)
    net, image, parts = case()
    report = analyze(net, image)
    assert len(report.stages) == len(parts)
    for stage, names in zip(report.stages, parts, strict=True):
        modules = [net.get_submodule(name) for name in names]
        units = [unit.name for unit in stage.units]
        # The modules of a stage one after another are the stage: their paths begin otherwise.
        paths = {f"{place}": name for place, name in enumerate(names)}
        real = {
            ".".join([paths[name.split(".")[0]], *name.split(".")[1:]]): name
            for name, _ in nn.Sequential(*modules).named_modules()
            if name
        }
        fields = fields_of(
            nn.Sequential(*modules),
            stage.channels,
            stage.side,
            [real[unit] for unit in units if unit in real],
        )
        layers = [entry for entry in stage.layers if entry.layer.kind != "SH"]
        assert layers
        for layer in layers:
            seen = (layer.field.size, layer.field.channels)
            assert seen == fields[real[layer.layer.name]], layer.layer.name
        if case is shufflenet_v2:
            continue  # half of the channels of its units have seen nothing new
        for unit in stage.units:
            if unit.name in real:
                assert (unit.field.size, unit.field.channels) == fields[real[unit.name]], unit.name


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(32))
def test_fields_of_networks_drawn_at_random(seed: int) -> None:
    check_drawn(Drawn(seed, 9), (9, 8))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_fields_of_dilated_layers_have_holes(seed: int) -> None:
    # No border cuts a field on a feature map this large: the rest of one with holes is arbitrary.
    check_drawn(Drawn(seed, 6, dilations=(1, 2)), (61, 60))


def check_drawn(net: Drawn, side: tuple[int, int]) -> None:
    torch.manual_seed(0)
    report = analyze(net, (net.channels, *side))
    assert not report.notes
    assert of_layers(report) == fields_of(net, net.channels, side, [])


class Branches(nn.Module):
    """The concatenation of a feature map and its 3 x 3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Conv2d(8, 8, 1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([x, self.one(x)], 1))


def test_a_concatenation_has_the_largest_field_of_its_parts() -> None:
    graph = trace(Branches(), (4, 9, 9))
    move = next(node for node in graph.nodes if node.op is Op.MOVE)
    propagation = Propagation(graph, [0])
    assert propagation.field(move.index, (9, 9)).volume == 3 * 3 * 2
    assert propagation.field(move.index, (9, 2)).size == (3, 2)
    # An output of the next layer sees only the pixel that it reads.
    (layer,) = (node.index for node in graph.nodes if node.layer and node.layer.name == "last")
    seen = propagation.fields(layer)
    assert propagation.field(layer, (9, 9)).channels == 1
    assert seen.pixels.tolist() == [[1, 1]] * 4 + [[3, 3]] * 4
    assert propagation.fields(layer) is seen


def test_a_feature_map_before_the_inputs_is_not_seen() -> None:
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    graph = trace(model, (4, 9, 9))
    assert (
        Propagation(graph, [2]).fields(1).rows.any()
        == Propagation(graph, [2]).fields(1).pixels.any()
        == 0
    )
    field = Propagation(graph, [2]).field(3, (9, 9))
    assert (field.size, field.channels, field.volume) == ((3, 3), 4, 36)


class Pyramid(nn.Module):
    """Global pooling parallel to a convolution, as in DeepLab."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pooled = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.beside, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        whole = self.pooled(nn.functional.adaptive_avg_pool2d(x, 1))
        whole = nn.functional.interpolate(whole, x.shape[2:], mode="bilinear")
        return self.last(torch.cat([whole, self.beside(x)], 1))


def test_a_pooled_and_upsampled_feature_map_sees_everything() -> None:
    net = Pyramid()
    report = analyze(net, (3, 12, 9))
    fields = fields_of(net, 3, (12, 9), [])
    assert fields["last"] == ((12, 9), 3)
    assert of_layers(report) == fields
    assert not report.gates
    assert len(report.stages) == 1
    assert report.layers[-1].past_image is False
    assert report.layers[-1].receptive == (12, 9)


def test_rolling_windows_are_those_of_the_module() -> None:
    model = nn.Sequential(
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        RollingPointwiseConv2d(12, 18, groups=3, overlap=Fraction(1, 2)),
        RollingPointwiseConv2d(18, 12, groups=6, overlap=Fraction(1, 3)),
    )
    report = analyze(model, (12, 7, 7))
    assert [entry.layer.kind for entry in report.layers] == ["DW", "RPW", "RPW"]
    assert of_layers(report) == fields_of(model, 12, (7, 7), [])


class Unreadable(nn.Module):
    """Passes through NumPy, which torch.export cannot."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy())


@pytest.mark.parametrize("how", ["export", "hooks"])
@pytest.mark.parametrize("overlap", ["0", "0.33", "1/2"])
@pytest.mark.parametrize("order", ["rolling", "blocked"])
def test_the_order_of_a_rolling_module_is_recognised(how: str, order: str, overlap: str) -> None:
    layers = [
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        RollingPointwiseConv2d(24, 36, groups=4, overlap=overlap, order=order),
        nn.Conv2d(36, 36, 3, padding=1, groups=36),
        RollingPointwiseConv2d(36, 36, groups=6, overlap=overlap, order=order),
    ]
    model = nn.Sequential(*layers, *([Unreadable()] if how == "hooks" else []))
    assert trace(model, (24, 7, 7)).how == how
    report = analyze(model, (24, 7, 7))
    read = [entry.layer for entry in report.layers]
    end = "" if order == "rolling" else ",blocked"
    notation = ["DW", f"RPW(4,{Fraction(overlap)}{end})", "DW", f"RPW(6,{Fraction(overlap)}{end})"]
    assert [layer_text(layer) for layer in read] == notation
    assert [layer.params for layer in read] == [24 * 10, 36 * 7, 36 * 10, 36 * 7]
    assert of_layers(report) == fields_of(nn.Sequential(*layers), 24, (7, 7), [])


def image_extent(net: nn.Module, image: tuple[int, int, int]) -> tuple[int, int]:
    """Return the height and width in pixels of the image that the central output depends on."""
    net = net.double().eval()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    x = torch.rand(1, *image, dtype=torch.float64, requires_grad=True)
    y = net(x)
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].any(0)
    return int(seen.any(1).sum()), int(seen.any(0).sum())


@pytest.mark.parametrize(
    ("net", "side"),
    [
        (
            nn.Sequential(
                nn.Conv2d(2, 2, 7, 2, 3), nn.AvgPool2d(3, 2, 1), nn.Conv2d(2, 2, 3, 1, 1)
            ),
            (19, 19),
        ),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3)), (8, 8)),
        (nn.Sequential(nn.Conv2d(2, 2, (1, 5), 1, (0, 2)), nn.Conv2d(2, 2, 3, (2, 1), 1)), (3, 7)),
        (nn.Sequential(nn.ConvTranspose2d(2, 2, 2, 2), nn.Conv2d(2, 2, 1)), (1, 1)),
        (nn.Sequential(nn.Conv2d(2, 2, 3, 2, 1), nn.ConvTranspose2d(2, 2, 4, 2, 1)), (5, 5)),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 2, 3)), (6, 6)),
        pytest.param(sequence_of(BasicBlock, [2, 2, 4], 2), (23, 23), marks=pytest.mark.slow),
        pytest.param(sequence_of(Bottleneck, [4, 8, 12], 2), (11, 11), marks=pytest.mark.slow),
    ],
)
def test_receptive_fields_are_those_of_gradients(net: nn.Module, side: tuple[int, int]) -> None:
    channels = next(parameter.shape[1] for parameter in net.parameters() if parameter.dim() > 1)
    image = (2 if channels == 8 else channels, 48, 48)
    graph = trace(net, image)
    assert receptive_fields(graph)[len(graph.nodes) - 1].size == side
    assert image_extent(net, image) == side


def test_the_steps_of_outputs_multiply() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, (2, 1)), nn.MaxPool2d(3), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 1)
    )
    fields = receptive_fields(trace(model, (3, 40, 40)))
    steps = [(1, 1), (2, 1), (6, 3), (3, Fraction(3, 2)), (3, Fraction(3, 2))]
    assert [field.jump for field in fields.values()] == steps
    assert fields[0] == Receptive((Fraction(1), Fraction(1)), (Fraction(1), Fraction(1)))
