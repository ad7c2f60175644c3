"""Trace a network: its graph of feature maps and layers, without running its convolutions.

`torch.export` lists the operators that the network calls on an image, from shapes alone; the walk
below passes each to its handler in `ifspace.models.operators`. A network that cannot be exported is
run once with forward hooks on its layers, which are then taken to follow one another.

Reference: docs/real-networks.md, how a network is read.
"""

import inspect
import logging
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from fractions import Fraction
from functools import partial
from io import StringIO
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx import config as fx_config
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.parameter import UninitializedParameter
from torch.utils._pytree import tree_leaves

from ifspace.errors import ARGUMENT, IfspaceError, KernelError, SettingError, shortened
from ifspace.models.calls import (
    Call,
    Environment,
    UnreadableError,
    Value,
    bare_name,
    is_in_place,
    labels_in,
)
from ifspace.models.feature_maps import FeatureMaps, Label, has_no_pixels, size_of
from ifspace.models.graph import (
    Node,
    Op,
    Trace,
    TracedLayer,
    conv_layer,
    linear_layer,
    rolling_layer,
    transposed_layer,
)
from ifspace.models.live_maps import LiveMaps
from ifspace.models.operators import LAYERS, OPERATORS, elementwise, item, keep, move
from ifspace.nn import RollingPointwiseConv1d, RollingPointwiseConv2d
from ifspace.nn.checks import evaluated, first_line, unwrapped, wrong_type
from ifspace.values import counted

Image = Tensor | Sequence[int]
# Of what torch could not decide so many characters are shown: some expressions have thousands.
_EXPRESSION: Final = 90


def trace(model: nn.Module, x: Image) -> Trace:
    """Return the graph of feature maps of a network on an image [N, C, H, W] or (C, H, W).

    Lines of pixels, [N, C, L] or (C, L), are feature maps of height 1. The module is traced in
    evaluation mode and left as it was; nothing is computed, so that weights on the meta device
    suffice.

    >>> graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), (3, 16, 16))
    >>> [(layer.name, layer.kind, layer.macs) for layer in graph.layers]
    [('0', 'CONV', 55296)]

    Raises: SettingError for a model or image of another type, and a network without convolutions,
        with several inputs, or whose control flow depends on the values of the image; KernelError
        for an image that the network does not take.

    Reference: docs/real-networks.md, how a network is read.
    """
    model = checked_model(model)
    image = image_for(model, x)
    params = sum(parameter.numel() for parameter in model.parameters())
    try:
        with evaluated(model), _quiet():
            program = _exported(model, image[:1])
        graph = _read(model, program, tuple(image.shape[1:]), params)
    except IfspaceError:
        raise
    except GuardOnDataDependentSymNode as error:
        fact = "a network whose control flow depends on the values of the image"
        raise _part_error(fact, model, image) or SettingError.because(
            fact,
            got=shortened(first_line(error), _EXPRESSION),
            allowed="networks that call the same layers for every image",
            remedy="analyse one way through it, as a module of its own",
            argument="model",
        ) from None
    except Exception as error:
        # What torch.export cannot write down, or the graph cannot express.
        graph = _by_hooks(model, image, params, error)
    _check_has_convolutions(graph)
    return graph


def _part_error(fact: str, model: nn.Module, image: Tensor) -> SettingError | None:
    """Return the error that names a part of a network which gives feature maps, None without one.

    A network for detection has such a part in front of what finds and chooses boxes. It may need
    larger images than those that were given.
    """
    larger = torch.zeros((1, image.shape[1], *(2 * side for side in image.shape[2:])))
    for x in (image[:1], larger.to(image)):
        for name, part in model.named_children():
            if sum(isinstance(module, nn.Conv2d) for module in part.modules()) < 2:
                continue  # a single layer
            try:
                with evaluated(part), _quiet():
                    values = tree_leaves(part(x))
            except Exception:
                continue  # it reads something else
            if any(isinstance(value, Tensor) and value.dim() == 4 for value in values):
                size = "" if x.shape == image[:1].shape else ", on larger images"
                return SettingError.because(
                    fact,
                    got=type(model).__name__,
                    allowed="networks that call the same layers for every image",
                    remedy=f"analyse the part that gives feature maps: {ARGUMENT} {name}{size}",
                    argument="part",
                )
    return None


def _check_has_convolutions(graph: Trace) -> None:
    """Reject a network in which nothing but the head has weights.

    Raises: SettingError.
    """
    layers = [layer for layer in graph.layers if layer.conv.writes]
    if any(layer.is_convolution or max(layer.size_in) > 1 for layer in layers):
        return
    raise SettingError.because(
        "a network without convolutions",
        got=f"{len(graph.all_layers)} other layers",
        allowed="networks of convolutions on feature maps",
        remedy="the information field is one of convolutions",
        argument="model",
    )


_CUBES: Final = nn.Conv3d


def is_one_dimensional(model: nn.Module) -> bool:
    """Return whether a network reads [N, C, L]; its trace has feature maps of height 1."""
    types = [type(module) for module in model.modules()]
    return any(issubclass(kind, nn.Conv1d | RollingPointwiseConv1d) for kind in types) and not any(
        issubclass(kind, nn.Conv2d) for kind in types
    )


def checked_model(model: Any) -> nn.Module:
    """Return the module, without the wrapper of torch.compile.

    Raises: SettingError for anything but an nn.Module, for a class that defines no forward, for
        TorchScript, a network in three dimensions, and lazy modules without shapes.
    """
    module = unwrapped(model)
    if not isinstance(module, nn.Module):
        raise wrong_type(
            "model", model, "a torch.nn.Module", "`ifspace.models.network` builds one from a name"
        )
    # What nn.Module has in place of a forward takes no input.
    if getattr(module.forward, "__func__", None) is nn.Module.forward:
        raise SettingError.because(
            "a network without a forward",
            got=type(module).__name__,
            allowed="a class that defines forward(self, x)",
            remedy="define it, or name the class of the whole network",
            argument="model",
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise SettingError.because(
            "a network in TorchScript",
            got=module.original_name,
            allowed="an nn.Module of Python code: the layers of a script cannot be seen",
            remedy="build the network from its class, and load the weights of the script",
            argument="model",
        )
    cubes = [name for name, part in module.named_modules() if isinstance(part, _CUBES)]
    if cubes and not any(isinstance(part, nn.Conv1d | nn.Conv2d) for part in module.modules()):
        raise SettingError.because(
            "a network in three dimensions",
            got=f"{len(cubes)} nn.Conv3d, such as {cubes[0] or type(module).__name__}",
            allowed="networks on images [N, C, H, W] or lines [N, C, L]",
            remedy="analyse a part that is one, as a module of its own",
            argument="model",
        )
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        raise SettingError.because(
            "a network whose weights have no shape yet",
            got="lazy modules",
            allowed="weights with shapes",
            remedy="call it once on an image",
            argument="model",
        )
    return module


def image_for(model: nn.Module, x: Any) -> Tensor:
    """Return an image as it is, or one of a size on the network's device and of its dtype.

    For a network on lines, (C, 1, L) is the size of a line.

    Raises: SettingError.
    """
    if isinstance(x, Tensor) and not x.is_floating_point():
        raise SettingError.because(
            "an image that is not of floats",
            got=str(x.dtype),
            allowed="a tensor of floats [N, C, H, W], or (C, H, W)",
            remedy="convert it: x.float() / 255",
            argument="input",
        )
    if isinstance(x, Tensor):
        sizes: tuple[Any, ...] = tuple(x.shape)[1:]
        fits = x.dim() in (3, 4) and x.is_floating_point() and x.numel() > 0
    else:
        sizes = tuple(x) if isinstance(x, Iterable) and not isinstance(x, str) else ()
        fits = len(sizes) in (2, 3) and all(type(size) is int and size > 0 for size in sizes)
    if not fits:
        raise SettingError.because(
            "not an image",
            got=list(x.shape) if isinstance(x, Tensor) else repr(x),
            allowed="a tensor of floats [N, C, H, W], or (C, H, W)",
            remedy="give (3, 224, 224)",
            argument="input",
        )
    if isinstance(x, Tensor):
        return x
    floats = (parameter for parameter in model.parameters() if parameter.is_floating_point())
    like = next(floats, torch.empty(0))
    if len(sizes) == 3 and sizes[1] == 1 and is_one_dimensional(model):
        sizes = sizes[0], sizes[2]
    return torch.zeros(1, *sizes, dtype=like.dtype, device=like.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing what it cannot export: the reason is in its error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# By torch.export


def _exported(model: nn.Module, image: Tensor) -> ExportedProgram:
    required = [
        parameter.name
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind
        in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
    ]
    if len(required) > 1:
        raise SettingError.because(
            "a network of several inputs",
            got=f"forward({', '.join(required)})",
            allowed="networks of one image",
            remedy="wrap it in a module that takes one",
            argument="model",
        )
    with _without_stack_traces():
        program = torch.export.export(model, (image,), strict=False)
        if any(_writes_to_a_view(node) for node in program.graph.nodes):
            # Rewritten, so that writing into a slice returns a new feature map of the whole.
            program = program.run_decompositions({})
    return program


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Keep torch from noting for each operator the source lines that call it: a fifth of the time.

    Nothing here reads them.
    """
    before = getattr(fx_config, "do_not_emit_stack_traces", False)  # older torch always notes them
    fx_config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


def _writes_to_a_view(node: fx.Node) -> bool:
    """Return whether an operator writes in place into a view, or into what has views."""
    if not is_in_place(node):
        return False
    if bare_name(node) != "copy" and OPERATORS.get(bare_name(node)) is not elementwise:
        return False
    target = node.args[0]
    assert isinstance(target, fx.Node)
    views = (OPERATORS.get(bare_name(other)) for other in (target, *target.users))
    return any(handler in (move, item) for handler in views)


class Walk:
    """Walks through the operators of a program in the order in which they run.

    `names`: for each parameter and buffer of the program its full name in the model. `constants`:
    its buffers and other tensors that no image changes. `maps` is the graph that grows, `live` the
    order in which feature maps are written and read.
    """

    def __init__(
        self, model: nn.Module, names: Mapping[str, str], constants: Mapping[str, Tensor]
    ) -> None:
        self.maps = FeatureMaps()
        self.live = LiveMaps()
        self.unplaced: list[TracedLayer] = []
        self._environment = Environment(model, names, constants)
        # The calls that write a layer, by the index of its feature map.
        self._calls: dict[int, fx.Node] = {}
        self._layer_names: dict[fx.Node, str] = {}

    def read(self, graph: fx.Graph, image: str) -> tuple[int, ...]:
        """Read all operators and return the indices of the feature maps that the output shows.

        Raises: UnreadableError for what the graph of feature maps cannot express.
        """
        for node in graph.nodes:
            if node.op == "placeholder" and node.name == image:
                shape = tuple(int(size) for size in node.meta["val"].shape)
                self._environment.values[node] = self.maps.add(Op.INPUT, (), shape, 1, "")
                self.live.add_input(node)
        return self.maps.owners(labels_in(self._outputs(graph)))

    def _outputs(self, graph: fx.Graph) -> tuple[Value, ...]:
        """Read the operators of a graph or subgraph and return the values of its outputs."""
        values = self._environment.values
        for node in graph.nodes:
            if node.op == "call_function":
                call = Call(node, self._environment)
                values[node] = self._value(call)
                if call.subgraph is None:
                    self.live.add(call, self._layer_names.get(node, ""))
                if call.in_place and isinstance(node.args[0], fx.Node):
                    # Readers of the old name get the new value.
                    values[node.args[0]] = values[node]
        return tuple(
            values.get(output) if isinstance(output, fx.Node) else None
            for output in returned_by(graph)
        )

    def _value(self, call: Call) -> Value:
        self.maps.uses = call.uses
        if call.subgraph is not None and call.labels:
            return self._inlined(call, call.subgraph)
        if not call.labels:
            self.unplaced += self._layers_of_constants(call)
            return None  # no image changes it
        first = len(self.maps.nodes)
        value = OPERATORS.get(call.name, keep)(self.maps, call)
        for node in self.maps.nodes[first:]:
            if node.layer is not None:
                self._calls[node.index] = call.node
                self._layer_names[call.node] = node.layer.name
        return (value,) if call.returns_several and isinstance(value, Label) else value

    def _layers_of_constants(self, call: Call) -> list[TracedLayer]:
        """Return the layer that a call runs on values that no image changes, such as positions."""
        if OPERATORS.get(call.name) not in LAYERS or not call.parameters:
            return []
        read = call.arguments.get("input", call.arguments.get("x"))
        if not isinstance(read, fx.Node):
            return []
        value = read.meta.get("val")
        if not isinstance(value, Tensor) or value.dim() < 2:
            return []
        maps, values = FeatureMaps(), self._environment.values
        axis = -1 if call.name == "linear" else 1
        values[read] = maps.add(Op.INPUT, (), tuple(map(int, value.shape)), axis, "")
        OPERATORS[call.name](maps, call)
        values[read] = None
        return [node.layer for node in maps.nodes if node.layer is not None]

    def lost(self, indices: Iterable[int]) -> list[int]:
        """Return which layers the output depends on all the same, in the exported program.

        `indices`: of layers that no label of an output leads to.
        """
        return [
            index
            for index in indices
            if index in self._calls and _reaches_output(self._calls[index])
        ]

    def _inlined(self, call: Call, subgraph: fx.GraphModule) -> Value:
        """Read a subgraph, such as what runs under autocast, as if its operators stood here."""
        inputs = [node for node in subgraph.graph.nodes if node.op == "placeholder"]
        for node, argument in zip(inputs, call.node.args[-len(inputs) :], strict=True):
            self._environment.values[node] = call.value(argument)
            if isinstance(argument, fx.Node):
                self._environment.outer[node] = argument
            self.live.pass_on(node, argument)
        outputs = self._outputs(subgraph.graph)
        self.live.add_outputs(call.node, returned_by(subgraph.graph))
        return outputs


def returned_by(graph: fx.Graph) -> tuple[Any, ...]:
    """Return what a program or subgraph returns: nodes, and what is none."""
    outputs = next((node.args[0] for node in graph.nodes if node.op == "output"), None)
    if outputs is None:
        raise UnreadableError("a program without an output")
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def _reaches_output(node: fx.Node) -> bool:
    """Return whether the output of a program depends on a node, through any operators."""
    waiting, visited = [node], {node}
    while waiting:
        user = waiting.pop()
        if user.op == "output":
            return True
        # What is written in place is read under the old name.
        readers = [*user.users, *(user.all_input_nodes[:1] if is_in_place(user) else [])]
        waiting += [reader for reader in readers if reader not in visited]
        visited.update(readers)
    return False


_AnyWalk = TypeVar("_AnyWalk", bound=Walk)


def walk_through(model: nn.Module, image: Tensor, walk: type[_AnyWalk]) -> _AnyWalk:
    """Return a walk of a class through the program of a network on an image, in evaluation mode.

    Raises: SettingError for a network of several inputs; whatever torch.export raises for one that
        it cannot write down.
    """
    with evaluated(model), _quiet():
        program = _exported(model, image[:1])
    return _walked(model, program, walk)[0]


def _walked(
    model: nn.Module, program: ExportedProgram, walk_class: type[_AnyWalk]
) -> tuple[_AnyWalk, tuple[int, ...]]:
    """Return a walk through a program, and the indices of the feature maps that it returns."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {**program.state_dict, **program.constants}
    targets = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    constants = {name: tensors[key] for name, key in targets.items() if key in tensors}
    walk = walk_class(model, names, constants)
    return walk, walk.read(program.graph, str(signature.user_inputs[0]))


def _read(model: nn.Module, program: ExportedProgram, image: tuple[int, ...], params: int) -> Trace:
    """Return the trace of a program: the feature maps that reach the output, renumbered."""
    walk, outputs = _walked(model, program, Walk)
    maps = walk.maps
    nodes = maps.nodes
    layers = {node.index: node.layer for node in nodes if node.layer is not None}
    used = _ancestors(nodes, outputs)
    indices = sorted(_ancestors(nodes, [0, *(index for index in used if index not in maps.pooled)]))
    scaling = _ancestors(nodes, maps.gates) - used
    unused = [index for index in layers if index not in used | scaling]
    lost = walk.lost(unused)
    dead = len(unused) - len(lost)
    new_index = {index: place for place, index in enumerate(indices)}
    shown = _nearest(nodes, outputs, new_index.keys())

    def renumbered(node: Node) -> Node:
        parents = tuple(new_index[parent] for parent in node.parents)
        return replace(node, index=new_index[node.index], parents=parents)

    return Trace(
        nodes=tuple(renumbered(nodes[index]) for index in indices),
        image=_three_axes(image),
        params=params,
        gates=tuple(layer for index, layer in layers.items() if index in scaling),
        head=tuple(
            layer for index, layer in layers.items() if index in used and index not in new_index
        ),
        passed=dict(maps.passed),
        how="export",
        notes=(
            *maps.notes,
            *_dead_notes(dead),
        ),
        unplaced=(*walk.unplaced, *(layers[index] for index in lost)),
        runs=_modules_of(model, program),
        outputs=tuple(new_index[index] for index in sorted(shown)),
        returned=tuple(new_index[index] for index in sorted(outputs) if index in new_index),
        live=walk.live.schedule(returned_by(program.graph)),
    )


def _dead_notes(dead: int) -> list[str]:
    """Return that some layers lead nowhere."""
    verb = "does" if dead == 1 else "do"
    return [f"{counted(dead, 'layer')} {verb} not reach the output"] if dead else []


def _modules_of(model: nn.Module, program: ExportedProgram) -> frozenset[str]:
    """Return the full names of the modules whose parameters a program uses."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = program.graph_signature.inputs_to_parameters
    used = {
        parameters.get(names.get(node.name, ""))
        for node in program.graph.nodes
        if node.op == "placeholder" and node.users
    }
    return frozenset(
        name
        for name, module in model.named_modules()
        if any(parameter in used for parameter in module.parameters(recurse=False))
    )


def _nearest(nodes: Sequence[Node], outputs: Iterable[int], kept: Container[int]) -> set[int]:
    """Return which of the feature maps `kept` outputs are, or are computed from at last."""
    shown, visited, waiting = set[int](), set[int](), list(outputs)
    while waiting:
        index = waiting.pop()
        if index in kept:
            shown.add(index)
        elif index not in visited:
            visited.add(index)
            waiting += nodes[index].parents
    return shown


def _three_axes(image: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width); a line of pixels has height 1."""
    if len(image) == 3:
        return image[0], image[1], image[2]
    return image[0], 1, image[1]


def _ancestors(nodes: Sequence[Node], descendants: Iterable[int]) -> set[int]:
    """Return the indices of the feature maps that others are computed from, and of those."""
    ancestors: set[int] = set()
    waiting = list(descendants)
    while waiting:
        index = waiting.pop()
        if index not in ancestors:
            ancestors.add(index)
            waiting += nodes[index].parents
    return ancestors


# By forward hooks, for networks that cannot be exported

_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d)
_HOOKED: Final = (nn.Conv1d, nn.Conv2d, nn.Linear, RollingPointwiseConv2d, *_TRANSPOSED)
# Layers as they ran, each with whether it belongs to the head.
Calls = list[tuple[TracedLayer, bool]]


def _by_hooks(model: nn.Module, image: Tensor, params: int, error: Exception) -> Trace:
    reason = str(error) if isinstance(error, UnreadableError) else first_line(error)
    try:
        with evaluated(model):
            graph = hooked(model, image[:1], params)
    except IfspaceError:
        raise
    except AssertionError as second:
        raise _assertion_error(second, image) from None
    except Exception as second:
        if image.dim() == 4 and is_one_dimensional(model):
            channels = next(
                (layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv1d)), 3
            )
            raise KernelError.because(
                "the network is 1-D, its convolutions are nn.Conv1d",
                got=f"an image {list(image.shape)}",
                allowed="channels x length, [N, C, L]",
                remedy=f"write it like {channels}x64, in Python ({channels}, 64)",
                argument="input",
            ) from None
        fact = "the network does not take the image"
        raise _part_error(fact, model, image) or KernelError.because(
            fact,
            got=f"{list(image.shape)} ({first_line(second)})",
            allowed="an image that its forward takes",
            remedy="check the sizes, channels first",
            argument="input",
        ) from None
    note = f"branches are not seen, layers are taken to follow one another: {reason}"
    return replace(graph, notes=(note, *graph.notes))


def _assertion_error(error: AssertionError, image: Tensor) -> KernelError:
    """Return the error of a network that checks its image: what it says, or what it checks."""
    # Not the frames of torch, which checks some things for the network.
    torch_folder = Path(torch.__file__).parent
    frames = extract_tb(error.__traceback__)
    frame = next(
        frame for frame in reversed(frames) if torch_folder not in Path(frame.filename).parents
    )
    text = str(error).strip().partition("\n")[0] or frame.line or "no text"
    return KernelError.because(
        "an assertion of the network fails for the image",
        got=f"{list(image.shape)}: {text}",
        allowed="an image for which it holds",
        remedy=f"give such an image, or change line {frame.lineno} of {Path(frame.filename).name}",
        argument="input",
    )


def hooked(model: nn.Module, image: Tensor, params: int) -> Trace:
    """Return the layers of a network in the order in which they run, each reading the one before.

    Branches and sums are not seen. A layer with other channels than the one before reads some of
    them.
    """
    calls: Calls = []
    hooks = [
        module.register_forward_hook(partial(_record, calls, name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, _HOOKED)
    ]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    size = _three_axes([int(axis) for axis in image.shape[1:]])
    nodes = [Node(0, Op.INPUT, (), size[0], (size[1], size[2]), "")]
    head = []
    for layer, in_head in _with_params(model, calls):
        if in_head:
            head.append(layer)
        else:
            _append(nodes, layer)
    scripted = [
        name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)
    ]
    notes = (f"layers in TorchScript are not seen: {', '.join(scripted)}",) if scripted else ()
    # Without a program any module may run in a way that its hook does not see.
    runs = frozenset(name for name, _ in model.named_modules())
    return Trace(tuple(nodes), size, params, head=tuple(head), how="hooks", notes=notes, runs=runs)


def _record(
    calls: Calls,
    name: str,
    module: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Tensor,
) -> None:
    """Add the layer that a module is, as a forward hook."""
    x: Tensor = args[0] if args else next(iter(kwargs.values()))
    bias, shape = module.bias is not None, tuple(output.shape)
    if isinstance(module, nn.Linear):
        on_pixels = not has_no_pixels(shape)
        size = size_of(shape, -1)
        layer = linear_layer(name, x.shape[-1], shape[-1], size, 0, bias=bias, on_pixels=on_pixels)
        calls.append((layer, not on_pixels))
        return
    size_in, size_out = size_of(x.shape, 1), size_of(shape, 1)
    weight = tuple(module.weight.shape)
    if isinstance(module, RollingPointwiseConv2d):
        layer = rolling_layer(
            name,
            x.shape[1],
            weight,
            module.step,
            size_in,
            0,
            bias=bias,
            order=module.order,
            overlap=module.overlap,
        )
    elif isinstance(module, _TRANSPOSED):
        layer = transposed_layer(
            name,
            weight,
            size_in,
            size_out,
            0,
            groups=module.groups,
            dilation=list(module.dilation),
            bias=bias,
        )
    else:
        layer = conv_layer(
            name,
            x.shape[1],
            weight,
            size_in,
            size_out,
            0,
            groups=module.groups,
            stride=list(module.stride),
            dilation=list(module.dilation),
            bias=bias,
        )
    calls.append((layer, False))


def _with_params(model: nn.Module, calls: Calls) -> Iterator[tuple[TracedLayer, bool]]:
    """Yield the layers with their parameters, each parameter counted once."""
    counted: set[nn.Parameter] = set()
    for layer, in_head in calls:
        new = set(model.get_submodule(layer.name).parameters()) - counted
        counted |= new
        yield replace(layer, params=sum(parameter.numel() for parameter in new)), in_head


def _append(nodes: list[Node], layer: TracedLayer) -> None:
    """Append a layer, and before it the pooling, upsampling or selection that makes it fit."""
    last = nodes[-1]
    if layer.size_in != last.size:
        height, width = (
            Fraction(old, new) for old, new in zip(last.size, layer.size_in, strict=True)
        )
        nodes.append(
            Node(
                index=len(nodes),
                op=Op.POOL if max(height, width) > 1 else Op.RESIZE,
                parents=(last.index,),
                channels=last.channels,
                size=layer.size_in,
                scope="",
                stride=(height, width),
            )
        )
    if layer.c_in != last.channels:
        sources = np.zeros((layer.c_in, 2), dtype=np.int64)
        sources[:, 1] = np.arange(layer.c_in) % last.channels
        nodes.append(
            Node(
                index=len(nodes),
                op=Op.MOVE,
                parents=(nodes[-1].index,),
                channels=layer.c_in,
                size=layer.size_in,
                scope="",
                sources=sources,
            )
        )
    # The stride of a transposed convolution, which makes its feature map larger, is below 1.
    stride_height, stride_width = (
        Fraction(old, new) if new > old else Fraction(stride)
        for stride, old, new in zip(layer.stride, layer.size_in, layer.size_out, strict=True)
    )
    nodes.append(
        Node(
            index=len(nodes),
            op=Op.LAYER,
            parents=(nodes[-1].index,),
            channels=layer.c_out,
            size=layer.size_out,
            scope=layer.name.rpartition(".")[0],
            layer=layer,
            window=layer.kernel,
            stride=(stride_height, stride_width),
            dilation=layer.dilation,
        )
    )
