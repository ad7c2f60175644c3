"""What each operator of torch does to feature maps: a handler each, and a table of them at the end.

A handler takes the graph of feature maps and a call, adds what the call writes, and returns its
label. Operators that are not in the table keep their feature map as it is (activations,
normalisation), or let every pixel see all others.

Reference: docs/real-networks.md, how a network is read.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import prod
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx

from ifspace.errors import SettingError
from ifspace.models.calls import Call, Value, bare_name
from ifspace.models.feature_maps import (
    MAX_CHANNELS_PER_PIXEL,
    NO_CHANNEL,
    FeatureMaps,
    Label,
    Reading,
    Stride,
    has_no_pixels,
    size_of,
)
from ifspace.models.graph import (
    Op,
    Size,
    TracedLayer,
    conv_layer,
    linear_layer,
    pair,
    rolling_layer,
    transposed_layer,
)

Handler = Callable[[FeatureMaps, Call], Value]

# Layers with weights


def convolution(maps: FeatureMaps, call: Call) -> Value:
    """Add a convolution: it sees k more pixels, and fan-in = C_in / groups channels below it.

    One that a rolling pointwise layer runs, as it does in blocked order without overlap, is that
    layer.
    """
    label = call.label("input")
    rolling = call.rolling
    if rolling is not None:
        return _add_rolling(maps, call, label, rolling.step, rolling.order, rolling.overlap)
    module, weight = call.weight
    read = maps.read(label, 1, call.scope)
    shape = tuple(label.ids.shape)
    layer = conv_layer(
        module,
        shape[1],
        weight,
        size_of(shape, 1),
        size_of(call.shape, 1),
        call.count_params(),
        groups=int(call.arguments["groups"]),
        stride=call.arguments["stride"],
        dilation=call.arguments["dilation"],
        bias=call.has_bias,
    )
    padding = _padding(call, len(shape) - 2, layer.effective_kernel)
    return _add_layer(maps, call, (read,), layer, 1, label.pooled, padding=padding)


def _padding(call: Call, dims: int, kernel: Size) -> Size | None:
    """Return how many pixels are padded above and on the left; None if that is not known."""
    padding = call.arguments.get("padding", 0)
    if padding == "same":
        return (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    if padding == "valid":
        return 0, 0
    if isinstance(padding, str):
        return None
    height, width = pair(padding, dims)
    # Along one axis, a line of pixels, there is nothing above.
    return (height, width) if dims == 2 else (0, width)


def transposed_convolution(maps: FeatureMaps, call: Call) -> Value:
    """Add a transposed convolution, as a convolution on the upsampled feature map."""
    label = call.label("input")
    module, weight = call.weight
    read = maps.read(label, 1, call.scope)
    size_in, size_out = size_of(label.ids.shape, 1), size_of(call.shape, 1)
    layer = transposed_layer(
        module,
        weight,
        size_in,
        size_out,
        call.count_params(),
        groups=int(call.arguments["groups"]),
        dilation=call.arguments["dilation"],
        bias=call.has_bias,
    )
    maps.note("a transposed convolution counts as a convolution on an upsampled feature map")
    return _add_layer(maps, call, (read,), layer, 1, label.pooled, _ratio(size_in, size_out))


def rolling_pointwise(maps: FeatureMaps, call: Call) -> Value:
    """Add a rolling pointwise layer: an output reads the w channels of a window."""
    rolling = call.rolling
    return _add_rolling(
        maps,
        call,
        call.label("x"),
        int(call.arguments["step"]),
        call.arguments["order"],
        None if rolling is None else rolling.overlap,
    )


def _add_rolling(
    maps: FeatureMaps, call: Call, label: Label, step: int, order: str, overlap: Fraction | None
) -> Value:
    module, (c_out, width, *_) = call.weight
    read = maps.read(label, 1, call.scope)
    shape = tuple(label.ids.shape)
    layer = rolling_layer(
        module,
        shape[1],
        (c_out, width),
        step,
        size_of(shape, 1),
        call.count_params(),
        bias=call.has_bias,
        order=order,
        overlap=overlap,
    )
    return _add_layer(maps, call, (read,), layer, 1, label.pooled)


def linear(maps: FeatureMaps, call: Call) -> Value:
    """Add a dense layer along the last axis: pointwise on pixels, else a part of the head."""
    label = call.label("input")
    module, (c_out, c_in) = call.weight
    on_pixels = not (label.pooled or has_no_pixels(call.shape))
    layer = linear_layer(
        module,
        c_in,
        c_out,
        size_of(call.shape, -1),
        call.count_params(),
        bias=call.has_bias,
        on_pixels=on_pixels,
    )
    if not on_pixels:
        return _add_to_head(maps, call, label, layer)
    return _add_dense(maps, call, label, layer, -1)


def _add_to_head(maps: FeatureMaps, call: Call, label: Label, layer: TracedLayer) -> Label:
    owners = [Reading(owner, None) for owner in maps.owners([label])]
    return _add_layer(maps, call, owners, layer, -1, True)


def matrix_product(maps: FeatureMaps, call: Call) -> Value:
    """Add a product with a matrix that no image changes, along the channels: a dense layer.

    So a convolution may be written as F.unfold and such a product. Any other product lets every
    pixel see all others.
    """
    first, second = list(call.arguments.values())[:2]
    of_columns = isinstance(call.value(second), Label) and call.value(first) is None
    of_rows = isinstance(call.value(first), Label) and call.value(second) is None
    if not (of_columns or of_rows):
        return product(maps, call)
    if call.rank == 2 and all(_rank_of(operand) == 2 for operand in (first, second)):
        return contraction(maps, call)
    matrix, value = (first, call.value(second)) if of_columns else (second, call.value(first))
    assert isinstance(value, Label)
    rank = value.ids.dim()
    axis = rank - 2 if of_columns else rank - 1
    constant = matrix.meta.get("val") if isinstance(matrix, fx.Node) else None
    is_matrix = isinstance(constant, Tensor) and constant.shape[:-2].numel() == 1
    if not is_matrix or rank < 3 or call.rank != rank or value.pooled or value.axes() != [axis]:
        return product(maps, call)
    c_out, c_in = call.shape[axis], int(value.ids.shape[axis])
    call.arguments["weight"] = matrix
    layer = linear_layer(
        call.weight[0],
        c_in,
        c_out,
        size_of(call.shape, axis),
        call.count_params(),
        bias=False,
        on_pixels=True,
    )
    return _add_dense(maps, call, value, layer, axis)


def contraction(maps: FeatureMaps, call: Call) -> Value:
    """Add a product of a feature map with one tensor that no image changes, as `einsum` writes it.

    Summed over channels it is a pointwise layer: a group for each value of the channel axes that
    are not summed over. Summed over nothing it only scales the feature map. Any other product lets
    every pixel see all others.
    """
    equation, tensors = _einsum_of(call)
    labels = [value for value in map(call.value, tensors) if isinstance(value, Label)]
    if len(tensors) != 2 or len(labels) != 1 or call.rank < 2:
        return product(maps, call)
    label = labels[0]
    weight = next(tensor for tensor in tensors if call.value(tensor) is not label)
    terms = _einsum_terms(equation, [_rank_of(tensor) for tensor in tensors])
    own, of_weight = terms[:2] if call.value(tensors[0]) is label else (terms[1], terms[0])
    out = terms[2]
    channels = [own[axis] for axis in label.axes()]
    summed = [letter for letter in own if letter not in out]
    new = [letter for letter in out if letter not in own]
    if len(set(own)) == len(own) and set(own) == set(out) >= set(of_weight):
        order = [own.index(letter) for letter in out]
        return Label(label.ids.permute(order), replay=_replayed(label, lambda x: x.permute(order)))
    is_pointwise = (
        summed
        and set(summed) <= set(channels) & set(of_weight)
        and set(of_weight) <= {*own, *out}
        and len(set(own)) == len(own)
        and (len(channels) == 1 or _is_split(label, label.axes()))
    )
    if not is_pointwise:
        return product(maps, call)
    call.arguments["weight"] = weight
    module = call.weight[0]
    if label.pooled or has_no_pixels(call.shape):
        if len(summed) > 1 or new != [out[-1]]:
            return product(maps, call)
        size = size_of(call.shape, -1)
        widths = label.ids.shape[own.index(summed[0])], call.shape[-1]
        dense = linear_layer(
            module, *widths, size, call.count_params(), bias=False, on_pixels=False
        )
        return _add_to_head(maps, call, label, dense)
    groups = [letter for letter in channels if letter not in summed]
    others = [letter for letter in own if letter not in channels]
    sizes = {
        **dict(zip(own, label.ids.shape, strict=True)),
        **dict(zip(out, call.shape, strict=True)),
    }

    def merged(tensor: Tensor) -> Tensor:
        order = [own.index(letter) for letter in (*others, *groups, *summed)]
        return tensor.permute(order).flatten(len(others))

    def split(tensor: Tensor) -> Tensor:
        order = [*others, *groups, *new]
        whole = tensor.reshape([sizes[letter] for letter in order])
        return whole.permute([order.index(letter) for letter in out])

    count, fan_in, per_group = (
        prod(sizes[letter] for letter in letters) for letters in (groups, summed, new)
    )
    shape = (*(sizes[letter] for letter in others), count * per_group)
    part = Label(merged(label.ids), replay=_replayed(label, merged))
    layer = conv_layer(
        module,
        count * fan_in,
        (count * per_group, fan_in, 1, 1),
        size_of(part.ids.shape, -1),
        size_of(shape, -1),
        call.count_params(),
        groups=count,
        stride=1,
        dilation=1,
        bias=False,
    )
    read = maps.read(part, len(others), call.scope)
    written = maps.write(
        Op.LAYER, (read,), shape, len(others), layer.name.rpartition(".")[0], layer=layer
    )
    return Label(split(written.ids), replay=_replayed(written, split))


def _einsum_of(call: Call) -> tuple[str, Sequence[Any]]:
    """Return a product as the equation of an einsum and its operands."""
    if call.name == "einsum":
        return str(call.arguments["equation"]), list(call.arguments["tensors"])
    operands = [node for node in call.node.args if isinstance(node, fx.Node)][-2:]
    if call.name == "tensordot":
        first, second = (ascii_lowercase[:13], ascii_lowercase[13:])
        own, other = first[: _rank_of(operands[0])], second[: _rank_of(operands[1])]
        pairs = zip(call.arguments["dims_self"], call.arguments["dims_other"], strict=True)
        for axis, other_axis in pairs:
            other = other.replace(other[other_axis], own[axis])
        output = [letter for letter in own + other if (own + other).count(letter) == 1]
        return f"{own},{other}->{''.join(output)}", operands
    if call.name == "inner":
        return "...c,dc->...d", operands
    return ("nc,cd->nd" if call.rank == 2 else "bnc,bcd->bnd"), operands


def _rank_of(tensor: fx.Node) -> int:
    return int(tensor.meta["val"].dim())


def _einsum_terms(equation: str, ranks: Sequence[int]) -> list[str]:
    """Return a letter for each axis of the operands and of the result.

    >>> _einsum_terms("...c, dc -> ...d", [3, 2]), _einsum_terms("ij,jk", [2, 2])
    (['ABc', 'dc', 'ABd'], ['ij', 'jk', 'ik'])
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    free = [letter for letter in ascii_uppercase if letter not in equation]
    hidden = [
        rank - len(term) + 3 if "..." in term else 0
        for term, rank in zip(terms, ranks, strict=True)
    ]
    widest = free[: max(hidden)]
    if not arrow:
        letters = Counter(letter for letter in inputs if letter.isalpha())
        output = "..." * any(hidden) + "".join(
            sorted(letter for letter, number in letters.items() if number == 1)
        )
    counts = [*hidden, len(widest)]
    return [
        term.replace("...", "".join(widest[len(widest) - number :]))
        for term, number in zip([*terms, output], counts, strict=True)
    ]


def _add_dense(maps: FeatureMaps, call: Call, label: Label, layer: TracedLayer, axis: int) -> Label:
    """Add a dense layer on the channels along an axis.

    The stride of windows as columns right before it is that of the layer.
    """
    read = maps.read(label, axis, call.scope)
    below = maps.nodes[read.index]
    if below.op is not Op.POOL or read.index not in maps.columns:
        return _add_layer(maps, call, (read,), layer, axis, False)
    written = maps.add(
        Op.LAYER,
        below.parents,
        call.shape,
        axis,
        layer.name.rpartition(".")[0],
        layer=replace(
            layer,
            stride=(int(below.stride[0]), int(below.stride[1])),
            size_in=maps.nodes[below.parents[0]].size,
            size_out=below.size,
        ),
        window=below.window,
        stride=below.stride,
        reach=below.reach,
        shifts=below.shifts,
    )
    # Its pixels lie in one line, and are those of the windows.
    maps.nodes[-1] = replace(maps.nodes[-1], size=below.size)
    maps.arrangements[-1] = read.arrangement
    return written


def product(maps: FeatureMaps, call: Call) -> Value:
    """Add a product of feature maps (attention, recurrence): every pixel sees all others."""
    maps.note(f"{call.name}: every pixel sees all others; its products are not counted")
    return _mix(maps, call)


def three_dimensional(maps: FeatureMaps, call: Call) -> Value:
    """Reject what works on volumes.

    Raises: SettingError, always.
    """
    raise SettingError.because(
        "feature maps of three dimensions",
        got=f"{call.name} in {call.scope or 'the network itself'}",
        allowed="networks on images, or on lines of pixels",
        remedy="analyse the part of it that works on images",
        argument="model",
    )


def _of_constant_weight(handler: Handler) -> Handler:
    """Return the handler, for calls whose weight no image changes; others are products."""

    def checked(maps: FeatureMaps, call: Call) -> Value:
        weight: Any = call.arguments.get("weight")
        is_tensor = isinstance(weight, fx.Node) and isinstance(weight.meta.get("val"), Tensor)
        if not is_tensor or call.value(weight) is not None:
            return product(maps, call)
        return handler(maps, call)

    return checked


def _add_layer(
    maps: FeatureMaps,
    call: Call,
    read: Sequence[Reading],
    layer: TracedLayer,
    axis: int,
    pooled: bool,
    stride: Stride | None = None,
    padding: Size | None = (0, 0),
) -> Label:
    return maps.write(
        Op.LAYER,
        read,
        call.shape,
        axis,
        layer.name.rpartition(".")[0],
        pooled,
        _middle(layer.effective_kernel) if stride else padding,
        layer=layer,
        window=layer.kernel,
        stride=stride or (Fraction(layer.stride[0]), Fraction(layer.stride[1])),
        dilation=layer.dilation,
    )


def _middle(window: Size) -> Size:
    """Return the padding of a window in the middle of which the output lies."""
    return (window[0] - 1) // 2, (window[1] - 1) // 2


# Pooling, reductions and upsampling


def pooling(maps: FeatureMaps, call: Call) -> Value:
    """Add a pooling with a window: each output sees k more pixels of its own channel."""
    label, arguments = call.label("self"), call.arguments
    size, dims = size_of(label.ids.shape, 1), len(call.shape) - 2
    window = pair(arguments["kernel_size"], dims)
    stride = pair(arguments["stride"] or arguments["kernel_size"], dims)
    read = maps.read(label, 1, call.scope)
    if label.pooled or (window == size and size_of(call.shape, 1) == (1, 1) and size != (1, 1)):
        return maps.write(Op.GLOBAL, (read,), call.shape, 1, call.scope, True)
    padding = pair(arguments.get("padding") or 0, dims)
    return maps.write(
        Op.POOL,
        (read,),
        call.shape,
        1,
        call.scope,
        padding=padding if dims == 2 else (0, padding[1]),
        window=window,
        stride=(Fraction(stride[0]), Fraction(stride[1])),
        dilation=pair(arguments.get("dilation") or 1, dims),
    )


def adaptive_pooling(maps: FeatureMaps, call: Call) -> Value:
    """Add a pooling to a size: stride = old / new, window = ceiling of it."""
    label = call.label("self")
    old, new = size_of(label.ids.shape, 1), size_of(call.shape, 1)
    if new == old or label.pooled:
        return label
    read = maps.read(label, 1, call.scope)
    if new == (1, 1):
        return maps.write(Op.GLOBAL, (read,), call.shape, 1, call.scope, True)
    op, window = Op.RESIZE, (1, 1)
    if old[0] > new[0] or old[1] > new[1]:
        op, window = Op.POOL, (-(-old[0] // new[0]), -(-old[1] // new[1]))
    stride = _ratio(old, new)
    return maps.write(op, (read,), call.shape, 1, call.scope, window=window, stride=stride)


def reduction(maps: FeatureMaps, call: Call) -> Value:
    """Add a mean, sum or norm: over all pixels (global pooling), or along another axis."""
    label = call.label("self")
    rank, axes = label.ids.dim(), label.axes()
    axis = next(iter(axes), 1)
    dims = call.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(rank)
    reduced = {dim % rank for dim in dims}
    if not label.pooled and reduced != set(range(1, rank)) - {axis}:
        if len(reduced) == 1 and call.rank > 2 and maps.repeats(label, axis, *reduced):
            return _first_slice(call, label, *reduced)
        if len(reduced) == 1 and reduced <= set(axes):
            return _reduce_channels(maps, call, label, *reduced)
        return _unknown(maps, call)
    read = maps.read(label, axis, call.scope)
    if call.rank < 2:
        return None
    channel_axis = axis if call.rank == rank else 1
    return maps.write(Op.GLOBAL, (read,), call.shape, channel_axis, call.scope, True)


def _first_slice(call: Call, label: Label, along: int) -> Value:
    """Return the mean or sum over slices that show the same, such as the branches of a batch."""

    def first(tensor: Tensor) -> Tensor:
        return tensor.select(along, 0).reshape(call.shape)

    replay = label.replay
    return Label(
        first(label.ids),
        label.pooled,
        None if replay is None else lambda values: first(replay(values)),
    )


def extremum(maps: FeatureMaps, call: Call) -> Value:
    """Add the maximum or minimum, of two feature maps or along axes of one."""
    return (elementwise if "other" in call.arguments else reduction)(maps, call)


def _reduce_channels(maps: FeatureMaps, call: Call, label: Label, axis: int) -> Value:
    """Add the union of what lies along an axis, such as feature maps that were stacked."""
    count = label.ids.shape[axis]
    slices = [Label(ids.reshape(call.shape)) for ids in torch.split(label.ids, 1, axis)]
    channel_axes = {tuple(part.axes()) for part in slices}
    if (
        count > MAX_CHANNELS_PER_PIXEL
        or call.rank < 3
        or len(channel_axes) > 1
        or len(slices[0].axes()) > 1
    ):
        return _unknown(maps, call)
    channel_axis = next(iter(slices[0].axes()), 1)
    read = _distinct(maps.read(part, channel_axis, call.scope) for part in slices)
    return maps.write(Op.JOIN, read, call.shape, channel_axis, call.scope)


def upsampling(maps: FeatureMaps, call: Call) -> Value:
    """Add a resized feature map: stride = old / new, below 1."""
    label = call.labels[0]
    old, new = size_of(label.ids.shape, 1), size_of(call.shape, 1)
    if label.pooled and old == (1, 1):
        return Label(label.ids.expand(call.shape), True)  # the same value everywhere
    read = maps.read(label, 1, call.scope)
    taps = next((taps for name, taps in _TAPS.items() if name in call.name), 1)
    stride = _ratio(old, new)
    return maps.write(
        Op.RESIZE, (read,), call.shape, 1, call.scope, label.pooled, stride=stride, taps=taps
    )


# From how many pixels along each axis an upsampling interpolates.
_TAPS: Final[Mapping[str, int]] = {"linear": 2, "bicubic": 4}


def _ratio(old: Size, new: Size) -> Stride:
    return Fraction(old[0], new[0]), Fraction(old[1], new[1])


# Moves of channels and pixels

# These end a sequence of moves, so that a channel shuffle is seen as one.
_ENDS_MOVES: Final = ("cat", "concat", "channel_shuffle", "native_channel_shuffle")
# These take values from all their tensors; all others move the first, and read shapes of the rest.
_READS_ALL: Final = ("cat", "concat", "stack", "copy", "slice_scatter", "select_scatter")


def move(maps: FeatureMaps, call: Call) -> Value:
    """Run the operator on the ids of the channels."""
    try:
        moved = _run_on(call, lambda label: label.ids)
    except (RuntimeError, IndexError, TypeError, ValueError):
        # The operator needs what labels do not have.
        return _unknown(maps, call)
    read = call.labels if call.name in _READS_ALL else call.labels[:1]
    pooled = all(label.pooled for label in read)
    labels = [
        Label(ids, pooled or has_no_pixels(ids.shape), partial(_replay, call, number))
        for number, ids in enumerate(_as_sequence(moved))
    ]
    return tuple(labels) if isinstance(moved, tuple | list) else _end_moves(maps, call, labels[0])


def _as_sequence(result: Any) -> Sequence[Tensor]:
    return result if isinstance(result, tuple | list) else (result,)


def _replay(call: Call, number: int, values: Callable[[Label], Tensor]) -> Tensor:
    return _as_sequence(_run_on(call, values))[number]


def _run_on(call: Call, values: Callable[[Label], Tensor]) -> Any:
    """Return the result of the operator on other values of its labels."""

    def argument(node: fx.Node) -> Any:
        value = call.value(node)
        if isinstance(value, Label):
            return values(value)
        tensor = node.meta.get("val")
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            return torch.full(tensor.shape, NO_CHANNEL)  # zeros, or other constants
        return call.environment.constant(node) if isinstance(tensor, Tensor) else tensor

    args: Any = fx.map_arg(call.node.args, argument)
    kwargs = dict(fx.map_arg(dict(call.node.kwargs), argument))
    if call.name in ("view", "_unsafe_view"):
        return args[0].reshape(args[1])  # labels are not laid out in memory as the tensor is
    if call.name in ("pad", "constant_pad_nd"):
        return torch.nn.functional.pad(args[0], list(args[1]), value=NO_CHANNEL)
    if call.name in ("cat", "concat"):
        return _concatenate(args[0], *args[1:], *kwargs.values())
    assert callable(call.node.target)
    return call.node.target(*args, **kwargs)


def _concatenate(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate tensors, without memory for axes along which all of them are expanded.

    >>> both = _concatenate([torch.arange(2).reshape(1, 2, 1).expand(1, 2, 9)] * 2, 1)
    >>> both.shape, both.untyped_storage().nbytes() // 8
    (torch.Size([1, 4, 9]), 4)
    """
    dim %= parts[0].dim()
    sizes = list(parts[0].shape)
    for axis in range(len(sizes)):
        if axis != dim and sizes[axis] and all(part.stride(axis) == 0 for part in parts):
            parts = [part.narrow(axis, 0, 1) for part in parts]
    whole = torch.cat(list(parts), dim)
    sizes[dim] = whole.shape[dim]
    return whole.expand(sizes)


def _end_moves(maps: FeatureMaps, call: Call, label: Label) -> Label:
    """Return the label, made a feature map at once where a sequence of moves ends."""
    unfolded = max(read.ids.dim() for read in call.labels) > 4
    if label.pooled or label.ids.dim() != 4 or not (call.name in _ENDS_MOVES or unfolded):
        return label
    if label.axes() not in ([], [1]):
        return label
    resolved = maps.labels[maps.resolve(label, 1, call.scope)]
    return resolved if call.keeps_shape(resolved) else label


# Windows, as columns of a matrix


def unfold(maps: FeatureMaps, call: Call) -> Value:
    """Add the pixels of windows as channels of their own, C k k of them, as F.unfold orders them.

    Each is its channel moved by its place in the window, so that a dense layer on them sees what a
    convolution with that kernel, dilation, padding and stride sees.
    """
    label = call.label("self")
    if label.ids.dim() != 4 or label.pooled or label.axes() not in ([], [1]):
        return _unknown(maps, call)
    windows = partial(_windows_of, call)
    columns = Label(windows(label.ids), replay=lambda values: windows(values(label)))
    read = maps.read(columns, 1, call.scope)
    whole = maps.labels[read.index]
    moved = any(read.shift) or read.unknown or maps.nodes[read.index].unknown is not None
    if not moved and whole.ids.shape == columns.ids.shape:
        maps.columns[read.index] = columns
        columns = whole
    return _reshaped(columns, call.shape)


def _windows_of(call: Call, tensor: Tensor) -> Tensor:
    """Return the windows of [N, C, H, W] as [N, C k k, H', W']."""
    arguments = call.arguments
    kernel, dilation, padding, stride = (
        pair(arguments[name]) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    padded = torch.nn.functional.pad(
        tensor, (padding[1], padding[1], padding[0], padding[0]), value=NO_CHANNEL
    )
    for axis in (0, 1):
        padded = padded.unfold(2 + axis, dilation[axis] * (kernel[axis] - 1) + 1, stride[axis])
    windows = padded[..., :: dilation[0], :: dilation[1]].permute(0, 1, 4, 5, 2, 3)
    images, channels, rows, columns, height, width = windows.shape
    return windows.reshape(images, channels * rows * columns, height, width)


def _reshaped(label: Label, shape: tuple[int, ...]) -> Label:
    """Return a label in another shape."""
    return Label(
        label.ids.reshape(shape),
        label.pooled,
        lambda values: values(label).reshape(shape),
    )


def fold(maps: FeatureMaps, call: Call) -> Value:
    """Add the sum of windows that F.fold puts side by side, each pixel the union of what it sums.

    At strides other than 1 and windows that overlap, which pixels are summed is not the same
    everywhere: then the pixels are not known.
    """
    label, arguments = maps.before_windows(call.label("self")), call.arguments
    kernel, dilation, padding, stride = (
        pair(arguments[name]) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    if label.ids.dim() != 3 or label.pooled or label.axes() not in ([], [1]):
        return _unknown(maps, call)
    images, channels, height, width = call.shape
    count = kernel[0] * kernel[1]
    rows, columns = (
        (size + 2 * pad - step * (k - 1) - 1) // s + 1
        for size, pad, step, k, s in zip(
            (height, width), padding, dilation, kernel, stride, strict=True
        )
    )

    def part(tap: int) -> Label:
        """Return what one place in the windows adds: [N, C, H, W], zeros between."""
        row, column = divmod(tap, kernel[1])

        def placed(tensor: Tensor) -> Tensor:
            windows = tensor.reshape(images, channels, count, rows, columns)[:, :, tap]
            size = height + 2 * padding[0], width + 2 * padding[1]
            whole = torch.full((images, channels, *size), NO_CHANNEL, dtype=tensor.dtype)
            top, left = row * dilation[0], column * dilation[1]
            whole[
                :,
                :,
                top : top + stride[0] * (rows - 1) + 1 : stride[0],
                left : left + stride[1] * (columns - 1) + 1 : stride[1],
            ] = windows
            return whole[:, :, padding[0] :, padding[1] :][:, :, :height, :width]

        return Label(placed(label.ids), replay=lambda values: placed(values(label)))

    parts = [part(tap) for tap in range(count)]
    if label is not call.label("self"):
        # Windows that are put back where they were cut, each pixel as often as they overlap.
        read = _distinct(maps.read(one, 1, call.scope) for one in parts)
        whole = maps.labels[read[0].index]
        if len(read) == 1 and not any(read[0].shift) and call.keeps_shape(whole):
            return whole
    if stride == (1, 1):
        read = _distinct(maps.read(one, 1, call.scope) for one in parts)
        return maps.write(Op.JOIN, read, call.shape, 1, call.scope)
    if stride == kernel and dilation == (1, 1):

        def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(tensors)).amax(0)  # where one has a channel, others have none

        return Label(
            side_by_side([one.ids for one in parts]),
            replay=lambda values: side_by_side([values(one) for one in parts]),
        )
    maps.note("col2im: windows that overlap at a stride: which pixels they sum is not known")
    union = maps.index(
        maps.write(
            Op.JOIN,
            _selected(maps, call, label, count),
            (images, channels, rows, columns),
            1,
            call.scope,
        )
    )
    return maps.add(
        Op.RESIZE,
        (union,),
        call.shape,
        1,
        call.scope,
        stride=_ratio((rows, columns), (height, width)),
        unknown=np.full(channels, True),
    )


def _selected(maps: FeatureMaps, call: Call, label: Label, count: int) -> tuple[Reading, ...]:
    """Return the channels of each place in windows [N, C k k, L] as a feature map each."""
    images, channels, pixels = label.ids.shape
    shape = images, channels // count, count, pixels

    def taken(tap: int) -> Label:
        return Label(
            label.ids.reshape(shape)[:, :, tap],
            replay=lambda values: values(label).reshape(shape)[:, :, tap],
        )

    return _distinct(maps.read(taken(tap), 1, call.scope) for tap in range(count))


# Sums, products, and all other operators


def elementwise(maps: FeatureMaps, call: Call) -> Value:
    """Add the union of feature maps of equal shape; what only scales or shifts one is a gate.

    A feature map divided by its norm along the channels stays as it is, as in layer norm.
    """
    if _is_over_own_norm(call):
        maps.passed["normalize"] += 1
        return call.labels[0]
    whole = [label for label in call.labels if call.keeps_shape(label)]
    if any(not label.pooled for label in whole):
        whole = [label for label in whole if not label.pooled]
    if not whole:
        return _unknown(maps, call)
    maps.gates.update(maps.owners(label for label in call.labels if label not in whole))
    axes = sorted({axis for label in whole for axis in label.axes()})
    if len(axes) > 1 and all(_is_split(label, axes) for label in whole):
        return _of_split(maps, call, whole, axes)
    # Where channels of one lie along several axes, those of another may lie along one.
    candidates = sorted((axes for axes in (label.axes() for label in whole) if axes), key=len)
    axis = candidates[0][0] if candidates else 1
    if candidates and len(candidates[0]) > 1 and call.rank == 3:
        axis = 2  # tokens and their channels
    read = _distinct(maps.read(label, axis, call.scope) for label in whole)
    if len(read) == 1:
        return whole[0]
    return maps.write(Op.JOIN, read, call.shape, axis, call.scope, whole[0].pooled)


def _is_split(label: Label, axes: Sequence[int]) -> bool:
    """Return whether the channels of a label lie along several axes, each at one place of them.

    So they do where attention splits them into heads.
    """
    middle: list[int | slice] = [*label.middle()]
    for axis in axes:
        middle[axis] = slice(None)
    ids = label.ids[tuple(middle)]
    return len(torch.unique(ids)) == ids.numel() and bool((ids != NO_CHANNEL).all())


def _of_split(maps: FeatureMaps, call: Call, whole: Sequence[Label], axes: Sequence[int]) -> Label:
    """Add the union of feature maps whose channels lie along several axes, as if along one."""
    others = [axis for axis in range(call.rank) if axis not in axes]
    order = [*others, *axes]
    sizes = [call.shape[axis] for axis in order]

    def merged(tensor: Tensor) -> Tensor:
        return tensor.permute(order).flatten(len(others))

    def split(tensor: Tensor) -> Tensor:
        return tensor.reshape(sizes).permute([order.index(axis) for axis in range(call.rank)])

    parts = [Label(merged(label.ids), label.pooled, _replayed(label, merged)) for label in whole]
    read = _distinct(maps.read(part, len(others), call.scope) for part in parts)
    if len(read) == 1:
        return whole[0]
    shape = tuple(parts[0].ids.shape)
    joined = maps.write(Op.JOIN, read, shape, len(others), call.scope, whole[0].pooled)
    return Label(split(joined.ids), joined.pooled, _replayed(joined, split))


def _replayed(
    label: Label, move: Callable[[Tensor], Tensor]
) -> Callable[[Callable[[Label], Tensor]], Tensor]:
    """Return what repeats a move of a label on other values."""
    return lambda values: move(values(label))


# What stands between the norm of a feature map and the division by it, and reads nothing else.
_OF_NORMS: Final = ("clamp", "clamp_min", "expand", "add")


def _is_over_own_norm(call: Call) -> bool:
    """Return whether a call divides by the norm of the dividend, along axes of channels only."""
    if call.name not in ("div", "divide"):
        return False
    dividend, divisor = call.node.args[:2]
    while isinstance(divisor, fx.Node) and (
        bare_name(divisor) == "expand_as"
        or (bare_name(divisor) in _OF_NORMS and len(divisor.all_input_nodes) == 1)
    ):
        divisor = divisor.args[0]
    if not isinstance(divisor, fx.Node) or bare_name(divisor) != "linalg_vector_norm":
        return False
    dims: Any = divisor.args[2] if len(divisor.args) > 2 else None
    label = call.value(dividend)
    if divisor.args[0] is not dividend or not dims or not isinstance(label, Label):
        return False
    return {dim % label.ids.dim() for dim in dims} <= set(label.axes())


def _distinct(read: Iterable[Reading]) -> tuple[Reading, ...]:
    """Return feature maps as they are read, each once."""
    by_place = {(one.index, one.shift, id(one.arrangement), one.unknown): one for one in read}
    return tuple(by_place.values())


def item(maps: FeatureMaps, call: Call) -> Value:
    """Return one of several values, as `operator.getitem` does."""
    value, index = call.value(call.node.args[0]), call.node.args[1]
    if isinstance(value, tuple) and isinstance(index, int):
        return value[index] if index < len(value) else None
    return value


def constant(maps: FeatureMaps, call: Call) -> Value:
    """Return nothing: the result has the shape of a feature map and none of its values."""
    return None


def keep(maps: FeatureMaps, call: Call) -> Value:
    """Return the feature map itself, for any operator without a row in the table.

    If its shape changes, if it reads matrices of weights, or if it works along the pixels, every
    pixel sees all others.
    """
    weighted = not call.name.endswith("norm") and call.has_matrices
    same_shape = len(call.labels) == 1 and call.keeps_shape(call.labels[0])
    if (
        weighted
        or not same_shape
        or (call.name in ALONG_PIXELS and _has_pixels(maps, call.labels[0]))
    ):
        return _unknown(maps, call)
    maps.passed[call.name] += 1
    if call.returns_several:
        # Batch norm and others return statistics behind the feature map.
        return (call.labels[0], *(None for _ in call.result[1:]))
    return call.labels[0]


def _has_pixels(maps: FeatureMaps, label: Label) -> bool:
    """Return whether the pixels of a label can still see anything new in each other."""
    owners = maps.owners([label])
    return not label.pooled and any(maps.nodes[owner].op is not Op.MIX for owner in owners)


def _unknown(maps: FeatureMaps, call: Call) -> Value:
    """Add a feature map of which every pixel sees all others, and note that this is a guess."""
    if call.tensor is None or call.rank < 2:
        return None
    maps.note(f"{call.name}: not known, as if every pixel saw all others and it cost nothing")
    return _mix(maps, call)


def _mix(maps: FeatureMaps, call: Call) -> Label:
    """Add a feature map of which every pixel sees all of the feature maps that it reads."""
    first = call.labels[0]
    pooled = has_no_pixels(call.shape) or all(label.pooled for label in call.labels)
    axes = first.axes() if first.ids.dim() == call.rank else []
    channels_last = call.rank not in (2, 4)
    axis = axes[0] if len(axes) == 1 else call.rank - 1 if channels_last else 1
    parents = maps.owners(call.labels)
    return maps.add(Op.MIX, parents, call.shape, axis, call.scope, pooled)


# Operators without a row that keep the shape, and yet let pixels see others.
ALONG_PIXELS: Final = frozenset(
    name
    for names in (
        "softmax _softmax log_softmax _log_softmax",
        "cumsum cumprod cummax cummin logcumsumexp sort argsort msort topk",
        "fft_fft fft_ifft fft_fft2 fft_ifft2 fft_fftn fft_ifftn",
        "local_response_norm grid_sampler grid_sampler_2d",
        "scatter scatter_add scatter_reduce masked_scatter index_put index_copy index_add",
    )
    for name in names.split()
)

# Handlers of layers with weights, and the names of their operators.
_LAYERS: Final[tuple[tuple[Handler, str], ...]] = (
    (_of_constant_weight(convolution), "conv1d conv2d"),
    (_of_constant_weight(transposed_convolution), "conv_transpose1d conv_transpose2d"),
    (rolling_pointwise, "rpw"),
    (_of_constant_weight(linear), "linear"),
)
LAYERS: Final[frozenset[Handler]] = frozenset(handler for handler, _ in _LAYERS)
# Handler, and the names of its operators without namespace and overload.
_ROWS: Final[tuple[tuple[Handler, str], ...]] = (
    *_LAYERS,
    (
        product,
        "scaled_dot_product_attention bilinear lstm gru rnn_tanh rnn_relu",
    ),
    (contraction, "addmm baddbmm einsum inner tensordot"),
    (matrix_product, "matmul bmm mm"),
    (unfold, "im2col"),
    (fold, "col2im"),
    (three_dimensional, "conv3d conv_transpose3d max_pool3d avg_pool3d"),
    (
        pooling,
        "max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices avg_pool1d "
        "avg_pool2d",
    ),
    (
        adaptive_pooling,
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d",
    ),
    (reduction, "mean sum amax amin std var linalg_vector_norm logsumexp"),
    (extremum, "max min"),
    (
        upsampling,
        "upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d "
        "upsample_linear1d _upsample_nearest_exact1d _upsample_nearest_exact2d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa",
    ),
    (
        move,
        "view _unsafe_view reshape permute transpose t numpy_T mT flatten unflatten chunk split "
        "split_with_sizes unsafe_chunk unsafe_split slice select narrow cat concat stack roll "
        "expand expand_as repeat repeat_interleave unsqueeze squeeze index_select index flip "
        "fliplr flipud rot90 gather take_along_dim swapdims "
        "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle unbind movedim "
        "moveaxis swapaxes pad constant_pad_nd unfold view_as reshape_as tile copy type_as "
        "slice_scatter select_scatter",
    ),
    (
        elementwise,
        "add sub rsub mul multiply div divide maximum minimum where addcmul lerp",
    ),
    (item, "getitem"),
    (
        constant,
        "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones "
        "new_full new_empty",
    ),
)
OPERATORS: Final[Mapping[str, Handler]] = {
    name: handler for handler, names in _ROWS for name in names.split()
}
