"""A module as a graph of maps: any network, without running its convolutions.

`torch.export` writes down which operators the network calls on an image, from shapes alone, and
`reading` makes maps of them. What it cannot write down is called once with `hooks` in its layers.
"""

import inspect
import logging
import operator
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from fractions import Fraction
from functools import partial
from io import StringIO
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.parameter import UninitializedParameter

from ifspace.errors import IfspaceError, KernelError, SettingError
from ifspace.models import operators
from ifspace.models.calls import (
    Call,
    UnreadableError,
    Value,
    bare_name,
    labels_in,
    writes,
)
from ifspace.models.feature_maps import (
    Label,
    Maps,
    flat,
    side_of,
)
from ifspace.models.graph import (
    Node,
    Op,
    Trace,
    TracedLayer,
    conv_layer,
    linear_layer,
    rolling_layer,
)
from ifspace.nn import RollingPointwiseConv2d
from ifspace.nn.checks import first_line, unwrapped, wrong_type

Image = Tensor | Sequence[int]


def trace(model: nn.Module, x: Image) -> Trace:
    """Return the graph of maps of a network on an image x: [N, C, H, W], or its size (C, H, W).

    Lines of pixels, [N, C, L] or (C, L), are maps one pixel high. The module is read in evaluation
    and left as it was; nothing is computed, so that weights on the meta device will do.

    >>> found = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), (3, 16, 16))
    >>> [(layer.name, layer.kind, layer.macs) for layer in found.layers]
    [('0', 'CONV', 55296)]

    Raises: SettingError for what is no module or no image, a network without convolutions, with
        several inputs, or whose control flow depends on the values of the image; KernelError for
        an image that the network does not take.

    Reference: MATH section 5, stages of a real network.
    """
    model = checked_model(model)
    image = image_for(model, x)
    params = sum(each.numel() for each in model.parameters())
    try:
        with evaluated(model), _quiet():
            program = _exported(model, image[:1])
        found = _read(model, program, tuple(image.shape[1:]), params)
    except (IfspaceError, GuardOnDataDependentSymNode) as error:
        raise _refusal(error) from None
    except Exception as error:
        # What torch.export cannot write down, or the graph of maps has no word for.
        found = _by_hooks(model, image, params, error)
    if not any(layer.is_convolution for layer in found.layers):
        return _refuse_plain(found)
    return found


def _refuse_plain(found: Trace) -> Trace:
    """Return the trace where dense layers alone look at maps, and refuse it where none does."""
    if any(layer.conv.writes and max(layer.side_in) > 1 for layer in found.layers):
        return found
    raise SettingError.because(
        "a network without convolutions",
        got=f"{len(found.all_layers)} other layers",
        allowed="networks of convolutions on maps",
        remedy="the field is one of convolutions",
        argument="model",
    )


def checked_model(model: Any) -> nn.Module:
    """Return the module, without what torch.compile put around it; refuse what is none."""
    found = unwrapped(model)
    if not isinstance(found, nn.Module):
        raise wrong_type(
            "model", model, "a torch.nn.Module", "`ifspace.models.network` makes one of a name"
        )
    if any(isinstance(each, UninitializedParameter) for each in found.parameters()):
        raise SettingError.because(
            "a network whose weights have no shape yet",
            got="lazy modules",
            allowed="weights with shapes",
            remedy="call it once on an image",
            argument="model",
        )
    return found


def image_for(model: nn.Module, x: Any) -> Tensor:
    """Return an image as it is, or one of a size on the network's device and of its type.

    Raises: SettingError.
    """
    if isinstance(x, Tensor):
        sizes: tuple[Any, ...] = tuple(x.shape)[1:]
        right = x.dim() in (3, 4) and x.is_floating_point() and x.numel() > 0
    else:
        sizes = tuple(x) if isinstance(x, Iterable) and not isinstance(x, str) else ()
        right = len(sizes) in (2, 3) and all(type(each) is int and each > 0 for each in sizes)
    if not right:
        got = list(x.shape) if isinstance(x, Tensor) else repr(x)
        raise SettingError.because(
            "not an image",
            got=got,
            allowed="a tensor of floats [N, C, H, W], or (C, H, W)",
            remedy="give (3, 224, 224)",
            argument="input",
        )
    if isinstance(x, Tensor):
        return x
    like = next((each for each in model.parameters() if each.is_floating_point()), torch.empty(0))
    return torch.zeros(1, *sizes, dtype=like.dtype, device=like.device)


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Have a network in evaluation for a while, without gradients."""
    trained = [part for part in model.modules() if part.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in trained:
            part.training = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing what it could not write down: the reason is in its error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(model: nn.Module, image: Tensor) -> ExportedProgram:
    needed = [
        each.name
        for each in inspect.signature(model.forward).parameters.values()
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    if len(needed) > 1:
        raise SettingError.because(
            "a network of several inputs",
            got=f"forward({', '.join(needed)})",
            allowed="networks of one image",
            remedy="wrap it in a module that takes one",
            argument="model",
        )
    program = torch.export.export(model, (image,), strict=False)
    if any(_writes_a_part(node) for node in program.graph.nodes):
        # Written anew so that what is written into a slice makes a new map of the whole.
        program = program.run_decompositions({})
    return program


def _writes_a_part(node: fx.Node) -> bool:
    """Return whether an operator changes maps that have other names, which are views of it."""
    if not writes(node) or bare_name(node) not in ("copy", *operators.JOINS):
        return False
    into = node.args[0]
    assert isinstance(into, fx.Node)
    return any(bare_name(each) in (*operators.MOVES, "getitem") for each in (into, *into.users))


def _read(model: nn.Module, program: ExportedProgram, image: tuple[int, ...], params: int) -> Trace:
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held = {**program.state_dict, **program.constants}
    paths = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    constants = {name: held[path] for name, path in paths.items() if path in held}
    reader = Reader(model, names, constants)
    ends = reader.read(program.graph, str(signature.user_inputs[0]))
    nodes, layers = reader.maps.nodes, _layers(reader.maps.nodes)
    used = _above(nodes, ends)
    kept = sorted(_above(nodes, [0, *(each for each in used if each not in reader.maps.pooled)]))
    scaling = _above(nodes, reader.gates) - used
    dead = len([number for number in layers if number not in used | scaling])
    notes = list(reader.maps.notes)
    if dead:
        notes.append(f"{dead} layers do not reach the output")
    new = {number: place for place, number in enumerate(kept)}

    def renumbered(node: Node) -> Node:
        parents = tuple(new[each] for each in node.parents)
        return replace(node, number=new[node.number], parents=parents)

    return Trace(
        tuple(renumbered(nodes[number]) for number in kept),
        image if len(image) == 3 else (image[0], 1, image[1]),
        params,
        tuple(layers[number] for number in layers if number in scaling),
        tuple(layers[number] for number in layers if number in used and number not in new),
        dict(reader.passed),
        "export",
        tuple(notes),
    )


def _layers(nodes: Sequence[Node]) -> dict[int, TracedLayer]:
    return {node.number: node.layer for node in nodes if node.layer is not None}


def _above(nodes: Sequence[Node], ends: Iterable[int]) -> set[int]:
    """Return the maps that others are made of, and those themselves."""
    found: set[int] = set()
    waiting = list(ends)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += nodes[number].parents
    return found


def _by_hooks(model: nn.Module, image: Tensor, params: int, error: Exception) -> Trace:
    reason = str(error) if isinstance(error, UnreadableError) else first_line(error)
    try:
        with evaluated(model):
            found = hooked(model, image[:1], params)
    except IfspaceError:
        raise
    except Exception as second:
        raise KernelError.because(
            "the network does not take the image",
            got=f"{list(image.shape)} ({first_line(second)})",
            allowed="an image that its forward takes",
            remedy="check the sizes, channels first",
            argument="input",
        ) from None
    note = f"branches are not seen, layers stand in a row: {reason}"
    return replace(found, notes=(note, *found.notes))


def _refusal(error: Exception) -> Exception:
    if isinstance(error, IfspaceError):
        return error
    return SettingError.because(
        "a network whose control flow depends on the values of the image",
        got=first_line(error),
        allowed="networks that call the same layers for every image",
        remedy="analyse one way through it, as a module of its own",
        argument="model",
    )


# What these return has the shape of a map, and nothing of what it shows.
_NEW: Final = (
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
)


# Keep the shape of a map, and yet let its places see each other.
ALONG: Final = frozenset(
    (
        "softmax",
        "_softmax",
        "log_softmax",
        "_log_softmax",
        "cumsum",
        "cumprod",
        "cummax",
        "cummin",
        "logcumsumexp",
        "sort",
        "argsort",
        "msort",
        "topk",
        "fft_fft",
        "fft_ifft",
        "fft_fft2",
        "fft_ifft2",
        "fft_fftn",
        "fft_ifftn",
        "local_response_norm",
    )
)


class Reader:
    """Reads the operators one by one, in the order in which they run.

    `names`: for each weight of the program its path in the model. `constants`: its buffers and
    other tensors that no image changes. `gates` are the maps that only
    scale or shift others; `passed` counts the operators that keep a map as it is.
    """

    def __init__(
        self, model: nn.Module, names: Mapping[str, str], constants: Mapping[str, Tensor]
    ) -> None:
        self.maps = Maps()
        self._constants = constants
        self.weights = operators.Weights(model, names)
        self.gates: set[int] = set()
        self.passed: Counter[str] = Counter()
        self._values: dict[fx.Node, Value] = {}
        self._outside: dict[fx.Node, fx.Node] = {}

    def read(self, graph: fx.Graph, image: str) -> tuple[int, ...]:
        """Read all operators and return the maps that the output shows.

        Raises: UnreadableError for what the graph of maps has no word for.
        """
        for node in graph.nodes:
            if node.op == "placeholder" and node.name == image:
                shape = tuple(int(size) for size in node.meta["val"].shape)
                self._values[node] = self.maps.add(Op.INPUT, (), shape, 1, "")
        return self.maps.sources(labels_in(self._walk(graph)))

    def _walk(self, graph: fx.Graph) -> tuple[Value, ...]:
        """Read the operators and return what the graph returns."""
        for node in graph.nodes:
            if node.op == "call_function":
                call = self._call(node)
                self._values[node] = value = self._read(call)
                if call.in_place and isinstance(node.args[0], fx.Node):
                    # Who reads the old name reads the new value.
                    self._values[node.args[0]] = value
            elif node.op == "output":
                returned = node.args[0]
                if not isinstance(returned, tuple | list):
                    returned = (returned,)
                return tuple(
                    self._values.get(each) if isinstance(each, fx.Node) else None
                    for each in returned
                )
        raise UnreadableError("a program without an output")

    def _call(self, node: fx.Node) -> Call:
        return Call(node, self._values, self._outside)

    def _part(self, call: Call, part: fx.GraphModule) -> Value:
        """Read operators that run under another mode, such as autocast, as if they stood here."""
        inputs = [node for node in part.graph.nodes if node.op == "placeholder"]
        for node, given in zip(inputs, call.node.args[-len(inputs) :], strict=True):
            self._values[node] = call.value(given)
            if isinstance(given, fx.Node):
                self._outside[node] = given
        return self._walk(part.graph)

    def _read(self, call: Call) -> Value:
        if call.node.target is operator.getitem:
            held, place = (call.value(call.node.args[0]), call.node.args[1])
            if isinstance(held, tuple) and isinstance(place, int):
                return held[place] if place < len(held) else None
            return held
        if not call.labels or call.name in _NEW:
            return None
        if call.part is not None:
            return self._part(call, call.part)
        value = self._known(call)
        several = isinstance(call.made, tuple | list)
        return (value,) if several and isinstance(value, Label) else value

    def constant(self, node: fx.Node) -> Tensor:
        """Return a tensor that no image changes, such as the order of channels.

        Raises: ValueError where its values are not there.
        """
        if node.op == "placeholder":
            found = self._constants.get(self._call(node).source(node).name)
            if found is None or found.is_meta:
                raise ValueError(f"the values of {node.name}")
            return found.cpu()
        if not callable(node.target):
            raise ValueError(f"the values of {node.name}")
        args: Any = fx.map_arg(node.args, self.constant)
        kwargs: Any = fx.map_arg(dict(node.kwargs), self.constant)
        # Values are wanted, and are where labels are, wherever the network is.
        here = {"device": torch.device("cpu")} if "device" in kwargs else {}
        made: Tensor = node.target(*args, **kwargs | here)
        return made

    def _known(self, call: Call) -> Value:
        for table in (operators.WEIGHING, operators.POOLING, operators.MOVING):
            if call.name in table:
                return table[call.name](self, call)
        return self._other(call)

    def _other(self, call: Call) -> Value:
        """Return what an operator leaves that is named nowhere: mostly the map itself."""
        weighted = not call.name.endswith("norm") and self.weights.matrices(call)
        kept = len(call.labels) == 1 and call.keeps(call.labels[0])
        if weighted or not kept or (call.name in ALONG and self._has_places(call.labels[0])):
            return self.unknown(call)
        self.passed[call.name] += 1
        if isinstance(call.made, tuple | list):
            # Batch norm and its like return statistics behind the map.
            return (call.labels[0], *(None for _ in call.made[1:]))
        return call.labels[0]

    def _has_places(self, label: Label) -> bool:
        """Return whether places of a label can tell each other something new."""
        sources = self.maps.sources([label])
        return not label.pooled and any(self.maps.nodes[each].op is not Op.MIX for each in sources)

    def unknown(self, call: Call) -> Value:
        """Return a map of which every place sees all others, where nothing better is known."""
        if call.first is None or call.rank < 2:
            return None
        text = f"{call.name}: not known, as if every place saw all others and it cost nothing"
        self.maps.notes[text] = None
        return self.mixed(call)

    def mixed(self, call: Call) -> Label:
        """Return a map of which every place sees all of the maps that it is made of."""
        pooled = flat(call.shape) or all(label.pooled for label in call.labels)
        standing = call.labels[0].axes() if call.labels[0].ids.dim() == call.rank else []
        axis = standing[0] if len(standing) == 1 else 1 if call.rank in (2, 4) else call.rank - 1
        parents = self.maps.sources(call.labels)
        return self.maps.add(Op.MIX, parents, call.shape, axis, call.scope, pooled)


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
