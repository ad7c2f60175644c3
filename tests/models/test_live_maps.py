"""Peak memory of traced networks against hooks on torch's own operators and modules."""

from collections.abc import Callable

import pytest
import torch
from live_memory import Sum, peak_by_hooks, peak_by_operators
from models.zoo import network
from torch import Tensor, nn

from ifspace.block import Block
from ifspace.models.tracing import trace
from ifspace.nn import Style, build

pytestmark = pytest.mark.usefixtures("one_thread")


def conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups)


class Residual(nn.Module):
    """A body and a shortcut that joins it in place."""

    def __init__(self, *body: nn.Module, beside: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.beside = nn.Sequential(*body), beside
        self.sum, self.act = Sum(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.act(self.sum(y, x if self.beside is None else self.beside(x)))


class Cat(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


class Dense(nn.Module):
    """Each layer reads what all before it wrote; the concatenation is a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(4 + 6 * i, 6, 3) for i in range(3))
        self.joins = nn.ModuleList(Cat() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for layer, join in zip(self.layers, self.joins, strict=True):
            parts.append(layer(join(*parts)))
        return Cat()(*parts)


class Halves(nn.Module):
    """One half of the channels passes: both are views of one feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = conv(4, 12), conv(6, 24, 3), conv(24, 6)
        self.join, self.last = Cat(), conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        passing, changed = self.first(x).chunk(2, 1)
        return self.last(self.join(passing, self.two(self.one(changed))))


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "basic block": lambda: Residual(conv(4, 4, 3), relu(), conv(4, 4, 3)),
    "bottleneck": lambda: Residual(conv(16, 4), relu(), conv(4, 4, 3), relu(), conv(4, 16)),
    "stride 2": lambda: Residual(
        conv(4, 6), relu(), conv(6, 6, 3, 2), relu(), conv(6, 12), beside=conv(4, 12, 1, 2)
    ),
    "inverted residual": lambda: Residual(
        conv(4, 24), nn.ReLU6(inplace=True), conv(24, 24, 3, 1, 24), nn.ReLU6(True), conv(24, 4)
    ),
    "an activation of x, which is read later": lambda: Residual(
        nn.ReLU(), conv(4, 8, 3), relu(), conv(8, 4, 3)
    ),
    "pooling": lambda: nn.Sequential(
        conv(4, 8, 3, 2), relu(), nn.MaxPool2d(3, 2, 1), nn.Upsample(scale_factor=3), conv(8, 4)
    ),
    "concatenations": Dense,
    "halves": Halves,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_the_peak_is_that_of_hooks(name: str, size: tuple[int, int]) -> None:
    module, x = NETWORKS[name]().eval(), torch.ones(1, 4, *size)
    if name == "bottleneck":
        x = torch.ones(1, 16, *size)
    live = trace(module, x).live
    assert live is not None
    assert live.peak == peak_by_operators(module, x)
    if name not in ("concatenations", "halves"):  # their last parts are no modules
        assert live.peak == peak_by_hooks(module, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["resnet50", "mobilenet_v2", "squeezenet1_1", "inception_v3", "vgg11_bn"]
)
def test_the_peak_of_a_network_is_that_of_its_operators(model: str) -> None:
    """With batch norm folded into its convolutions, as it counts."""
    image = (3, 96, 96)
    with torch.device("meta"):
        module, x = network(f"torchvision:{model}", image).eval(), torch.ones(1, *image)
    live = trace(module, image).live
    assert live is not None
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    assert live.peak == peak_by_operators(module, x)


@pytest.mark.parametrize("shortcut", ["none", "auto"])
@pytest.mark.parametrize("text", ["PW+DW+PW", "GPW(4)+SH(4)+DW+GPW(2)", "DW+RPW(4,1/2)+SH(2)"])
@pytest.mark.parametrize(("widths", "stride"), [((8, 8), 1), ((8, 16), 1), ((8, 8), 2)])
def test_the_peak_of_a_module_is_that_of_its_block(
    text: str, widths: tuple[int, int], stride: int, shortcut: str
) -> None:
    sized, size = Block.parse(text).at(*widths), (7, 10)
    style = Style(activation="silu", shortcut=shortcut)
    live = trace(build(sized, stride=stride, style=style), (8, *size)).live
    assert live is not None
    assert live.peak == sized.peak_elements(size, stride, shortcut)


def test_where_the_peak_is() -> None:
    module = nn.Sequential(conv(4, 8), nn.Sequential(conv(8, 32, 3), relu()), conv(32, 4))
    live = trace(module, (4, 8, 8)).live
    assert live is not None
    assert (live.peak, str(live.peak_call)) == (64 * (8 + 32), "1.0 (conv2d)")
