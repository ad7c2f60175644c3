"""Operators that make maps smaller or larger without weights."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import torch

from ifspace.models.graph import Op, Size
from ifspace.models.tracing import moving
from ifspace.models.tracing.calls import Call, Value
from ifspace.models.tracing.labels import Label
from ifspace.models.tracing.maps import MOST_SPREAD, side_of

if TYPE_CHECKING:
    from ifspace.models.tracing.reading import Reader


def _pool(reader: "Reader", call: Call) -> Value:
    label, given = call.label("self"), call.arguments
    side, dims = side_of(label.ids.shape, 1), len(call.shape) - 2
    window = _pair(given["kernel_size"], dims)
    stride = _pair(given["stride"] or given["kernel_size"], dims)
    parent = reader.maps.settle(label, 1, call.scope)
    if label.pooled or (window == side and side_of(call.shape, 1) == (1, 1) and side != (1, 1)):
        return reader.maps.add(Op.GLOBAL, (parent,), call.shape, 1, call.scope, True)
    return reader.maps.add(
        Op.POOL,
        (parent,),
        call.shape,
        1,
        call.scope,
        window=window,
        stride=(Fraction(stride[0]), Fraction(stride[1])),
        dilation=_pair(given.get("dilation") or 1, dims),
    )


def _adaptive(reader: "Reader", call: Call) -> Value:
    label = call.label("self")
    old, new = side_of(label.ids.shape, 1), side_of(call.shape, 1)
    if new == old or label.pooled:
        return label
    parent = reader.maps.settle(label, 1, call.scope)
    if new == (1, 1):
        return reader.maps.add(Op.GLOBAL, (parent,), call.shape, 1, call.scope, True)
    op, window = Op.RESIZE, (1, 1)
    if old[0] > new[0] or old[1] > new[1]:
        op, window = Op.POOL, (-(-old[0] // new[0]), -(-old[1] // new[1]))
    return reader.maps.add(
        op, (parent,), call.shape, 1, call.scope, window=window, stride=_ratio(old, new)
    )


def _mean(reader: "Reader", call: Call) -> Value:
    """Return one value of a channel for the whole map, or of several channels for a pixel."""
    label = call.label("self")
    rank, axes = label.ids.dim(), label.axes()
    axis = next(iter(axes), 1)
    dims = call.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(rank)
    gone = {each % rank for each in dims}
    if not label.pooled and gone != set(range(1, rank)) - {axis}:
        across = len(gone) == 1 and gone <= set(axes)
        return _across(reader, call, label, *gone) if across else reader.unknown(call)
    parent = reader.maps.settle(label, axis, call.scope)
    kept = axis if call.rank == rank else 1
    if call.rank < 2:
        return None
    return reader.maps.add(Op.GLOBAL, (parent,), call.shape, kept, call.scope, True)


def _most(reader: "Reader", call: Call) -> Value:
    """Return the greater of two maps, or the greatest of one."""
    return (moving.READERS["maximum"] if "other" in call.arguments else _mean)(reader, call)


def _across(reader: "Reader", call: Call, label: Label, axis: int) -> Value:
    """Return the union of what stands along an axis, such as that of maps that were stacked."""
    count = label.ids.shape[axis]
    slices = [Label(each.reshape(call.shape)) for each in torch.split(label.ids, 1, axis)]
    standing = {tuple(each.axes()) for each in slices}
    if count > MOST_SPREAD or call.rank < 3 or len(standing) > 1 or len(slices[0].axes()) > 1:
        return reader.unknown(call)
    kept = next(iter(slices[0].axes()), 1)
    parents = tuple(dict.fromkeys(reader.maps.settle(each, kept, call.scope) for each in slices))
    return reader.maps.add(Op.JOIN, parents, call.shape, kept, call.scope)


def _resize(reader: "Reader", call: Call) -> Value:
    label = call.labels[0]
    if label.pooled and side_of(label.ids.shape, 1) == (1, 1):
        return Label(label.ids.expand(call.shape), True)  # the same everywhere
    parent = reader.maps.settle(label, 1, call.scope)
    ratio = _ratio(side_of(label.ids.shape, 1), side_of(call.shape, 1))
    return reader.maps.add(
        Op.RESIZE, (parent,), call.shape, 1, call.scope, label.pooled, stride=ratio
    )


def _ratio(old: Size, new: Size) -> tuple[Fraction, Fraction]:
    return Fraction(old[0], new[0]), Fraction(old[1], new[1])


def _pair(size: Any, dims: int) -> Size:
    """Return (height, width); along a line of pixels the height is 1."""
    found = [size] * dims if isinstance(size, int) else [int(each) for each in size]
    found = found * dims if len(found) < dims else found
    return (1, found[0]) if len(found) == 1 else (found[0], found[1])


READERS: Final[Mapping[str, Callable[["Reader", Call], Value]]] = {
    **dict.fromkeys(
        (
            "max_pool1d",
            "max_pool1d_with_indices",
            "max_pool2d",
            "max_pool2d_with_indices",
            "avg_pool1d",
            "avg_pool2d",
        ),
        _pool,
    ),
    **dict.fromkeys(
        (
            "adaptive_avg_pool1d",
            "adaptive_avg_pool2d",
            "adaptive_max_pool1d",
            "adaptive_max_pool2d",
        ),
        _adaptive,
    ),
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "std", "var", "linalg_vector_norm", "logsumexp"), _mean
    ),
    **dict.fromkeys(("max", "min"), _most),
    **dict.fromkeys(
        (
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "upsample_linear1d",
            "_upsample_nearest_exact1d",
            "_upsample_nearest_exact2d",
            "_upsample_bilinear2d_aa",
            "_upsample_bicubic2d_aa",
        ),
        _resize,
    ),
}
