"""A network that cannot be written down, read while it runs: its layers in a row."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ifspace.models.graph import Node, Op, Trace, TracedLayer
from ifspace.models.tracing.labels import flat
from ifspace.models.tracing.layers_seen import conv_layer, linear_layer, rolling_layer
from ifspace.models.tracing.maps import side_of
from ifspace.nn import RollingPointwiseConv2d

Seen = list[tuple[TracedLayer, bool]]
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d)
LAYERS: Final = (nn.Conv1d, nn.Conv2d, nn.Linear, RollingPointwiseConv2d, *TRANSPOSED)


def hooked(model: nn.Module, image: Tensor, params: int) -> Trace:
    """Return the layers of a network in the order in which they run, each reading the one before.

    Branches and sums are not seen. A layer of other channels than the one before has some of them.
    """
    seen: Seen = []
    hooks = [
        module.register_forward_hook(partial(_look, model, name, seen), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    sizes = tuple(image.shape[1:])
    size = sizes if len(sizes) == 3 else (sizes[0], 1, sizes[1])
    nodes = [Node(0, Op.INPUT, (), size[0], (size[1], size[2]), "")]
    head = []
    for layer, behind in _counted_once(model, seen):
        if behind:
            head.append(layer)
        else:
            _append(nodes, layer)
    scripted = [
        name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)
    ]
    unseen = (f"layers in TorchScript are not seen: {', '.join(scripted)}",) if scripted else ()
    return Trace(tuple(nodes), size, params, head=tuple(head), how="hooks", notes=unseen)


def _counted_once(model: nn.Module, seen: Seen) -> Iterator[tuple[TracedLayer, bool]]:
    counted: set[int] = set()
    for layer, behind in seen:
        found = {id(each): each for each in model.get_submodule(layer.name).parameters()}
        params = sum(each.numel() for key, each in found.items() if key not in counted)
        counted |= set(found)
        yield replace(layer, params=params), behind


def _append(nodes: list[Node], layer: TracedLayer) -> None:
    last = nodes[-1]
    if layer.side_in != last.side:
        stride = tuple(
            Fraction(old, new) for old, new in zip(last.side, layer.side_in, strict=True)
        )
        op = Op.POOL if max(stride) > 1 else Op.RESIZE
        nodes.append(
            Node(
                len(nodes),
                op,
                (last.number,),
                last.channels,
                layer.side_in,
                "",
                stride=(stride[0], stride[1]),
            )
        )
    if layer.c_in != last.channels:
        moves = np.zeros((layer.c_in, 2), dtype=np.int64)
        moves[:, 1] = np.arange(layer.c_in) % last.channels
        nodes.append(
            Node(
                len(nodes), Op.MOVE, (nodes[-1].number,), layer.c_in, layer.side_in, "", moves=moves
            )
        )
    stride = tuple(
        Fraction(old, new) if new > old else Fraction(each)
        for each, old, new in zip(layer.stride, layer.side_in, layer.side_out, strict=True)
    )
    nodes.append(
        Node(
            len(nodes),
            Op.LAYER,
            (nodes[-1].number,),
            layer.c_out,
            layer.side_out,
            layer.name.rpartition(".")[0],
            layer,
            layer.kernel,
            (stride[0], stride[1]),
            layer.dilation,
        )
    )


def _look(
    model: nn.Module,
    name: str,
    seen: Seen,
    module: Any,
    given: tuple[Any, ...],
    by_name: dict[str, Any],
    made: Tensor,
) -> None:
    x: Tensor = given[0] if given else next(iter(by_name.values()))
    bias, shape = module.bias is not None, tuple(made.shape)
    if isinstance(module, nn.Linear):
        behind = flat(shape)
        side = side_of(shape, -1)
        seen.append((linear_layer(name, x.shape[-1], shape[-1], side, 0, bias, behind), behind))
        return
    side_in, side_out = side_of(x.shape, 1), side_of(shape, 1)
    weight = tuple(module.weight.shape)
    if isinstance(module, RollingPointwiseConv2d):
        width = weight[1]
        step = width - int(module.overlap * width)
        layer = rolling_layer(name, x.shape[1], weight, step, side_in, 0, bias, model)
    else:
        about = {
            "groups": module.groups,
            "stride": list(module.stride),
            "dilation": list(module.dilation),
            "bias": module.bias,
        }
        if isinstance(module, TRANSPOSED):
            # Each pixel of the input is multiplied with all of the weight.
            read = (shape[1], weight[0] // module.groups, *weight[2:])
            about["stride"] = 1
            layer = conv_layer(name, x.shape[1], read, side_in, side_in, 0, about)
            layer = replace(layer, side_out=side_out)
        else:
            layer = conv_layer(name, x.shape[1], weight, side_in, side_out, 0, about)
    seen.append((layer, False))
