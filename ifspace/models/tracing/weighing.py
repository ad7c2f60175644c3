"""Operators with weights: convolutions, rolling pointwise layers, dense layers, products."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import fx, nn

from ifspace.errors import SettingError
from ifspace.models.graph import Op, TracedLayer
from ifspace.models.tracing.calls import Call, Value
from ifspace.models.tracing.labels import Label, flat
from ifspace.models.tracing.layers_seen import conv_layer, linear_layer, rolling_layer
from ifspace.models.tracing.maps import side_of

if TYPE_CHECKING:
    from ifspace.models.tracing.reading import Reader


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


def _add(
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
    return _add(reader, call, (parent,), layer, 1, label.pooled)


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
    return _add(reader, call, (parent,), layer, 1, label.pooled, stride)


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
    return _add(reader, call, (parent,), layer, 1, label.pooled)


def _linear(reader: "Reader", call: Call) -> Value:
    label = call.label("input")
    name, (c_out, c_in) = reader.weights.of(call)
    bias, params = call.arguments["bias"] is not None, reader.weights.params(call)
    behind = label.pooled or flat(call.shape)
    side = side_of(call.shape, -1)
    layer = linear_layer(name, c_in, c_out, side, params, bias, behind)
    if behind:
        return _add(reader, call, reader.maps.sources([label]), layer, -1, True)
    parent = reader.maps.settle(label, -1, call.scope)
    return _add(reader, call, (parent,), layer, -1, False)


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


READERS: Final[Mapping[str, Callable[["Reader", Call], Value]]] = {
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
