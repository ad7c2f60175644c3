"""Collapsing runs of linear layers: the same function to rounding, counts, what is left alone."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from fractions import Fraction
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.kinds import KINDS
from ifspace.nn import (
    BlockModule,
    CollapsedBlock,
    RollingPointwiseConv2d,
    Style,
    build,
    collapse,
    named_network,
)

DOUBLE = torch.float64
# Batch norm and biases, no activation: what follows a layer is linear.
BIASED = Style(batch_norm=False, activation=None, bias=True)
NORMED = Style(activation=None)
CHOICES = ("macs", "layers", lambda layer, pixels: 1.0)


def stirred(module: nn.Module) -> nn.Module:
    """Return a module in eval mode whose batch norms do something."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.track_running_stats:
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.eval()


def assert_same(module: nn.Module, collapsed: nn.Module, *sizes: int) -> None:
    """Compare outputs in float64 everywhere, on a few feature maps with borders of all kinds."""
    x = torch.randn(*sizes, dtype=DOUBLE)
    with torch.no_grad():
        expected, actual = module(x), collapsed(x)
    assert actual.shape == expected.shape
    assert torch.allclose(actual, expected, rtol=1e-11, atol=1e-11)


def layers_of(module: nn.Module) -> list[nn.Module]:
    """Return the layers that a module has left."""
    leaves = [part for part in module.modules() if not list(part.children())]
    return [part for part in leaves if not isinstance(part, nn.Identity)]


def numel(module: nn.Module) -> int:
    """Return the number of weights."""
    return sum(weight.numel() for weight in module.parameters())


def terms() -> list[str]:
    """Return a layer of every kind and order, with groups that some widths of 12 share."""
    texts = []
    for symbol, kind in KINDS.items():
        if kind.takes_overlap:
            texts += [f"{symbol}(4,0)", f"{symbol}(3,1/2,blocked)"]
        else:
            texts.append(f"{symbol}(3)" if kind.takes_groups else symbol)
    return texts


def test_shuffles_side_by_side() -> None:
    module = nn.Sequential(
        nn.ChannelShuffle(2),
        nn.ChannelShuffle(3),
        nn.Conv2d(12, 12, 1, groups=3),
        nn.ChannelShuffle(2),
        nn.ChannelShuffle(4),
    )
    module = stirred(module.to(DOUBLE))
    for choose in CHOICES:
        assert_same(module, collapse(module, choose), 2, 12, 5, 3)
        assert_same(module[3:], collapse(module[3:], choose), 2, 12, 5, 3)


@pytest.mark.slow
@pytest.mark.parametrize("style", [BIASED, NORMED, Style(batch_norm=False, activation=None)])
@pytest.mark.parametrize("first", terms())
def test_every_pair_of_kinds_is_the_same_at_every_pixel(first: str, style: Style) -> None:
    for second, stride, choose in product(terms(), (1, 2), CHOICES):
        text = f"{first}+{second}+{first}"
        spatial = any(layer.conv.spatial for layer in Block.parse(text).layers)
        if stride == 1 or spatial:
            module = stirred(build(text, 12, stride=stride, style=style, dtype=DOUBLE))
            collapsed = collapse(module, choose)
            for size in ((2, 12, 5, 7), (1, 12, 1, 1), (1, 12, 2, 1)):
                assert_same(module, collapsed, *size)


@pytest.mark.parametrize(
    ("text", "params", "layers"),
    [
        ("DW+RPW(16,0)+RPW(16,0)+GPW(16)", 9 * 64 + 64 * 64, 2),
        ("GPW(8)+SH(8)+DW+GPW(8)", 64 * 8 + 9 * 64 + 64 * 8, 3),
        ("PW+PW+PW", 64 * 64, 1),
        ("GPW(2)+GPW(8)+DW", 64 * 32 + 9 * 64, 2),
        # Every output sees one of four blocks of 16 channels: GPW(4) and a shuffle.
        ("RPW(16,0)+RPW(16,0)+DW", 64 * 16 + 9 * 64, 2),
        ("GPW(16)+SH(4)+GPW(16)+DW", 64 * 16 + 9 * 64, 2),  # and one before them
        ("CONV+PW+PW", 9 * 64 * 64, 1),
        ("GC(8)+SH(8)+GPW(8)", 9 * 64 * 8 + 64 * 8, 2),
    ],
)
def test_the_fewest_layers_of_a_block(text: str, params: int, layers: int) -> None:
    module = build(text, 64, dtype=DOUBLE)
    collapsed = collapse(module, "layers")
    assert_same(module, collapsed, 2, 64, 5, 3)
    assert numel(collapsed) == params
    assert len([x for x in layers_of(collapsed) if not isinstance(x, nn.ChannelShuffle)]) == layers


def test_blocks_with_the_fewest_parameters_multiply_least_as_they_are() -> None:
    module = build("DW+RPW(16,0)+RPW(16,0)+GPW(16)", 64)
    assert isinstance(collapse(module), BlockModule)
    assert numel(collapse(module)) == numel(module) == 1344


def test_a_convolution_takes_in_pointwise_layers_where_that_multiplies_less() -> None:
    assert numel(collapse(build("CONV+PW", 16, 16))) == 9 * 16 * 16
    wider = build("CONV+PW", 8, 16)
    assert numel(collapse(wider)) == numel(wider) == 9 * 8 * 8 + 8 * 16
    # Four times as wide inside: less than what leads there and back.
    inverted = build("PW+DW+PW", 16, bottleneck=4)
    assert numel(collapse(inverted)) == 9 * 16 * 16 < numel(inverted) == 2 * 16 * 64 + 9 * 64


def conv(c_in: int, c_out: int, kernel: int = 1, **options: object) -> nn.Conv2d:
    """Return a convolution with a bias."""
    return nn.Conv2d(c_in, c_out, kernel, dtype=DOUBLE, **options)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("layers", "left"),
    [
        # The padding's zeros come after the bias.
        ([conv(3, 4), conv(4, 5, 3, padding=1)], 2),
        ([conv(3, 4, bias=False), conv(4, 5, 3, padding=1)], 1),
        ([conv(3, 4), conv(4, 5, 3)], 1),
        ([conv(3, 4), conv(4, 5, 3, padding=1, padding_mode="circular")], 1),
        ([conv(3, 4), conv(4, 5, 3, padding=1, padding_mode="replicate")], 1),
        ([conv(3, 4), conv(4, 5, 3, padding="same")], 2),
        ([conv(3, 4, bias=False), conv(4, 5, 3, padding="same", dilation=2)], 1),
        # Both may be padded, as a 1x1 convolution too.
        ([conv(3, 4, 3), conv(4, 5, 3)], 2),
        ([conv(3, 4, padding=1, bias=False), conv(4, 5, 3, padding=1)], 2),
        ([conv(3, 4, padding=1), conv(4, 5)], 1),
        # Strides of either.
        ([conv(3, 4, 3, padding=1, stride=2), conv(4, 5, stride=3)], 1),
        ([conv(3, 4, stride=2, bias=False), conv(4, 5, 3, padding=1, stride=2)], 1),
        ([conv(3, 4, stride=2), conv(4, 5, 2)], 1),
        ([conv(3, 4, stride=2), conv(4, 5, 3, padding=1, padding_mode="reflect")], 2),
        ([conv(3, 4, (1, 3), padding=(0, 1)), conv(4, 5, stride=(2, 1))], 1),
        # An even kernel pads one side more.
        ([conv(3, 4, bias=False), conv(4, 5, 2, padding="same")], 2),
    ],
)
def test_what_is_exact_at_the_border(layers: Sequence[nn.Module], left: int) -> None:
    module = nn.Sequential(*layers)
    # The cost of nothing but layers, so that only exactness keeps them apart.
    collapsed = collapse(module, lambda layer, pixels: 1.0)
    assert len(layers_of(collapsed)) == left
    for height, width in ((7, 8), (9, 11), (12, 6)):
        assert_same(module, collapsed, 2, 3, height, width)


def test_batch_norm_is_folded_into_every_layer_and_stays_where_nothing_is_before_it() -> None:
    text = "DW+RPW(4,1/2)+GPW(4)"
    module = stirred(build(text, 16, style=Style(shortcut="projection"), dtype=DOUBLE))
    collapsed = collapse(module)
    assert not [x for x in layers_of(collapsed) if isinstance(x, nn.BatchNorm2d)]
    assert isinstance(collapsed.layer1, RollingPointwiseConv2d)
    assert isinstance(collapsed, CollapsedBlock)
    assert numel(collapsed) == numel(build(text, 16)) + 16 * 16 + 4 * 16
    assert_same(module, collapsed, 2, 16, 5, 7)
    first = stirred(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, padding=1)).double())
    assert [type(x) for x in layers_of(collapse(first))] == [nn.BatchNorm2d, nn.Conv2d]
    plain = stirred(nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 8, 1)).double())
    assert [type(x) for x in layers_of(collapse(plain))] == [nn.Conv2d]
    assert_same(plain, collapse(plain), 2, 4, 3, 5)


def test_runs_go_on_from_container_to_container_and_positions_stay() -> None:
    inner = nn.Sequential(conv(4, 8), nn.Identity(), conv(8, 4))
    module = nn.Sequential(nn.ReLU(), inner, build("GPW(2)+PW", 4, dtype=DOUBLE), nn.ReLU())
    collapsed = collapse(module, "layers")
    assert [type(x) for x in layers_of(collapsed)] == [nn.ReLU, nn.Conv2d, nn.ReLU]
    assert len(collapsed) == 4
    assert isinstance(collapsed[3], nn.ReLU)
    assert_same(module, collapsed, 2, 4, 5, 3)
    # The original is untouched.
    assert [type(x) for x in inner] == [nn.Conv2d, nn.Identity, nn.Conv2d]
    assert isinstance(module[2], BlockModule)


def test_a_container_that_occurs_twice_has_no_neighbours() -> None:
    twice = nn.Sequential(conv(4, 4), conv(4, 4))
    module = nn.Sequential(conv(4, 4), twice, nn.ReLU(), twice)
    collapsed = collapse(module)
    assert [type(x) for x in layers_of(collapsed)] == [nn.Conv2d, nn.Conv2d, nn.ReLU]
    assert collapsed[1] is collapsed[3]
    assert_same(module, collapsed, 2, 4, 5, 3)


def observed() -> nn.Module:
    """Return a layer with a hook."""
    layer = conv(4, 4)
    layer.register_forward_hook(lambda module, inputs, y: 2 * y)
    return layer


class Doubled(nn.Conv2d):
    """A subclass that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        """Return twice the convolution."""
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "other",
    [
        observed,
        lambda: Doubled(4, 4, 1, dtype=DOUBLE),
        lambda: weight_norm(conv(4, 4)),
        lambda: nn.InstanceNorm2d(4, affine=True, dtype=DOUBLE),
        lambda: nn.BatchNorm2d(4, track_running_stats=False, dtype=DOUBLE),
        lambda: nn.Dropout(),
    ],
)
def test_layers_that_compute_something_else_end_a_run(other: Callable[[], nn.Module]) -> None:
    module = nn.Sequential(conv(4, 4), conv(4, 4), other(), conv(4, 4), conv(4, 4)).eval()
    collapsed = collapse(module)
    assert type(collapsed[2]) is type(module[2])
    assert len([x for x in layers_of(collapsed) if type(x) is nn.Conv2d]) <= 3
    assert_same(module, collapsed, 2, 4, 5, 3)


def test_runs_are_of_one_dtype() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1).double(), conv(4, 4))
    assert [x.weight.dtype for x in layers_of(collapse(module))] == [torch.float32, DOUBLE]


@pytest.mark.parametrize("pixels", [(5, 7), (1, 1)])
def test_one_dimension(pixels: tuple[int, int]) -> None:
    for text in ("DW+RPW(4,1/2)+SH(4)+GPW(4)", "PW+GC(4)+PW"):
        sized = Block.parse(text).at(16, dims=1)
        module = stirred(build(sized, style=NORMED, dtype=DOUBLE))
        for choose in CHOICES:
            assert_same(module, collapse(module, choose), pixels[0], 16, pixels[1])


def brute_cuts(costs: Callable[[int, int], float], count: int) -> Iterator[float]:
    """Yield the cost of every way to cut a run."""
    for cuts in product((False, True), repeat=count - 1):
        ends = [0, *(n for n, cut in enumerate(cuts, start=1) if cut), count]
        yield sum(costs(*pair) for pair in pairwise(ends))


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_is_the_best_of_all_by_a_cost_function(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    widths = (2 ** torch.randint(1, 5, (6,), generator=generator)).tolist()
    module = nn.Sequential(*(conv(*pair, bias=False) for pair in pairwise(widths)))
    prices = dict(
        zip(
            product(widths, widths),
            torch.rand(len(widths) ** 2, generator=generator).tolist(),
            strict=True,
        )
    )

    def cost(layer: nn.Module, pixels: Fraction) -> float:
        return prices[layer.in_channels, layer.out_channels]

    collapsed = collapse(module, cost)
    least = min(brute_cuts(lambda a, b: prices[widths[a], widths[b]], len(widths) - 1))
    assert sum(cost(x, Fraction(1)) for x in layers_of(collapsed)) == pytest.approx(least)
    fewest = min(brute_cuts(lambda a, b: widths[a] * widths[b], len(widths) - 1))
    assert numel(collapse(module)) == fewest


def test_the_cost_of_a_layer_is_given_with_its_pixels() -> None:
    seen = {}

    def cost(layer: nn.Module, pixels: Fraction) -> float:
        seen[type(layer).__name__, layer.weight.shape[:2], layer.weight.is_meta] = pixels
        return 0.0

    collapse(build("PW+DW+PW", 4, 8, stride=2), cost)
    assert seen["Conv2d", (4, 4), False] == 1  # before the stride
    assert seen["Conv2d", (4, 1), False] == Fraction(1, 4)
    assert seen["Conv2d", (8, 4), False] == Fraction(1, 4)
    assert seen["Conv2d", (8, 4), True] == Fraction(1, 4)


@pytest.mark.slow
def test_whole_networks() -> None:
    for name in ("mobilenet", "fog"):
        network = stirred(named_network(name, 32, seed=0, dtype=DOUBLE))
        for choose in CHOICES:
            collapsed = collapse(network, choose)
            assert not [x for x in layers_of(collapsed) if isinstance(x, nn.BatchNorm2d)]
            assert_same(network, collapsed, 2, 3, 32, 32)


def test_the_copy_is_an_ordinary_module() -> None:
    module = build("DW+RPW(8,0)+GPW(8)", 64)
    collapsed = collapse(module, "layers").train()
    collapsed(torch.ones(2, 64, 4, 4)).sum().backward()
    assert all(weight.grad is not None for weight in collapsed.parameters())
    state = collapsed.state_dict()
    assert list(state) == ["layer0.weight", "layer1.weight"]
    deepcopy(collapsed).load_state_dict(state)
    frozen = build("PW+PW", 8).requires_grad_(False)
    assert not any(weight.requires_grad for weight in collapse(frozen).parameters())
    meta = collapse(build("DW+RPW(8,0)+GPW(8)", 64, device="meta"), "layers")
    assert [weight.device.type for weight in meta.parameters()] == ["meta"] * 2


def test_weights_are_multiplied_in_float64() -> None:
    module = build("RPW(16,0)+RPW(16,0)+GPW(16)", 64)
    x = torch.randn(1, 64, 3, 3)
    exact = deepcopy(module).double()(x.double())
    error = (collapse(module, "layers")(x) - exact).norm() / exact.norm()
    assert error < 4 * torch.finfo(torch.float32).eps


def test_a_layer_alone_is_copied() -> None:
    layer = conv(4, 4)
    assert collapse(layer) is not layer
    assert torch.equal(collapse(layer).weight, layer.weight)


def test_batch_norm_that_trains_is_refused() -> None:
    with pytest.raises(SettingError, match=r"batch norm is training: got layer0_bn.*\.eval\(\)"):
        collapse(build("DW+PW", 8, style="mobilenet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("DW+PW",), "module"), ((nn.ReLU(), "fastest"), "unknown choice.*'fastest'.*macs, layers")],
)
def test_wrong_arguments(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        collapse(*arguments)
