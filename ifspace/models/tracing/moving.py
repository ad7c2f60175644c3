"""Operators that move channels or join maps, and change no number by weights of their own."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, fx

from ifspace.models.graph import Op
from ifspace.models.tracing.calls import Call, Value
from ifspace.models.tracing.labels import NOTHING, Label, flat

if TYPE_CHECKING:
    from ifspace.models.tracing.reading import Reader

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
READERS: Final[Mapping[str, Callable[["Reader", Call], Value]]] = {
    **dict.fromkeys(MOVES, _move),
    **dict.fromkeys(JOINS, _join),
}
