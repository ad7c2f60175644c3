"""Operators that move channels or join maps, and change no number by weights of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, fx, nn

from ifspace.errors import SettingError
from ifspace.models.calls import (
    Call,
    Value,
)
from ifspace.models.feature_maps import (
    MOST_SPREAD,
    NOTHING,
    Label,
    flat,
    side_of,
)
from ifspace.models.graph import (
    Op,
    Size,
    TracedLayer,
    conv_layer,
    linear_layer,
    rolling_layer,
)

if TYPE_CHECKING:
    from ifspace.models.tracing import Reader

# What these return ends a row of moves: a channel shuffle shall be seen as one.
_ENDS: Final = ("cat", "concat", "channel_shuffle", "native_channel_shuffle")
# These put maps side by side; all others move the first and ask others for their shape alone.
_GATHER: Final = ("cat", "concat", "stack", "copy", "slice_scatter", "select_scatter")


def _move(reader: "Reader", call: Call) -> Value:
    """Run the operator on the numbers of the channels."""
    try:
        moved = _moved(reader, call, lambda label: label.ids)
    except (RuntimeError, IndexError, TypeError, ValueError):
        # The operator moves what labels do not have.
        return reader.unknown(call)
    labels = call.labels if call.name in _GATHER else call.labels[:1]
    pooled = all(label.pooled for label in labels)
    parts = [
        Label(each, pooled or flat(each.shape), partial(_remade, reader, call, place))
        for place, each in enumerate(_several(moved))
    ]
    return tuple(parts) if isinstance(moved, tuple | list) else _ended(reader, call, parts[0])


def _several(made: Any) -> Sequence[Tensor]:
    return made if isinstance(made, tuple | list) else (made,)


def _remade(reader: "Reader", call: Call, place: int, of: Callable[[Label], Tensor]) -> Tensor:
    return _several(_moved(reader, call, of))[place]


def _moved(reader: "Reader", call: Call, of: Callable[[Label], Tensor]) -> Any:
    def numbers(node: fx.Node) -> Any:
        value = call.value(node)
        if isinstance(value, Label):
            return of(value)
        made = node.meta.get("val")
        if isinstance(made, Tensor) and made.is_floating_point():
            return torch.full(made.shape, NOTHING)  # zeros, or other constants
        return reader.constant(node) if isinstance(made, Tensor) else made

    args: Any = fx.map_arg(call.node.args, numbers)
    kwargs = dict(fx.map_arg(dict(call.node.kwargs), numbers))
    if call.name in ("view", "_unsafe_view"):
        return args[0].reshape(args[1])  # labels are not laid out as the tensor is
    if call.name in ("pad", "constant_pad_nd"):
        return torch.nn.functional.pad(args[0], list(args[1]), value=NOTHING)
    if call.name in ("cat", "concat"):
        return _put_together(args[0], *args[1:], *kwargs.values())
    assert callable(call.node.target)
    return call.node.target(*args, **kwargs)


def _put_together(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return tensors behind each other, without memory for axes along which none of them changes.

    >>> made = _put_together([torch.arange(2).reshape(1, 2, 1).expand(1, 2, 9)] * 2, 1)
    >>> made.shape, made.untyped_storage().nbytes() // 8
    (torch.Size([1, 4, 9]), 4)
    """
    dim %= parts[0].dim()
    sizes = list(parts[0].shape)
    for axis in range(len(sizes)):
        if axis != dim and sizes[axis] and all(each.stride(axis) == 0 for each in parts):
            parts = [each.narrow(axis, 0, 1) for each in parts]
    made = torch.cat(list(parts), dim)
    sizes[dim] = made.shape[dim]
    return made.expand(sizes)


def _ended(reader: "Reader", call: Call, label: Label) -> Label:
    """Return the label, made a map at once where a row of moves ends."""
    unfolded = max(each.ids.dim() for each in call.labels) > 4
    if label.pooled or label.ids.dim() != 4 or not (call.name in _ENDS or unfolded):
        return label
    if label.axes() not in ([], [1]):
        return label
    found = reader.maps.labels[reader.maps.settle(label, 1, call.scope)]
    return found if call.keeps(found) else label


def _join(reader: "Reader", call: Call) -> Value:
    """Return the union of maps of equal size; what only scales or shifts one is a gate."""
    whole = [label for label in call.labels if call.keeps(label)]
    if any(not label.pooled for label in whole):
        whole = [label for label in whole if not label.pooled]
    if not whole:
        return reader.unknown(call)
    reader.gates.update(reader.maps.sources(each for each in call.labels if each not in whole))
    axis = next((axes[0] for axes in (label.axes() for label in whole) if axes), 1)
    parents = tuple(dict.fromkeys(reader.maps.settle(label, axis, call.scope) for label in whole))
    if len(parents) == 1:
        return whole[0]
    pooled = whole[0].pooled
    return reader.maps.add(Op.JOIN, parents, call.shape, axis, call.scope, pooled)


MOVES: Final = (
    "view",
    "_unsafe_view",
    "reshape",
    "permute",
    "transpose",
    "t",
    "numpy_T",
    "mT",
    "flatten",
    "unflatten",
    "chunk",
    "split",
    "split_with_sizes",
    "unsafe_chunk",
    "unsafe_split",
    "slice",
    "select",
    "narrow",
    "cat",
    "concat",
    "stack",
    "roll",
    "expand",
    "expand_as",
    "repeat",
    "repeat_interleave",
    "unsqueeze",
    "squeeze",
    "index_select",
    "index",
    "flip",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "unbind",
    "movedim",
    "moveaxis",
    "swapaxes",
    "pad",
    "constant_pad_nd",
    "unfold",
    "view_as",
    "reshape_as",
    "tile",
    "copy",
    "slice_scatter",
    "select_scatter",
)
JOINS: Final = (
    "add",
    "sub",
    "rsub",
    "mul",
    "multiply",
    "div",
    "divide",
    "maximum",
    "minimum",
    "where",
    "addcmul",
    "lerp",
)
MOVING: Final[Mapping[str, Callable[["Reader", Call], Value]]] = {
    **dict.fromkeys(MOVES, _move),
    **dict.fromkeys(JOINS, _join),
}


def _pool(reader: "Reader", call: Call) -> Value:
    label, given = call.label("self"), call.arguments
    side, dims = side_of(label.ids.shape, 1), len(call.shape) - 2
    window = _window_pair(given["kernel_size"], dims)
    stride = _window_pair(given["stride"] or given["kernel_size"], dims)
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
        dilation=_window_pair(given.get("dilation") or 1, dims),
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
    return (MOVING["maximum"] if "other" in call.arguments else _mean)(reader, call)


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


def _window_pair(size: Any, dims: int) -> Size:
    """Return (height, width); along a line of pixels the height is 1."""
    found = [size] * dims if isinstance(size, int) else [int(each) for each in size]
    found = found * dims if len(found) < dims else found
    return (1, found[0]) if len(found) == 1 else (found[0], found[1])


POOLING: Final[Mapping[str, Callable[["Reader", Call], Value]]] = {
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


class Weights:
    """Whose weights are read: the paths of the modules, and which were counted before.

    `names`: for each parameter and buffer of the program its path in the model.
    """

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        self.model, self._names = model, names
        # A module may stand in several places: one name is enough.
        first = {module: name for name, module in reversed(list(model.named_modules()))}
        self._modules = {
            name: (module, first[module])
            for name, module in model.named_modules(remove_duplicate=False)
        }
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._counted: set[nn.Parameter] = set()

    def of(self, call: Call, name: str = "weight") -> tuple[str, tuple[int, ...]]:
        """Return the path of the module that owns a weight, and the weight's shape.

        A weight that is computed on every call, or lent by another module, is that module's that
        calls.
        """
        weight = call.source(call.arguments[name])
        path = self._names.get(weight.name)
        owner = call.scope if path is None or self._holds(call.scope, path) else _owner(path)
        if owner in self._modules:
            owner = self._modules[owner][1]
        return owner, tuple(int(size) for size in weight.meta["val"].shape)

    def _holds(self, scope: str, path: str) -> bool:
        parameter = self._parameters.get(path)
        if parameter is None or scope not in self._modules:
            return False
        return any(each is parameter for each in self._modules[scope][0].parameters(recurse=False))

    def params(self, call: Call) -> int:
        """Return how many parameters a call takes its weight and bias from, counted once."""
        waiting = [call.arguments.get(name) for name in ("weight", "bias")]
        looked: set[fx.Node] = set()
        found: set[nn.Parameter] = set()
        while waiting:
            node = waiting.pop()
            if not isinstance(node, fx.Node) or call.value(node) is not None or node in looked:
                continue
            looked.add(node)
            source = call.source(node)
            parameter = self._parameters.get(self._names.get(source.name, ""))
            if parameter is not None:
                found.add(parameter)
            waiting += source.all_input_nodes
        found -= self._counted
        self._counted |= found
        return sum(each.numel() for each in found)

    def matrices(self, call: Call) -> bool:
        """Return whether a call takes parameters that are no mere row of numbers."""
        paths = (self._names.get(call.source(each).name) for each in call.node.all_input_nodes)
        found = (self._parameters.get(path) for path in paths if path is not None)
        return any(each is not None and each.dim() > 1 for each in found)


def _owner(path: str) -> str:
    return path.rpartition(".")[0]


def _add_layer(
    reader: "Reader",
    call: Call,
    parents: tuple[int, ...],
    layer: TracedLayer,
    axis: int,
    pooled: bool,
    stride: tuple[Fraction, Fraction] | None = None,
) -> Label:
    given = (Fraction(layer.stride[0]), Fraction(layer.stride[1]))
    return reader.maps.add(
        Op.LAYER,
        parents,
        call.shape,
        axis,
        _owner(layer.name),
        pooled,
        layer=layer,
        window=layer.kernel,
        stride=stride or given,
        dilation=layer.dilation,
    )


def _conv(reader: "Reader", call: Call) -> Value:
    label = call.label("input")
    name, weight = reader.weights.of(call)
    parent = reader.maps.settle(label, 1, call.scope)
    shape = tuple(label.ids.shape)
    layer = conv_layer(
        name,
        shape[1],
        weight,
        side_of(shape, 1),
        side_of(call.shape, 1),
        reader.weights.params(call),
        call.arguments,
    )
    return _add_layer(reader, call, (parent,), layer, 1, label.pooled)


def _transposed(reader: "Reader", call: Call) -> Value:
    label = call.label("input")
    name, weight = reader.weights.of(call)
    parent = reader.maps.settle(label, 1, call.scope)
    side_in, side_out = side_of(label.ids.shape, 1), side_of(call.shape, 1)
    # [C_in, C_out / groups, k, k]: each pixel of the input is multiplied with all of it.
    read = (call.shape[1], weight[0] // int(call.arguments["groups"]), *weight[2:])
    layer = conv_layer(
        name,
        weight[0],
        read,
        side_in,
        side_in,
        reader.weights.params(call),
        {**call.arguments, "stride": 1},
    )
    layer = replace(layer, side_out=side_out)
    reader.maps.notes["a transposed convolution is one on a map made larger"] = None
    stride = (Fraction(side_in[0], side_out[0]), Fraction(side_in[1], side_out[1]))
    return _add_layer(reader, call, (parent,), layer, 1, label.pooled, stride)


def _rolling(reader: "Reader", call: Call) -> Value:
    label = call.label("x")
    name, weight = reader.weights.of(call)
    parent = reader.maps.settle(label, 1, call.scope)
    arguments, shape = call.arguments, tuple(label.ids.shape)
    layer = rolling_layer(
        name,
        shape[1],
        weight,
        int(arguments["step"]),
        side_of(shape, 1),
        reader.weights.params(call),
        arguments["bias"] is not None,
        reader.weights.model,
    )
    return _add_layer(reader, call, (parent,), layer, 1, label.pooled)


def _linear(reader: "Reader", call: Call) -> Value:
    label = call.label("input")
    name, (c_out, c_in) = reader.weights.of(call)
    bias, params = call.arguments["bias"] is not None, reader.weights.params(call)
    behind = label.pooled or flat(call.shape)
    side = side_of(call.shape, -1)
    layer = linear_layer(name, c_in, c_out, side, params, bias, behind)
    if behind:
        return _add_layer(reader, call, reader.maps.sources([label]), layer, -1, True)
    parent = reader.maps.settle(label, -1, call.scope)
    return _add_layer(reader, call, (parent,), layer, -1, False)


def _product(reader: "Reader", call: Call) -> Value:
    """Return a map of products of maps: attention, or a matrix computed on every call."""
    text = f"{call.name}: every place sees all others; its products are not counted"
    reader.maps.notes[text] = None
    return reader.mixed(call)


def _beyond(reader: "Reader", call: Call) -> Value:
    raise SettingError.because(
        "maps of three dimensions",
        got=f"{call.name} in {call.scope or 'the network itself'}",
        allowed="networks on images, or on lines of pixels",
        remedy="analyse the part of it that works on images",
        argument="model",
    )


def _of_input(read: Callable[["Reader", Call], Value]) -> Callable[["Reader", Call], Value]:
    """Return the reader, for calls whose weight may be a map itself: then all is mixed."""

    def checked(reader: "Reader", call: Call) -> Value:
        weight: Any = call.arguments.get("weight")
        plain = isinstance(weight, fx.Node) and isinstance(weight.meta.get("val"), torch.Tensor)
        if not plain or call.value(weight) is not None:
            return _product(reader, call)
        return read(reader, call)

    return checked


WEIGHING: Final[Mapping[str, Callable[["Reader", Call], Value]]] = {
    **dict.fromkeys(("conv1d", "conv2d"), _of_input(_conv)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _of_input(_transposed)),
    "rpw": _rolling,
    "linear": _of_input(_linear),
    **dict.fromkeys(
        (
            "matmul",
            "bmm",
            "mm",
            "addmm",
            "baddbmm",
            "einsum",
            "scaled_dot_product_attention",
            "bilinear",
            "lstm",
            "gru",
            "rnn_tanh",
            "rnn_relu",
        ),
        _product,
    ),
    **dict.fromkeys(("conv3d", "conv_transpose3d", "max_pool3d", "avg_pool3d"), _beyond),
}
