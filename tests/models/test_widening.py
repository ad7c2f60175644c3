"""Units that change the width, rebuilt to keep it: which layers follow, and which raise."""

import copy
from collections.abc import Callable

import pytest
import torch
from models.movable_networks import Gated, Separable, conv, plain, separable
from small_networks import BasicBlock, params
from torch import Tensor, nn
from torchvision.models.densenet import _DenseLayer
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import Bottleneck
from torchvision.models.shufflenetv2 import InvertedResidual as Shuffled

from ifspace.errors import IfspaceError, SettingError
from ifspace.models.surgery import (
    widened,
    without_values,
)
from ifspace.nn import FOG, MOBILENET, RollingPointwiseConv2d, Style, build
from ifspace.nn.network import (
    FreeShortcut,
    Residual,
)


def bottleneck(c_in: int, c_out: int, stride: int) -> nn.Module:
    beside = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    return Bottleneck(c_in, c_out // 4, stride, beside)


def free(c_in: int, c_out: int, stride: int) -> nn.Module:
    return Residual([conv(c_in, c_out, stride)], FreeShortcut(c_in, c_out, stride), nn.ReLU())


def ours(block: str, style: Style) -> Callable[[int, int, int], nn.Module]:
    return lambda c_in, c_out, stride: build(block, c_in, c_out, stride=stride, style=style)


class Grouped(nn.Module):
    """A depthwise convolution that doubles the channels, and a group convolution."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(c_in, 2 * c_in, 3, stride, 1, groups=c_in)
        self.mix = nn.Conv2d(2 * c_in, c_out, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.spread(x))


class LastAxis(nn.Module):
    """A linear layer on channels-last feature maps, as in ConvNeXt."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in)
        self.mix = nn.Linear(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.spread(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def rolling(c_in: int, c_out: int, stride: int) -> nn.Module:
    layers = [
        nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in),
        RollingPointwiseConv2d(c_in, c_out, 2, 0.5),
    ]
    return nn.Sequential(*layers)


# A unit from 8 to 16 channels, and how many weights it has when it reads 16.
UNITS: dict[str, tuple[Callable[[int, int, int], nn.Module], int]] = {
    "layer": (conv, 9 * 16 * 16 + 16),
    "row": (lambda c_in, c_out, _: nn.Sequential(*plain(c_in, c_out)), 9 * 16 * 16 + 3 * 16),
    "separable": (lambda *sizes: nn.Sequential(*separable(*sizes)), 16 * 9 + 2 * 16 + 256 + 2 * 16),
    "separable class": (Separable, 16 * 9 + 2 * 16 + 256 + 2 * 16),
    "basic": (BasicBlock, 2 * 9 * 256 + 256 + 3 * 2 * 16),
    # All inner widths are 4: only what reads the input follows.
    "bottleneck": (bottleneck, 16 * 4 + 9 * 16 + 4 * 16 + 256 + 2 * (4 + 4 + 16 + 16)),
    "inverted": (
        lambda c_in, c_out, stride: InvertedResidual(c_in, c_out, stride, 6),
        16 * 48 + 9 * 48 + 48 * 16 + 2 * (48 + 48 + 16),
    ),
    "not expanded": (
        lambda c_in, c_out, stride: InvertedResidual(c_in, c_out, stride, 1),
        9 * 16 + 256 + 2 * (16 + 16),
    ),
    "shuffled": (
        lambda c_in, c_out, _: Shuffled(c_in, c_out, 2),
        (9 * 16 + 16 * 8 + 2 * 24) + (16 * 8 + 9 * 8 + 64 + 2 * 24),
    ),
    "gated": (Gated, 9 * 16 + 16 + 2 * 16 + (16 * 2 + 2) + (2 * 16 + 16) + 16 * 16 + 16),
    # 16 channels can be those of 16 groups: they stay.
    "grouped": (Grouped, 9 * 16 + 16 + 16 * 4 + 16),
    "last axis": (LastAxis, 9 * 16 + 16 + 256 + 16),
    "free": (free, 9 * 256 + 16),
    "rolling": (rolling, 9 * 16 + 16 + 8 * 16 + 16),
    "our block": (ours("DW+RPW(2,1/2)", MOBILENET), 9 * 16 + 2 * 16 + 8 * 16 + 2 * 16),
    # Equal shapes need no projection.
    "our residual": (ours("DW+PW", FOG), 9 * 16 + 2 * 16 + 256 + 2 * 16),
}


@pytest.mark.parametrize("order", ["rolling", "blocked"])
def test_the_windows_of_a_widened_layer_are_those_of_its_width(order: str) -> None:
    narrow = RollingPointwiseConv2d(8, 16, 2, 0.5, order=order)
    wide = widened({"a": narrow}, 16)["a"]
    new = RollingPointwiseConv2d(16, 16, 2, 0.5, order=order)
    assert (wide.step, str(wide)) == (new.step, str(new)) == (4, str(new))
    wide.load_state_dict(new.state_dict())
    x = torch.randn(1, 16, 2, 2)
    torch.testing.assert_close(wide(x), new(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", UNITS)
def test_a_widened_unit_keeps_its_width(name: str, stride: int) -> None:
    make, count = UNITS[name]
    wide = widened({"a": make(8, 16, stride)}, 16)
    assert list(wide) == ["a"]
    assert params(wide["a"]) == count
    x = torch.randn(2, 16, 9, 9)
    assert wide["a"].eval()(x).shape == x.shape


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_that_keeps_its_width_loses_only_its_stride(name: str) -> None:
    if name in ("shuffled", "free"):
        return
    unit = UNITS[name][0](16, 16, 2)
    weights = {key: tensor.shape for key, tensor in unit.state_dict().items()}
    wide = widened({"a": unit}, 16)["a"]
    if name != "our residual":
        assert {key: tensor.shape for key, tensor in wide.state_dict().items()} == weights
    assert wide.eval()(torch.zeros(1, 16, 9, 9)).shape == (1, 16, 9, 9)


def test_a_unit_of_several_modules_is_one() -> None:
    parts = dict(enumerate(separable(8, 16)))
    wide = widened({str(key): module for key, module in parts.items()}, 16)
    assert [type(module) for module in wide.values()] == [type(module) for module in parts.values()]
    assert wide["0"].groups == wide["1"].num_features == wide["3"].in_channels == 16


def test_inner_layers_of_the_same_width_are_kept() -> None:
    # 4 channels inside, as many as come in: not all that reads 4 reads the input.
    unit = bottleneck(4, 16, 1)
    wide = widened({"a": unit}, 16)["a"]
    assert [wide.conv1.in_channels, wide.conv2.in_channels, wide.conv3.in_channels] == [16, 4, 4]
    assert wide(torch.zeros(1, 16, 5, 5)).shape == (1, 16, 5, 5)


def test_a_gate_of_another_feature_map_is_kept() -> None:
    # It scales the expanded feature map and keeps its number of channels.
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.close = nn.Conv2d(8, 24, 1), nn.Conv2d(24, 16, 1)
            self.gate = nn.Sequential(nn.Conv2d(24, 8, 1), nn.ReLU(), nn.Conv2d(8, 24, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.open(x)
            return self.close(y * self.gate(y.mean((2, 3), keepdim=True)))

    unit = Wide()
    gate = copy.deepcopy(unit.gate)
    wide = widened({"a": unit}, 16)["a"]
    assert str(wide.gate) == str(gate)
    assert torch.equal(wide.gate[0].weight, gate[0].weight)
    assert wide(torch.zeros(1, 16, 5, 5)).shape == (1, 16, 5, 5)


def test_units_of_sequences() -> None:
    wide = widened({"a": nn.Conv1d(8, 16, 3, 2, 1), "b": nn.BatchNorm1d(16)}, 16)
    assert nn.Sequential(*wide.values())(torch.zeros(2, 16, 9)).shape == (2, 16, 9)
    ours = build("DW+PW", 8, 16, stride=2)
    assert widened({"a": ours}, 16)["a"](torch.zeros(2, 16, 9, 9)).shape == (2, 16, 9, 9)


def test_dtype_device_and_requires_grad_are_kept() -> None:
    unit = BasicBlock(8, 16, 2).to("meta", torch.bfloat16).eval()
    unit.conv1.requires_grad_(False)
    wide = widened({"a": unit}, 16)["a"]
    assert {(parameter.dtype, parameter.device.type) for parameter in wide.parameters()} == {
        (torch.bfloat16, "meta")
    }
    assert (wide.conv1.weight.requires_grad, wide.conv2.weight.requires_grad) == (False, True)
    assert not any(module.training for module in wide.modules())


def test_only_tensors_of_another_shape_are_replaced() -> None:
    unit = BasicBlock(8, 16, 2)
    second, norm = unit.conv2.weight, unit.bn1.weight
    wide = widened({"a": unit}, 16)["a"]
    assert wide.conv2.weight is second
    assert wide.bn1.weight is norm
    assert wide.conv1.weight.shape == (16, 16, 3, 3)


@pytest.mark.parametrize(
    ("unit", "channels", "message"),
    [
        (nn.Conv2d(12, 16, 3, groups=4), 18, "4 groups at 18 channels"),
        (nn.Sequential(nn.GroupNorm(4, 8), conv(8, 18)), 18, "4 groups at 18 channels"),
        (nn.ReLU(), 16, "no convolution at 16 channels"),
        (nn.Sequential(nn.LayerNorm((8, 32, 32)), conv(8, 16)), 16, "RuntimeError at 16 channels"),
        (nn.Sequential(nn.PReLU(8), conv(8, 16)), 16, "RuntimeError at 16 channels"),
    ],
)
def test_units_that_have_no_other_width_are_an_error(
    unit: nn.Module, channels: int, message: str
) -> None:
    prefix = r"^a unit that cannot be repeated: got "
    with pytest.raises(SettingError, match=prefix + message) as error:
        widened({"a": unit}, channels)
    assert "\n" not in str(error.value)


def test_blocks_of_groups_that_do_not_divide() -> None:
    unit = build("DW+GPW(8)", 8, 12 * 8)
    with pytest.raises(IfspaceError, match="groups do not divide") as error:
        widened({"a": unit}, 12)
    assert "\n" not in str(error.value)


def test_a_concatenating_layer_keeps_its_growth() -> None:
    # What comes out is not checked here: `Units.widened` traces it.
    wide = widened({"a": _DenseLayer(8, 4, 2, 0.0)}, 16)["a"]
    assert wide(torch.zeros(1, 16, 5, 5)).shape == (1, 4, 5, 5)


def test_only_meta_tensors_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def real(self: nn.Conv2d, x: Tensor) -> Tensor:
        assert x.is_meta
        return nn.Conv2d._conv_forward(self, x, self.weight, self.bias)

    monkeypatch.setattr(nn.Conv2d, "forward", real)
    state = torch.get_rng_state()
    widened({"a": BasicBlock(8, 16, 2)}, 16)
    state_after = torch.get_rng_state()
    assert not torch.equal(state, state_after)  # BasicBlock drew its own
    unit = BasicBlock(8, 16, 2)
    state = torch.get_rng_state()
    widened({"a": unit}, 16)
    assert torch.equal(state, torch.get_rng_state())


def test_a_copy_without_values_has_the_same_structure() -> None:
    model = nn.Sequential(*plain(3, 8))
    model[0].weight.requires_grad_(False)
    model.append(model[0])
    copied = without_values(model)
    assert copied[3] is copied[0]
    assert all(tensor.is_meta for tensor in (*copied.parameters(), *copied.buffers()))
    assert [parameter.requires_grad for parameter in copied.parameters()] == [
        parameter.requires_grad for parameter in model.parameters()
    ]
    assert not any(parameter.is_meta for parameter in model.parameters())
