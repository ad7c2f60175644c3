"""Products with a tensor that no image changes (einsum, addmm, tensordot): layers by autograd."""

from collections.abc import Callable

import pytest
import torch
from models import autograd_field
from torch import Tensor, einsum, nn

import ifspace.models as m

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 12, 12)
Product = Callable[[Tensor, Tensor], Tensor]


class Between(nn.Module):
    """A product with a weight between two convolutions of eight channels, the last depthwise."""

    def __init__(self, product: Product, *shape: int) -> None:
        super().__init__()
        self.product = product
        self.first = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.weight = nn.Parameter(torch.rand(shape) + 0.5)
        self.last = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.product(self.first(x), self.weight))
        return y


def in_groups(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, 4))


def rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1, 8)


def pixels(x: Tensor) -> Tensor:
    return x.reshape(1, 12, 12, 8).permute(0, 3, 1, 2)


# The product, the shape of its weight, its kind and groups, and the MACs of a pixel.
PRODUCTS: dict[str, tuple[Product, tuple[int, ...], str, int, int]] = {
    "from the right": (lambda x, w: einsum("bchw,cd->bdhw", x, w), (8, 8), "PW", 1, 64),
    "from the left": (lambda x, w: einsum("dc, ...chw -> ...dhw", w, x), (8, 8), "PW", 1, 64),
    "implicit": (lambda x, w: einsum("bchw,cz", x, w).permute(0, 3, 1, 2), (8, 8), "PW", 1, 64),
    "groups": (
        lambda x, w: einsum("bgchw,gcd->bgdhw", in_groups(x), w).flatten(1, 2),
        (2, 4, 4),
        "GPW",
        2,
        32,
    ),
    "shared by groups": (
        lambda x, w: einsum("bgchw,cd->bgdhw", in_groups(x), w).flatten(1, 2),
        (4, 4),
        "GPW",
        2,
        32,
    ),
    "heads": (
        lambda x, w: einsum("bchw,ckd->bkdhw", x, w).flatten(1, 2),
        (8, 2, 4),
        "PW",
        1,
        64,
    ),
    "of its own at each pixel": (
        lambda x, w: einsum("bchw,hwdc->bdhw", x, w),
        (12, 12, 8, 8),
        "PW",
        1,
        64,
    ),
    "addmm": (lambda x, w: pixels(torch.addmm(w[0], rows(x), w)), (8, 8), "PW", 1, 64),
    "mm": (lambda x, w: pixels(rows(x) @ w), (8, 8), "PW", 1, 64),
    "inner": (lambda x, w: pixels(torch.inner(rows(x), w)), (8, 8), "PW", 1, 64),
    "tensordot": (
        lambda x, w: torch.tensordot(x, w, dims=([1], [0])).permute(0, 3, 1, 2),
        (8, 8),
        "PW",
        1,
        64,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_along_the_channels_is_a_pointwise_layer(name: str) -> None:
    product, shape, kind, groups, macs = PRODUCTS[name]
    model = Between(product, *shape)
    graph, report = m.trace(model, IMAGE), m.analyze(model, IMAGE)
    layer = graph.layers[1]
    assert (layer.kind, layer.groups, layer.macs) == (kind, groups, macs * 144)
    assert layer.params == model.weight.numel()
    assert sum(one.params for one in graph.all_layers) == report.params
    assert not report.notes
    last = report.layers[-1]
    seen = autograd_field.fields_of(model, 3, IMAGE[1:], [])["last"]
    assert (last.field.size, last.field.channels) == seen == ((5, 5), 3)
    assert last.receptive == (5, 5)


def test_a_product_that_sums_over_nothing_only_scales() -> None:
    graph = m.trace(Between(lambda x, w: einsum("bchw,c->bchw", x, w), 8), IMAGE)
    assert [layer.name for layer in graph.layers] == ["first", "last"]
    assert graph.layers[1].macs == 9 * 8 * 144


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: einsum("bchw,hk->bckw", x, w),
        lambda x, w: einsum("bchw,bdhw->bcd", x, x)[..., None].expand(1, 8, 8, 12) @ w,
    ],
    ids=["rows", "the image itself"],
)
def test_a_product_along_the_pixels_lets_them_see_each_other(product: Product) -> None:
    graph = m.trace(Between(product, 12, 12), IMAGE)
    assert "MIX" in [node.op.name for node in graph.nodes]
    assert len(graph.layers) == 2


@pytest.mark.parametrize("equation", ["bc,cd->bd", "cd,bc->bd"])
def test_a_product_behind_the_pixels_belongs_to_the_head(equation: str) -> None:
    class Classifier(Between):
        def forward(self, x: Tensor) -> Tensor:
            operands = [super().forward(x).mean((2, 3)), self.head]
            return einsum(equation, *(operands if equation[0] == "b" else operands[::-1]))

    model = Classifier(lambda x, w: x * w, 1)
    model.head = nn.Parameter(torch.rand(8, 10))
    (head,) = m.trace(model, IMAGE).head
    assert (head.kind, head.params, head.macs) == ("LINEAR", 80, 80)
