"""A module as a graph of maps: any network, without running its convolutions.

`torch.export` writes down which operators the network calls on an image, from shapes alone, and
`reading` makes maps of them. What it cannot write down is called once with `hooks` in its layers.
"""

import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.parameter import UninitializedParameter

from ifspace.errors import IfspaceError, KernelError, SettingError
from ifspace.models.graph import Node, Trace, TracedLayer
from ifspace.models.tracing import moving
from ifspace.models.tracing.calls import UnreadableError, bare_name, writes
from ifspace.models.tracing.hooks import hooked
from ifspace.models.tracing.reading import Reader
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
    if not any(layer.kind not in ("SH", "PW", "LINEAR") for layer in found.layers):
        return _refuse_plain(found)
    return found


def _refuse_plain(found: Trace) -> Trace:
    """Return the trace where dense layers alone look at maps, and refuse it where none does."""
    if any(layer.kind != "SH" and max(layer.side_in) > 1 for layer in found.layers):
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
    if not writes(node) or bare_name(node) not in ("copy", *moving.JOINS):
        return False
    into = node.args[0]
    assert isinstance(into, fx.Node)
    return any(bare_name(each) in (*moving.MOVES, "getitem") for each in (into, *into.users))


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
