"""Independent witnesses that tests compare the library with: plain sets, and plain torch.

Nothing here reads the kind table, except for a kind that a test adds: that one is built from what
it says it reads.
"""

import random
from fractions import Fraction
from math import floor

import torch
from hypothesis import strategies as st
from torch import nn

from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.errors import BlockError
from ifspace.kinds import KINDS

GRID = (Fraction(0), Fraction(33, 100), Fraction(1, 2))
SIX = ("PW", "GC", "DW", "GPW", "RPW", "SH")
CONVOLUTIONS = {"CONV", "GC", "DW", "PW", "GPW"}


def channels_read(layer: SizedLayer) -> list[list[int]]:
    """The channels that each output reads, straight from the definitions of the kinds."""
    c_in, c_out, g = layer.c_in, layer.c_out, layer.layer.groups or 1
    match layer.layer.kind:
        case "PW" | "CONV":
            return [list(range(c_in))] * c_out
        case "DW":
            return [[j] for j in range(c_out)]
        case "GC" | "GPW":
            size = c_in // g
            first = [j // (c_out // g) * size for j in range(c_out)]
            return [list(range(i, i + size)) for i in first]
        case "RPW":
            w = c_in // g
            s = w - floor(layer.layer.overlap * w)
            starts = list(dict.fromkeys(p * s % c_in for p in range(c_in)))
            if layer.layer.order == "blocked":
                window = [j * len(starts) // c_out for j in range(c_out)]
            else:
                window = [j % len(starts) for j in range(c_out)]
            return [[(starts[p] + t) % c_in for t in range(w)] for p in window]
        case "SH":
            return [[j % g * (c_in // g) + j // g] for j in range(c_out)]
        case _:
            return layer.reads().tolist()


def reach_by_sets(chain) -> list[set[int]]:
    """R(j) of every output channel: the definition, in plain sets."""
    seen = [{j} for j in range(chain[0].c_in)]
    for layer in chain:
        seen = [set().union(*(seen[i] for i in read)) for read in channels_read(layer)]
    return seen


class GatheredPointwise(nn.Module):
    """A pointwise convolution whose output j reads the channels index[j]: gather, then einsum."""

    def __init__(self, index: list[list[int]]) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor(index))
        self.weight = nn.Parameter(torch.empty(self.index.shape, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("njt...,jt->nj...", x[:, self.index], self.weight)


class Shuffle(nn.Module):
    """Reshape [g, C/g], transpose, flatten."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


def torch_layer(layer: SizedLayer, stride: int = 1) -> nn.Module:
    kind, k = layer.layer.kind, layer.layer.kernel or 1
    if kind == "SH":
        return Shuffle(layer.layer.groups)
    if kind not in CONVOLUTIONS:
        assert k == stride == 1
        return GatheredPointwise(channels_read(layer))
    groups = layer.c_in if kind == "DW" else layer.layer.groups or 1
    convolution = nn.Conv1d if layer.dims == 1 else nn.Conv2d
    return convolution(
        layer.c_in,
        layer.c_out,
        k,
        stride=stride,
        padding=k // 2,
        groups=groups,
        bias=False,
        dtype=torch.float64,
    )


def build_torch_block(sized: SizedBlock, stride: int = 1) -> nn.Sequential:
    """The block in plain torch, fp64, no bias, no activation, strictly positive weights."""
    modules = []
    for layer in sized.layers:
        spatial = layer.layer.kind in {"CONV", "GC", "DW"}
        modules.append(torch_layer(layer, stride if spatial else 1))
        stride = 1 if spatial else stride
    block = nn.Sequential(*modules)
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return block


def count_by_hooks(
    sized: SizedBlock, side: int = 8, stride: int = 1, block: nn.Module | None = None
) -> tuple[int, int, int]:
    """(multiply-accumulates, elements written, output pixels) of a run, counted by hooks.

    Of the block in plain torch, or of the one that is given, whose children are its layers in fp64.
    """
    macs, written = 0, 0

    def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal macs, written
        if hasattr(module, "weight"):
            written += output.numel()
            macs += output.numel() * module.weight[0].numel()

    block = build_torch_block(sized, stride) if block is None else block
    for module in block.children():
        module.register_forward_hook(hook)
    with torch.no_grad():
        output = block(torch.ones(1, sized.channels, *[side] * sized.dims, dtype=torch.float64))
    return macs, written, output[0, 0].numel()


def autograd_field(sized: SizedBlock, block: nn.Module | None = None) -> tuple[list[set[int]], int]:
    """R(j) of every output channel and the side of the field, from gradients of centre pixels.

    Of the block in plain torch, or of the one that is given, in fp64 with positive weights.
    """
    side = 5 + sum((layer.layer.kernel or 1) - 1 for layer in sized.layers)
    side += 1 - side % 2
    x = torch.ones(1, sized.channels, *[side] * sized.dims, dtype=torch.float64, requires_grad=True)
    block = build_torch_block(sized) if block is None else block
    centre = block(x)[(0, slice(None), *[side // 2] * sized.dims)]
    seen, sides = [], set()
    for output in centre:
        (gradient,) = torch.autograd.grad(output, x, retain_graph=True)
        channels = gradient[0].flatten(1).any(1)
        square = gradient[0, channels] != 0
        for axis in range(1, sized.dims + 1):
            others = [other for other in range(sized.dims + 1) if other != axis]
            sides.add(
                int(square.any(others[1]).any(others[0]).sum())
                if sized.dims == 2
                else int(square.any(0).sum())
            )
        assert int(square.sum()) == len(square) * max(sides) ** sized.dims, "field is no square"
        seen.append(set(channels.nonzero().flatten().tolist()))
    (field,) = sides
    return seen, field


def divisors(n: int) -> list[int]:
    return [count for count in range(1, n + 1) if n % count == 0]


def random_block(rng: random.Random, channels: int, length: int, kinds=SIX, overlaps=GRID) -> Block:
    """A block whose groups divide `channels`, trivial group counts included."""

    def layer() -> Layer:
        kind = rng.choice(kinds)
        groups = rng.choice(divisors(channels)) if KINDS[kind].takes_groups else None
        return Layer(kind, groups, rng.choice(overlaps) if kind == "RPW" else None)

    return Block(tuple(layer() for _ in range(length)))


def random_sized(seed: int, count: int) -> list[SizedBlock]:
    """Random blocks of any kinds, kernels, widths, copies and dimensions that fit."""
    rng = random.Random(seed)
    sized_blocks: list[SizedBlock] = []
    while len(sized_blocks) < count:
        c, f = rng.choice([8, 12, 24]), rng.choice([8, 12, 24])
        block = random_block(rng, c, rng.randint(1, 5), (*SIX, "CONV"))
        layers = [
            Layer(x.kind, x.groups, x.overlap, rng.choice([1, 3, 5]) if x.conv.spatial else None)
            for x in block.layers
        ]
        sized = (rng.choice([None, "1/2", 2]), rng.choice([1, 2]))
        try:
            sized_blocks.append(Block(tuple(layers), rng.choice([1, 2])).at(c, f, *sized))
        except BlockError:
            continue
    return sized_blocks


@st.composite
def blocks(draw, channels: int = 12, max_length: int = 5, kinds=(*SIX, "CONV"), max_repeats=2):
    """Hypothesis: a block that is legal at `channels`, with any exact overlap and odd kernel."""

    def layer() -> Layer:
        kind = draw(st.sampled_from(kinds))
        grouped = KINDS[kind].takes_groups
        return Layer(
            kind,
            draw(st.sampled_from(divisors(channels))) if grouped else None,
            draw(st.fractions(0, Fraction(99, 100), max_denominator=100))
            if kind == "RPW"
            else None,
            draw(st.sampled_from([1, 3, 5])) if KINDS[kind].spatial else None,
        )

    length = draw(st.integers(1, max_length))
    return Block(tuple(layer() for _ in range(length)), draw(st.integers(1, max_repeats)))
