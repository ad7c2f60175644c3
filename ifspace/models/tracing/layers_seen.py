"""Layers as they are found in a network: what kind they are, and what they cost."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any

from torch import nn

from ifspace.models.graph import Size, TracedLayer


def conv_kind(c_in: int, c_out: int, groups: int, kernel: Size) -> str:
    """Return the symbol of a convolution; a depthwise one keeps its width.

    >>> conv_kind(64, 64, 1, (3, 3)), conv_kind(64, 64, 64, (3, 3)), conv_kind(64, 64, 4, (1, 1))
    ('CONV', 'DW', 'GPW')
    """
    if kernel == (1, 1):
        return "PW" if groups == 1 else "GPW"
    if groups == 1:
        return "CONV"
    return "DW" if groups == c_in == c_out else "GC"


def conv_layer(
    name: str,
    c_in: int,
    weight: Sequence[int],
    side_in: Size,
    side_out: Size,
    params: int,
    arguments: Mapping[str, Any],
) -> TracedLayer:
    """Return a convolution with a weight [C_out, C_in / groups, k, k], called with arguments."""
    c_out, _, *sizes = weight
    groups = int(arguments["groups"])
    kernel, bias = _pair(sizes, 1, len(sizes)), arguments.get("bias") is not None
    return TracedLayer(
        name,
        conv_kind(c_in, c_out, groups, kernel),
        c_in,
        c_out,
        groups,
        kernel,
        _pair(arguments["stride"], 1, len(sizes)),
        _pair(arguments["dilation"], 1, len(sizes)),
        side_in,
        side_out,
        params,
        prod(weight) * prod(side_out),
        bias,
    )


def linear_layer(
    name: str, c_in: int, c_out: int, side: Size, params: int, bias: bool, behind: bool
) -> TracedLayer:
    """Return a dense layer: pointwise where it reads the channels of maps, LINEAR behind them."""
    return TracedLayer(
        name,
        "LINEAR" if behind else "PW",
        c_in,
        c_out,
        1,
        (1, 1),
        (1, 1),
        (1, 1),
        side,
        side,
        params,
        c_in * c_out * prod(side),
        bias,
    )


def rolling_layer(
    name: str,
    c_in: int,
    weight: Sequence[int],
    step: int,
    side: Size,
    params: int,
    bias: bool,
    model: nn.Module,
) -> TracedLayer:
    """Return a rolling pointwise layer with a weight [C_out, w]; the module knows its overlap."""
    c_out, width = weight
    try:
        overlap = getattr(model.get_submodule(name), "overlap", None)
    except AttributeError:
        overlap = None
    if not isinstance(overlap, Fraction):
        overlap = Fraction(width - step, width)
    return TracedLayer(
        name,
        "RPW",
        c_in,
        c_out,
        c_in // width,
        (1, 1),
        (1, 1),
        (1, 1),
        side,
        side,
        params,
        c_out * width * prod(side),
        bias,
        overlap,
        step,
    )


def _pair(sizes: Any, short: int, dims: int = 2) -> Size:
    """Return (height, width) of a number, of two, or along a line of pixels, `short` high."""
    found = [sizes] * dims if isinstance(sizes, int) else [int(size) for size in sizes]
    if dims == 1 or len(found) == 1:
        return short, found[0]
    return found[0], found[1]
