"""Blocks whose weights are nearest to those of a convolution: in closed form where there is one.

Two grouped pointwise layers with a shuffle between, as GPW+SH+GPW, are a matrix of parts: that of
the outputs of a group of the second and the inputs of a group of the first has the rank of how many
channels pass from one to the other, and shares no weight with another part. So the nearest matrix
has the truncated singular value decomposition of each part: the projection on Monarch matrices. A
depthwise layer beside a matrix is the same with one spatial vector for each channel.

Reference: Dao et al., Monarch, section 3.3 and appendix D.
"""

from collections import defaultdict
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.kernels.windows import dense_weight, windows_at
from ifspace.nn.block import BlockModule
from ifspace.nn.layers import RollingPointwiseConv2d

_NORMS: Final = (nn.modules.batchnorm._BatchNorm,)


class Start(Enum):
    """How the weights of a block are begun that stands for a convolution."""

    CLOSED_FORM = "closed form"
    PROJECTED = "projected"
    DRAWN = "drawn"


def project(conv: Any, block: BlockModule) -> Start:
    """Set the weights of a block in place to those of the least error in the weights, if known.

    Batch norm inside the block is taken to change nothing. CLOSED_FORM: no weights have a smaller
    Frobenius error to those of the convolution. PROJECTED: none of the matrix has, with the
    depthwise layer that is nearest if the matrix could be any. DRAWN: the block is left as it is.

    >>> conv = nn.Conv2d(16, 16, 1)
    >>> from ifspace.nn import Style, build
    >>> block = build("GPW(4)+SH(4)+GPW(4)", 16, style=Style(False, None, bias=True))
    >>> project(conv, block)
    <Start.CLOSED_FORM: 'closed form'>
    """
    layers = [block.get_submodule(name) for name in block.steps]
    layers = [layer for layer in layers if not isinstance(layer, _NORMS)]
    linear = (nn.Conv2d, RollingPointwiseConv2d, nn.ChannelShuffle)
    if block.shortcut_kind != "none" or not all(isinstance(layer, linear) for layer in layers):
        return Start.DRAWN
    spatial = [
        index
        for index, layer in enumerate(layers)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
    ]
    weight = conv.weight.detach().double()
    with torch.no_grad():
        if not spatial:
            start = Start.CLOSED_FORM
            fits = conv.kernel_size == (1, 1) and _set_matrix(weight[:, :, 0, 0], layers)
        else:
            start = Start.PROJECTED
            fits = len(spatial) == 1 and _set_around(weight, layers, spatial[0])
            if sum(map(_writes, layers)) <= 2 and all(map(_is_dense_or_spatial, layers)):
                start = Start.CLOSED_FORM
        if not fits:
            return Start.DRAWN
        _set_biases(conv, layers)
    return start


def kernel_of(block: BlockModule) -> Tensor | None:
    """Return the weights [F, C, k, k] of the convolution that a block of linear layers is.

    Batch norm is taken to change nothing, and biases are left out. None for a block with an
    activation, a shortcut, or several spatial layers.
    """
    kernel = torch.eye(block.sized.channels, dtype=torch.float64)[:, :, None, None]
    if block.shortcut_kind != "none":
        return None
    for name in block.steps:
        layer: Any = block.get_submodule(name)
        if isinstance(layer, _NORMS):
            continue
        if isinstance(layer, nn.ChannelShuffle):
            kernel = layer(kernel)
        elif isinstance(layer, RollingPointwiseConv2d):
            kernel = nn.functional.conv2d(kernel, _dense(layer)[:, :, None, None])
        elif isinstance(layer, nn.Conv2d):
            rows, columns = (size // 2 for size in layer.kernel_size)
            if rows or columns:
                if max(kernel.shape[2:]) > 1:
                    return None
                kernel = nn.functional.pad(kernel, [columns, columns, rows, rows])
            weight = layer.weight.detach().double().cpu()
            # Its weights alone: how far apart it reads them is that of the convolution.
            kernel = nn.functional.conv2d(
                kernel, weight, padding=(rows, columns), groups=layer.groups
            )
        else:
            return None
    # An impulse meets the kernel from its other end.
    return kernel.flip(2, 3).transpose(0, 1)


def _dense(layer: RollingPointwiseConv2d) -> Tensor:
    weight = layer.weight.detach().double().cpu()
    return dense_weight(weight, layer.in_channels, layer.step, order=layer.order)


def _writes(layer: nn.Module) -> bool:
    return not isinstance(layer, nn.ChannelShuffle)


def _is_dense_or_spatial(layer: Any) -> bool:
    """Return whether a layer leaves the matrix of a block free: a PW, and a DW beside it."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 or layer.kernel_size != (1, 1)
    return isinstance(layer, nn.ChannelShuffle)


def _set_around(weight: Tensor, layers: Sequence[Any], index: int) -> bool:
    """Set a depthwise layer that is the first or the last, and the matrix on its other side.

    `weight` [F, C, k, k]. Returns whether the layers are of that form.
    """
    spatial = layers[index]
    before, behind = layers[:index], layers[index + 1 :]
    depthwise = spatial.groups == spatial.in_channels == spatial.out_channels
    if not depthwise or spatial.kernel_size != tuple(weight.shape[2:]):
        return False
    if not any(map(_writes, before)):
        # One matrix [F, k k] for each input channel: its nearest of rank 1.
        left, values, right = torch.linalg.svd(
            weight.flatten(2).transpose(0, 1), full_matrices=False
        )
        matrix = (left[:, :, 0] * values[:, :1].sqrt()).T
        rest, order = behind, _shuffled(before, weight.shape[1])
    elif not any(map(_writes, behind)):
        left, values, right = torch.linalg.svd(weight.flatten(2), full_matrices=False)
        matrix = left[:, :, 0] * values[:, :1].sqrt()
        # What the depthwise layer writes at position p becomes output order[p] of the block.
        rest, order = before, _shuffled(behind, weight.shape[0]).argsort()
    else:
        return False
    kernels = right[:, 0] * values[:, :1].sqrt()
    # Shuffles put the channels of the depthwise layer into another order than those of the matrix.
    matrix = matrix[:, order] if rest is behind else matrix[order]
    if not _set_matrix(matrix, rest):
        return False
    spatial.weight.copy_(kernels[order].reshape(spatial.weight.shape))
    return True


def _set_matrix(matrix: Tensor, layers: Sequence[Any]) -> bool:
    """Set one or two pointwise layers and shuffles to the nearest of a matrix [F, C].

    Returns whether there is a closed form for them.
    """
    labels = torch.arange(matrix.shape[1])
    writers: list[tuple[Any, Tensor]] = []
    for layer in layers:
        if _writes(layer):
            writers.append((layer, labels[_reads(layer)]))
            labels = torch.arange(len(layer.weight))
        else:
            labels = _shuffled([layer], len(labels), labels)
    if not writers or len(labels) != len(matrix):
        return False
    # The row of the matrix that each filter of the last layer writes.
    matrix = matrix[labels.argsort()]
    if len(writers) == 1:
        layer, reads = writers[0]
        layer.weight.copy_(matrix.gather(1, reads).reshape(layer.weight.shape))
        return True
    return len(writers) == 2 and _set_factors(matrix, *writers)


def _set_factors(matrix: Tensor, first: tuple[Any, Tensor], second: tuple[Any, Tensor]) -> bool:
    """Set two layers, each with the channels [C_out, w] that its filters read."""
    inputs, outputs = _groups(first[1]), _groups(second[1])
    if inputs is None or outputs is None:
        return False
    (one, sources), (other, middle) = first, second
    input_of = {int(filter_): key for key, filters in inputs.items() for filter_ in filters}
    # Of each pair of groups: the filters of the first layer that pass from one to the other, and
    # where they are among the weights of the second. Parts of one shape are decomposed together.
    parts: dict[tuple[int, int, int], list[tuple[Any, ...]]] = defaultdict(list)
    for read, filters in outputs.items():
        passing: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for column, channel in enumerate(read):
            passing[input_of[channel]].append(column)
        for columns in passing.values():
            channels = middle[filters[0], columns]
            part = matrix[filters][:, sources[channels[0]]]
            parts[(*part.shape, len(columns))].append((part, filters, columns, channels))
    weights = [layer.weight.detach().double().flatten(1) for layer in (one, other)]
    for (_, _, rank), alike in parts.items():
        stacked = torch.stack([part for part, *_ in alike])
        left, values, right = torch.linalg.svd(stacked, full_matrices=False)
        kept = min(rank, values.shape[1])
        roots = values[:, :kept].sqrt()
        before, behind = roots[:, :, None] * right[:, :kept], left[:, :, :kept] * roots[:, None]
        for (_, filters, columns, channels), rows, more in zip(alike, before, behind, strict=True):
            # More channels than the rank of the part: those left over pass nothing.
            weights[0][channels] = 0
            weights[0][channels[:kept]] = rows
            block = torch.zeros(len(filters), rank, dtype=matrix.dtype, device=matrix.device)
            block[:, :kept] = more
            weights[1][torch.as_tensor(filters)[:, None], torch.as_tensor(columns)] = block
    for layer, values in zip((one, other), weights, strict=True):
        layer.weight.copy_(values.reshape(layer.weight.shape))
    return True


def _groups(reads: Tensor) -> dict[tuple[int, ...], list[int]] | None:
    """Return the filters by the channels that they read; None if those of two filters overlap."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, channels in enumerate(reads.tolist()):
        groups[tuple(channels)].append(index)
    read = [channel for channels in groups for channel in channels]
    return groups if len(read) == len(set(read)) else None


def _reads(layer: Any) -> Tensor:
    """Return the input channels [C_out, w] that the filters of a pointwise layer read."""
    if isinstance(layer, RollingPointwiseConv2d):
        sizes = layer.in_channels, layer.out_channels, layer.weight.shape[1], layer.step
        return windows_at(*sizes, layer.order).read_channels("cpu")
    width, height = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    groups = torch.arange(layer.groups).repeat_interleave(height)
    reads: Tensor = groups[:, None] * width + torch.arange(width)
    return reads


def _shuffled(layers: Sequence[Any], count: int, labels: Tensor | None = None) -> Tensor:
    """Return labels of channels, their numbers if not given, in the order behind shuffles."""
    shuffled = torch.arange(count) if labels is None else labels
    for layer in layers:
        shuffled = layer(shuffled.reshape(1, count, 1, 1)).flatten()
    return shuffled


def _set_biases(conv: Any, layers: Sequence[Any]) -> None:
    """Give the last layer the bias of the convolution, and the others none."""
    writers = [layer for layer in layers if _writes(layer)]
    for layer in writers:
        if layer.bias is not None:
            layer.bias.zero_()
    last = writers[-1]
    if conv.bias is None or last.bias is None:
        return
    behind = layers[layers.index(last) + 1 :]
    last.bias[_shuffled(behind, len(last.bias))] = conv.bias.to(last.bias)
