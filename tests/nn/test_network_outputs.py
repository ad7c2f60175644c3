"""What networks compute, against the same written out with torch's functions."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ifspace.nn.network import (
    Network,
    NetworkStyle,
    build_network,
    style_of,
)
from ifspace.stages.layout import (
    Layout,
    StemAndHead,
    StemLayer,
)
from ifspace.stages.networks import (
    make_layout,
    residual,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class Written:
    """Layers by their name in a network, evaluated one by one."""

    def __init__(self, network: Network) -> None:
        self.tensors = network.state_dict()

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """A convolution padded by half its kernel; depthwise when a filter reads one channel."""
        weight = self.tensors[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        bias = self.tensors.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            self.tensors[f"{name}.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def unit(self, x: Tensor, name: str, n: int, stride: int = 1) -> Tensor:
        """Convolution n of a block and its batch norm."""
        return self.norm(self.conv(x, f"{name}.layer{n}", stride), f"{name}.layer{n}_bn")

    def dense(self, x: Tensor, name: str) -> Tensor:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]


def ready(layout: Layout, style: NetworkStyle) -> Network:
    """A network for evaluation, in float64, whose batch norms and biases are not trivial."""
    network = build_network(layout, style, seed=1, dtype=torch.float64).eval()
    draw = torch.Generator().manual_seed(2)
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1:
            low = 0.5 if name.endswith(("var", "_bn.weight")) else -0.5
            tensor.uniform_(low, low + 1, generator=draw)
    return network


def images(layout: Layout, count: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    shape = (count, layout.stem_and_head.inputs, layout.image, layout.image)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def compare(network: Network, written: Callable[[Written, Tensor], Tensor]) -> None:
    x = images(network.layout)
    with torch.no_grad():
        torch.testing.assert_close(network(x), written(Written(network), x), rtol=1e-9, atol=1e-9)


def test_a_residual_network_computes_what_is_written_out() -> None:
    stem = StemLayer(make_layout("CONV(7)", (16,), (8,), (1,)).stages[0].first.layers[0], 16)
    frame = StemAndHead(stem=(stem,), batch_norm=True, projections=True, classifier=(5,), image=32)
    quarter = Fraction(1, 4)
    layout = make_layout("PW+CONV+PW", (8, 8), (16, 32), (2, 2), (1, 2), frame, quarter)

    def written(net: Written, x: Tensor) -> Tensor:
        x = F.relu(net.norm(net.conv(x, "stem.0", 2), "stem.1"))
        x = F.max_pool2d(x, 3, 2, 1)
        for place, stride in (("1.unit1", 1), ("1.unit2", 1), ("2.unit1", 2), ("2.unit2", 1)):
            name = f"stages.stage{place}"
            y = F.relu(net.unit(x, name, 0))
            y = F.relu(net.unit(y, name, 1, stride))
            y = net.unit(y, name, 2)
            if place.endswith("unit1"):
                x = net.norm(
                    net.conv(x[..., ::stride, ::stride], f"{name}.shortcut"), f"{name}.shortcut_bn"
                )
            x = F.relu(x + y)
        return net.dense(x.mean((2, 3)), "head.logits")

    compare(ready(layout, style_of("resnet50")), written)


def test_a_network_of_fog_computes_what_is_written_out() -> None:
    frame = StemAndHead(inputs=6, batch_norm=True, classifier=(5,))
    layout = make_layout("DW+PW", (8, 8), (6, 12), (1, 2), (1, 2), frame)

    def written(net: Written, x: Tensor) -> Tensor:
        y = net.unit(net.unit(x, "stages.stage1.unit1", 0), "stages.stage1.unit1", 1)
        x = F.relu(x + y)
        name = "stages.stage2.unit1.units.0"
        y = net.unit(net.unit(x, name, 0, 2), name, 1)
        free = torch.cat([x[..., ::2, ::2], torch.zeros_like(x[..., ::2, ::2])], 1)
        x = F.relu(free + y)
        y = net.unit(net.unit(x, "stages.stage2.unit2", 0), "stages.stage2.unit2", 1)
        return net.dense(F.relu(x + y).mean((2, 3)), "head.logits")

    compare(ready(layout, style_of("fog")), written)


def test_residual_units_of_two_convolutions() -> None:
    layout = residual(32, (4, 4, 6, 5)).at_depths((1, 3, 2, 2))

    def written(net: Written, x: Tensor) -> Tensor:
        x = F.relu(net.unit(x, "stages.stage1.unit1", 0))  # alone: no shortcut

        def pair(x: Tensor, stage: int, beside: Tensor, stride: int = 1) -> Tensor:
            name = f"stages.stage{stage}.unit1.units"
            y = F.relu(net.unit(x, f"{name}.0", 0, stride))
            return F.relu(net.unit(y, f"{name}.1", 0) + beside)

        x = pair(x, 2, x)
        x = F.relu(net.unit(x, "stages.stage2.unit2", 0))  # left over: no shortcut
        taken = x[..., ::2, ::2]
        x = pair(x, 3, torch.cat([taken, torch.zeros_like(taken[:, :2])], 1), 2)
        x = pair(x, 4, x[:, :5, ::2, ::2], 2)  # narrower: the last channel is cut off
        return net.dense(x.mean((2, 3)), "head.logits")

    compare(ready(layout, style_of("layout-residual")), written)


def test_vgg_with_hidden_dense_layers() -> None:
    frame = StemAndHead(bias=True, classifier=(7, 5), pixels=4)
    layout = make_layout("CONV", (16, 8), (4, 6), (1, 2), stem_and_head=frame)

    def written(net: Written, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(net.conv(x, "stages.stage1.unit1.layer0")), 2)
        x = F.relu(net.conv(x, "stages.stage2.unit1.layer0"))
        x = F.max_pool2d(F.relu(net.conv(x, "stages.stage2.unit2.layer0")), 4)
        return net.dense(F.relu(net.dense(x.flatten(1), "head.dense1")), "head.logits")

    network = ready(layout, style_of("vgg16"))
    assert network.head.dense1_drop.p == 0.5
    compare(network, written)


def test_a_network_of_separable_convolutions_computes_what_is_written_out() -> None:
    stem = StemLayer(make_layout("CONV", (8,), (4,), (1,)).stages[0].first.layers[0], 8)
    frame = StemAndHead(stem=(stem,), batch_norm=True, stem_counts=True, classifier=(5,), image=16)
    layout = make_layout("DW+PW", (8, 8), (6, 8), (2, 1), (1, 2), frame)

    def written(net: Written, x: Tensor) -> Tensor:
        x = F.relu(net.norm(net.conv(x, "stem.0", 2), "stem.1"))
        for stage, stride in ((1, 1), (2, 2)):
            x = F.relu(net.unit(x, f"stages.stage{stage}.unit1", 0, stride))
            x = F.relu(net.unit(x, f"stages.stage{stage}.unit1", 1))
        return net.dense(x.mean((2, 3)), "head.logits")

    compare(ready(layout, style_of("mobilenet")), written)


def test_odd_sides_are_pooled_too() -> None:
    layout = make_layout("PW", (10, 7, 3), (2, 2, 2), (1, 1, 1))

    def written(net: Written, x: Tensor) -> Tensor:
        x = F.adaptive_max_pool2d(net.conv(x, "stages.stage1.unit1.layer0"), 7)
        x = F.max_pool2d(net.conv(x, "stages.stage2.unit1.layer0"), 2)
        return net.conv(x, "stages.stage3.unit1.layer0")

    network = ready(layout, NetworkStyle(activation=None))
    assert network(images(layout)).shape == (2, 2, 3, 3)  # no classifier: the maps
    compare(network, written)


def test_where_no_activation_follows_the_sum() -> None:
    layout = make_layout("PW+DW+PW", (4,), (6,), (1,), stem_and_head=StemAndHead(inputs=6))

    def written(net: Written, x: Tensor) -> Tensor:
        y = F.relu6(net.conv(x, "stages.stage1.unit1.layer0"))
        y = F.relu6(net.conv(y, "stages.stage1.unit1.layer1"))
        return x + net.conv(y, "stages.stage1.unit1.layer2")

    compare(ready(layout, NetworkStyle("relu6", "between", 1)), written)
