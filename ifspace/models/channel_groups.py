"""Channels of a network that are kept or removed together, and the weights that belong to them.

While a network is read every channel of every feature map has an id, as
`ifspace.models.feature_maps` says. Operators tie ids: a sum ties the channels that it adds, a gate
those that it scales, a depthwise convolution what it reads to what it writes, a grouped one of
k x k and a group norm all channels of a group, a concatenation or shuffle what stands at one place
before and after. Grouped and rolling pointwise layers tie the channels at one place of all their
groups or windows, which stay as many as they are. Ids that are tied, directly or over others, are a
*class*: one cannot be removed without the rest. A parameter or buffer belongs to classes along its
axes. Classes that belong to the same axes in the same way are exchangeable: they are a *channel
group*, and how many of them are kept is its width.

What cannot be narrowed is left alone: channels that the network reads or returns, attention,
operators that are not known, sizes that stand as numbers in its code.
"""

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from math import gcd, prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.kernels.windows import windows_at
from ifspace.memory import Schedule
from ifspace.models.calls import Call, Value, labels_in
from ifspace.models.feature_maps import NO_CHANNEL, Ids, Label
from ifspace.models.graph import Node, Op
from ifspace.models.live_maps import LiveMaps
from ifspace.models.operators import ALONG_PIXELS, LAYERS, OPERATORS, elementwise, keep, move
from ifspace.models.tracing import (
    Image,
    Walk,
    checked_model,
    image_for,
    returned_by,
    walk_through,
)
from ifspace.nn.checks import first_line
from ifspace.nn.layers import RollingPointwiseConv2d

# A parameter or buffer by its full name, and one of its axes.
Axis = tuple[str, int]
Mask = npt.NDArray[np.bool_]
# Operators that cut channels into equal parts, however many there are.
_CHUNKS: Final = ("chunk", "unsafe_chunk")
_TRANSPOSED: Final = ("conv_transpose1d", "conv_transpose2d")
# The arguments of normalisation with one number for each channel.
_OF_CHANNELS: Final = ("weight", "bias", "running_mean", "running_var")
# Operators that take a norm along channels.
_NORMS: Final = ("linalg_vector_norm", "rms_norm")


@dataclass(frozen=True, slots=True, eq=False)
class LayerCall:
    """A call of a layer: its full name, its weight, and its MACs for each element of the weight.

    `pixels` of each channel that it writes.
    """

    name: str
    weight: str
    macs_per_weight: int
    pixels: int
    output: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """A number of a module that depends on channels: how many there are, or how many groups.

    `ids`: the channels; `groups`: into how many groups they are cut, None where they are counted.
    """

    module: str
    name: str
    ids: Ids
    groups: int | None = None


class _Edges:
    """Pairs of ids that are tied, and ids that stay, with the reason."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Ids, Ids]] = []
        self.fixed: dict[int, str] = {}

    def tie(self, first: Ids, second: Ids) -> None:
        """Tie ids that stand at the same places; nothing where one of them is no channel."""
        present = (first != NO_CHANNEL) & (second != NO_CHANNEL)
        self.pairs.append((first[present], second[present]))

    def tie_all(self, ids: Ids) -> None:
        """Tie ids to each other."""
        self.tie(ids[1:], np.broadcast_to(ids[:1], ids[1:].shape))

    def fix(self, ids: Iterable[int], reason: str) -> None:
        """Note that ids stay; the first reason is kept."""
        for channel in ids:
            if channel != NO_CHANNEL:
                self.fixed.setdefault(int(channel), reason)


class _LabelledMaps(LiveMaps):
    """The schedule of a program, with the channels that each of its values shows."""

    def __init__(self, walk: "ChannelWalk") -> None:
        super().__init__()
        self._walk = walk
        self.labels: list[tuple[Label, ...]] = []

    def add(self, call: Call, layer: str) -> None:
        """Add a call and what it writes."""
        count = len(self._steps)
        super().add(call, layer)
        if len(self._steps) > count:
            self.labels.append(tuple(labels_in([self._walk.value_of(call.node)])))


class ChannelWalk(Walk):
    """Walks through a program and keeps what ties channels, and which weights belong to them.

    `axes`: for each axis of a parameter or buffer the ids of its elements. `layers`: the calls of
    layers with weights. `attributes`: numbers of modules to be changed with the channels.
    """

    def __init__(
        self, model: nn.Module, names: Mapping[str, str], constants: Mapping[str, Tensor]
    ) -> None:
        super().__init__(model, names, constants)
        self.labelled = self.live = _LabelledMaps(self)
        self.edges = _Edges()
        # Channels that an operator puts together: with more of them it computes something else.
        self.together: list[Ids] = []
        # Of the weights of layers the axes of what they read and of what they write.
        self.read_axes: dict[str, int] = {}
        self.written_axes: dict[str, int] = {}
        self.axes: dict[Axis, Ids] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.layers: list[LayerCall] = []
        self.attributes: list[Attribute] = []
        self.calls: list[tuple[str, str]] = []
        self.returned: tuple[Value, ...] = ()
        self.returned_nodes: tuple[Any, ...] = ()
        first: dict[int, str] = {}
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            first.setdefault(id(tensor), name)
            self.shapes[name] = tuple(tensor.shape)
        self._first_names = {
            name: first[id(tensor)]
            for name, tensor in (
                *model.named_parameters(remove_duplicate=False),
                *model.named_buffers(remove_duplicate=False),
            )
        }

    def value_of(self, node: fx.Node) -> Value:
        """Return what is known of a node."""
        return self._environment.values.get(node)

    def _outputs(self, graph: fx.Graph) -> tuple[Value, ...]:
        self.returned = super()._outputs(graph)
        self.returned_nodes = returned_by(graph)
        return self.returned

    def _value(self, call: Call) -> Value:
        value = super()._value(call)
        if call.labels and call.subgraph is None:
            self.calls.append((call.scope, call.name))
            self._record(call, value)
        return value

    # What each operator ties

    def _record(self, call: Call, value: Value) -> None:
        handler = OPERATORS.get(call.name, keep)
        written = labels_in([value])
        if call.name in ALONG_PIXELS or call.name in _NORMS:
            self.together += [label.all_ids() for label in call.labels]
        if handler in LAYERS and call.value(call.arguments.get("weight")) is None:
            self._layer(call, written)
        elif handler is elementwise and written:
            self._elementwise(call, written[0])
        elif handler is move:
            if call.name in _CHUNKS and len(written) > 1:
                self._chunks(written)
            if self._reads_weights(call):
                self._fix(call, written, "weights among moved channels")
        elif call.name.endswith("norm") and written and "weight" in call.arguments:
            self._norm(call, written[0])
        elif call.name == "prelu" and written:
            self._attach_named(call, ("weight",), self._along(written[0], 1))
        elif self._reads_weights(call):
            self._fix(call, written, f"the weights of {call.name}")

    def _reads_weights(self, call: Call) -> bool:
        return any(
            node not in self._environment.values
            and isinstance(tensor := node.meta.get("val"), Tensor)
            and tensor.numel() > 1
            and tensor.is_floating_point()
            for node in call.node.all_input_nodes
            if self._environment.values.get(node) is None
        )

    def _fix(self, call: Call, written: Sequence[Label], reason: str) -> None:
        place = f"{reason} in {call.scope}" if call.scope else reason
        for label in (*call.labels, *written):
            self.edges.fix(label.all_ids(), place)

    def _along(self, label: Label, axis: int) -> Ids | None:
        """Return the ids along an axis; None if they also change along others."""
        axis %= label.ids.dim()
        return label.along(axis) if set(label.axes()) <= {axis} else None

    def _tensor_name(self, node: Any) -> str | None:
        """Return the full name of the parameter or buffer that a node is."""
        if not isinstance(node, fx.Node):
            return None
        name = self._environment.names.get(self._environment.origin(node).name)
        return None if name is None else self._first_names.get(name, name)

    def _attach(self, name: str, axis: int, ids: Ids) -> None:
        """Note that the elements of a tensor along an axis belong to channels."""
        if (name, axis) in self.axes:
            self.edges.tie(self.axes[name, axis], ids)
        else:
            self.axes[name, axis] = ids

    def _attach_named(self, call: Call, arguments: Iterable[str], ids: Ids | None) -> None:
        """Attach tensors of one number for each channel, or fix all channels of the call."""
        for argument in arguments:
            node = call.arguments.get(argument)
            if node is None:
                continue
            name = self._tensor_name(node)
            if name is not None and self.shapes.get(name) == (1,):
                continue  # one number for all channels
            if name is None or ids is None or self.shapes.get(name) != (len(ids),):
                self._fix(call, (), "weights that are computed")
                return
            self._attach(name, 0, ids)

    def _layer(self, call: Call, written: Sequence[Label]) -> None:
        """Tie and attach what a convolution or dense layer reads and writes."""
        node = next((node for node in self.maps.nodes[::-1] if node.layer is not None), None)
        axis = -1 if call.name == "linear" else 1
        transposed = call.name in _TRANSPOSED
        read = call.value(call.arguments.get("input", call.arguments.get("x")))
        name = self._tensor_name(call.arguments.get("weight"))
        is_layer = isinstance(read, Label) and len(written) == 1 and node is not None
        if not is_layer or name is None:
            self._fix(call, written, "weights that are computed")
            return
        assert isinstance(read, Label)
        assert node is not None
        assert node.layer is not None
        ids_in, ids_out = self._along(read, axis), self._along(written[0], axis)
        if ids_in is None and len(node.parents) == 1:
            # Channels that became pixels, or were cut into windows: those of the map in between.
            between = self.maps.ids_of(node.parents[0])
            ids_in = between if len(between) == read.ids.shape[axis] else None
        if ids_in is None or ids_out is None:
            self._fix(call, written, "channels that were rearranged")
            return
        groups = int(call.arguments.get("groups") or 1)
        of_input, of_output = (0, 1) if transposed else (1, 0)
        self.read_axes[name], self.written_axes[name] = (
            (1, 0) if groups > 1 else (of_input, of_output)
        )
        if call.rolling is not None:
            self._windows(call, call.rolling, name, ids_in, ids_out)
        elif groups == 1:
            self._attach(name, of_input, ids_in)
            self._attach(name, of_output, ids_out)
        elif set(self.shapes[name][2:]) == {1} and not transposed and self.shapes[name][1] > 1:
            # Groups stay as many as they are, as windows do.
            self._attach(name, 1, ids_in[: self.shapes[name][1]])
            self._attach(name, 0, ids_out)
            for ids in (ids_in, ids_out):
                for members in ids.reshape(groups, -1).T:
                    self.edges.tie_all(members)
        else:
            self._attach(name, 0, ids_in if transposed else ids_out)
            both = [ids_in.reshape(groups, -1), ids_out.reshape(groups, -1)]
            for members in np.concatenate(both, axis=1):
                self.edges.tie_all(members)
            self.attributes.append(Attribute(node.layer.name, "groups", ids_in, groups))
        self._attach_named(call, ("bias",), ids_out)
        shape = self.shapes[name]
        count = prod(shape)
        pixels = node.layer.size_out[0] * node.layer.size_out[1]
        self.layers.append(
            LayerCall(node.layer.name, name, node.layer.macs // count, pixels, ids_out)
        )

    def _windows(
        self, call: Call, layer: RollingPointwiseConv2d, name: str, ids_in: Ids, ids_out: Ids
    ) -> None:
        """Tie and attach what a rolling pointwise layer reads and writes.

        Windows stay as many as they are. Where all of them begin multiples of d channels apart and
        are multiples of d wide, every d-th channel can go in all of them: so channels whose number
        leaves one remainder modulo d are tied. Filters can go where each window loses one: those
        that come as the same one of each window are tied.

        Reference: MATH of ifspace, section 2, for windows and orders.
        """
        width = layer.weight.shape[1]
        unit = gcd(width, layer.step)
        windows = windows_at(len(ids_in), len(ids_out), width, layer.step, layer.order)
        for members in ids_in.reshape(-1, unit).T:
            self.edges.tie_all(members)
        self._attach(name, 1, ids_in[:width])
        self._attach(name, 0, ids_out)
        rounds = len(ids_out) // windows.distinct
        readers = [windows.readers(window) for window in range(windows.distinct)]
        for number in range(-(-len(ids_out) // windows.distinct)):
            members = ids_out[[own[number] for own in readers if number < len(own)]]
            self.edges.tie_all(members)
            if number >= rounds or windows.distinct % layer.groups:
                self.edges.fix(members, f"filters that windows have unevenly in {call.scope}")

    def _norm(self, call: Call, written: Label) -> None:
        """Attach scale, shift and statistics of a normalisation; tie the groups of a group norm."""
        arguments = call.arguments
        shape = arguments.get("normalized_shape")
        ids = self._along(written, 1 if shape is None else -1)
        if ids is None or (shape is not None and len(shape) != 1):
            self._fix(call, (written,), "a norm along other axes than channels")
            return
        self._attach_named(call, _OF_CHANNELS, ids)
        if shape is not None or int(arguments.get("num_groups") or 2) == 1:
            self.together.append(ids)
        groups = arguments.get("num_groups", arguments.get("group"))
        if shape is not None:
            self.attributes.append(Attribute(call.scope, "normalized_shape", ids))
        elif groups is not None:
            self.attributes.append(Attribute(call.scope, "num_channels", ids))
            if int(groups) > 1:
                for members in ids.reshape(int(groups), -1):
                    self.edges.tie_all(members)
                self.attributes.append(Attribute(call.scope, "num_groups", ids, int(groups)))

    def _chunks(self, parts: Sequence[Label]) -> None:
        """Tie the channels at one place of equal parts, so that the parts stay equal."""
        first = parts[0]
        for part in parts[1:]:
            axes = {*first.axes(), *part.axes()}
            if part.ids.shape == first.ids.shape and len(axes) == 1:
                self.edges.tie(first.along(next(iter(axes))), part.along(next(iter(axes))))

    def _elementwise(self, call: Call, written: Label) -> None:
        """Tie the channels that a sum or product puts together, and attach weights among them."""
        shape = tuple(written.ids.shape)
        if shape != call.shape:
            return
        whole = [label.ids.broadcast_to(shape) for label in call.labels]
        axes = sorted(set(written.axes()).union(*(_axes_of(ids) for ids in whole)))
        line: list[int | slice] = [*written.middle()]
        for axis in axes:
            line[axis] = slice(None)
        place = tuple(line)
        ids = written.ids[place].reshape(-1).numpy()
        for label, expanded in zip(call.labels, whole, strict=True):
            other = expanded[place].reshape(-1).numpy()
            if len(np.unique(other)) == 1 < len(np.unique(ids)):
                self.edges.fix(label.all_ids(), f"one channel that scales all in {call.scope}")
            else:
                self.edges.tie(ids, other)
        for node in call.node.all_input_nodes:
            if self._environment.values.get(node) is None:
                self._attach_broadcast(call, node, ids, shape, place)

    def _attach_broadcast(
        self, call: Call, node: fx.Node, ids: Ids, shape: tuple[int, ...], place: tuple[Any, ...]
    ) -> None:
        """Attach a tensor that no image changes and that is broadcast against feature maps."""
        tensor = node.meta.get("val")
        if not isinstance(tensor, Tensor) or tensor.numel() == 1:
            return
        name, positions = self._positions(node)
        if name is None or positions is None:
            spread = tensor.to("meta").broadcast_to(shape)
            varies = any(
                isinstance(part, slice) and spread.stride(axis) for axis, part in enumerate(place)
            )
            if varies:
                self._fix(call, (), "numbers that are computed for each channel")
            return
        read = positions.broadcast_to(shape)[place].reshape(-1).numpy()
        for axis, coordinates in enumerate(np.unravel_index(read, self.shapes[name])):
            size = self.shapes[name][axis]
            if size == 1 or len(np.unique(coordinates)) == 1:
                continue
            pairs = np.unique(np.stack([coordinates, ids]), axis=1)
            if len(pairs[0]) == size:
                self._attach(name, axis, pairs[1])
            elif len(np.unique(pairs[0])) < size:
                self._fix(call, (), "weights that are read in part")

    def _positions(self, node: fx.Node) -> tuple[str | None, Tensor | None]:
        """Return which tensor a node shows, and which of its elements stands where."""
        name = self._tensor_name(node)
        if name is not None:
            shape = self.shapes[name]
            return name, torch.arange(prod(shape)).reshape(shape)
        sources = node.all_input_nodes
        if node.op != "call_function" or len(sources) != 1 or not callable(node.target):
            return None, None
        name, positions = self._positions(sources[0])
        tensor = node.meta.get("val")
        if positions is None or not isinstance(tensor, Tensor):
            return None, None
        handler = OPERATORS.get(str(getattr(node.target, "__name__", "")).partition(".")[0], keep)
        if handler is move:
            args: Any = fx.map_arg(node.args, lambda _: positions)
            return name, node.target(*args, **dict(node.kwargs))
        return (name, positions) if tuple(tensor.shape) == tuple(positions.shape) else (None, None)


def _axes_of(ids: Tensor) -> list[int]:
    return Label(ids).axes()


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Classes of channels that are exchangeable: how many of them are kept is a width.

    `layers`: the full names of the layers that write them, the first of which names the group.
    `classes`: indices of the classes in the order of their channels. `channels`: of one class, in
    what the first layer writes. `uses`: for each axis of a tensor how many of its elements belong
    to one class.
    """

    layers: tuple[str, ...]
    classes: npt.NDArray[np.int64]
    channels: int
    uses: Mapping[Axis, int]

    @property
    def name(self) -> str:
        """The full name of the first layer that writes the channels."""
        return self.layers[0]

    @property
    def key(self) -> tuple[Any, ...]:
        """What the group has in a network with other widths, too."""
        return self.layers, tuple(sorted(self.uses.items()))

    @property
    def width(self) -> int:
        """How many channels that layer writes of them."""
        return len(self.classes) * self.channels

    @property
    def shared(self) -> int:
        """How many channels of one class every layer writes some multiple of.

        >>> halves = {("enter.weight", 0): 2, ("unit.weight", 0): 1, ("unit.weight", 1): 1}
        >>> ChannelGroup(("enter", "unit"), np.arange(32), 2, halves).shared
        1
        """
        return gcd(self.channels, *(count for (_, axis), count in self.uses.items() if axis == 0))


@dataclass(frozen=True, slots=True)
class FixedChannels:
    """Layers whose channels stay, how many they write, and why."""

    layers: tuple[str, ...]
    channels: int
    reason: str


class Channels:
    """The channels of a network as classes and groups.

    Raises: SettingError for a network that cannot be exported.
    """

    def __init__(self, model: nn.Module, x: Image) -> None:
        self.model = checked_model(model)
        self.image = image_for(self.model, x)[:1]
        try:
            self.walk = walk_through(self.model, self.image, ChannelWalk)
        except IfspaceError:
            raise
        except Exception as error:
            raise SettingError.because(
                "a network whose channels are not known",
                got=first_line(error),
                allowed="networks that torch.export can write down",
                remedy="narrow a part of it, as a module of its own",
                argument="model",
            ) from None
        for node in self.nodes:
            self._tie_node(node, self.walk.edges)
        for label in labels_in(self.walk.returned):
            self.walk.edges.fix(label.all_ids(), "what the network returns")
        self.class_of = _components(self.walk.maps.count_ids(), self.walk.edges.pairs)
        # The names of groups of which nothing computes the same with more channels.
        self.narrow_only: frozenset[str] = frozenset()

    @property
    def nodes(self) -> Sequence[Node]:
        """The feature maps in the order in which they are written."""
        return self.walk.maps.nodes

    def ids_of(self, node: int) -> Ids:
        """Return the ids of a feature map's channels."""
        return self.walk.maps.ids_of(node)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The full names of all parameters, each once."""
        return tuple(name for name, _ in self.model.named_parameters())

    def tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer by its full name."""
        tensor: Tensor = operator.attrgetter(name)(self.model)
        return tensor

    @property
    def other_macs(self) -> int:
        """The MACs of layers whose channels stay, because their weights are not read off."""
        total = sum(node.layer.macs for node in self.nodes if node.layer is not None)
        counts = {call.weight: prod(self.walk.shapes[call.weight]) for call in self.walk.layers}
        return total - sum(call.macs_per_weight * counts[call.weight] for call in self.walk.layers)

    def with_fixed(self, nodes: Mapping[int, str]) -> "Channels":
        """Return the channels of the same network where those of some feature maps stay."""
        other = copy(self)
        for name in ("reasons", "_uses", "writers", "_grouped", "groups", "fixed", "live"):
            vars(other).pop(name, None)
        for index, reason in nodes.items():
            other.walk.edges.fix(self.ids_of(index), reason)
        return other

    def not_wider(self, names: Iterable[str]) -> "Channels":
        """Return the channels where the groups of some names get no more channels."""
        other = copy(self)
        other.narrow_only |= frozenset(names)
        return other

    def can_widen(self, group: "ChannelGroup") -> bool:
        """Return whether the network computes the same with more channels of a group.

        Not where a norm, or another operator, puts them together.
        """
        return group.name not in self.narrow_only and not self._together[group.classes].any()

    @cached_property
    def _together(self) -> Mask:
        """For each class whether an operator puts its channels together."""
        together = np.zeros(int(self.class_of.max()) + 1, bool)
        for ids in self.walk.together:
            together[self.class_of[ids]] = True
        return together

    def with_kept(self, patterns: Sequence[str]) -> "Channels":
        """Return the channels where groups stay that a layer with a matching full name writes.

        Raises: SettingError for a pattern that matches no layer of a group.
        """
        kept = copy(self)
        for pattern in patterns:
            groups = [
                group
                for group in self.groups
                if any(fnmatchcase(layer, pattern) for layer in group.layers)
            ]
            fixed = [layer for part in self.fixed for layer in part.layers]
            if not groups and not any(fnmatchcase(layer, pattern) for layer in fixed):
                names = [layer for group in self.groups for layer in group.layers]
                near = get_close_matches(pattern, names, 3, 0.3) or names[:3]
                raise SettingError.because(
                    f"{ARGUMENT} matches no layer whose width could change",
                    got=repr(pattern),
                    allowed=f"patterns of full names such as {', '.join(near) or 'none'}",
                    remedy="`ifspace analyze --every-layer` lists them",
                    argument="keep_widths",
                )
            for group in groups:
                ids = np.flatnonzero(np.isin(self.class_of, group.classes))
                kept.walk.edges.fix(ids, f"matches {pattern}, or goes with what does")
        return kept.with_fixed({})

    def nodes_of(self, group: "ChannelGroup") -> list[int]:
        """Return the feature maps that have channels of a group."""
        return [
            node.index
            for node in self.nodes
            if np.isin(self.class_of[self.ids_of(node.index)], group.classes).any()
        ]

    def _tie_node(self, node: Node, edges: _Edges) -> None:
        """Tie the channels of a feature map to those that it is written from."""
        own = self.ids_of(node.index)
        if node.op is Op.INPUT:
            edges.fix(own, "the image")
        elif node.op is Op.MIX:
            reason = f"every pixel sees all others{f' in {node.scope}' if node.scope else ''}"
            for ids in (own, *map(self.ids_of, node.parents)):
                edges.fix(ids, reason)
        elif node.op is Op.MOVE and node.sources is not None:
            parents = [self.ids_of(parent) for parent in node.parents]
            for number, ids in enumerate(parents):
                places = np.flatnonzero(node.sources[:, 0] == number)
                edges.tie(own[places], ids[node.sources[places, 1]])
        elif node.op is not Op.LAYER:
            for parent in node.parents:
                ids = self.ids_of(parent)
                if len(ids) == len(own):
                    edges.tie(own, ids)
                else:
                    edges.fix([*own, *ids], f"channels put together in {node.scope}")

    @cached_property
    def reasons(self) -> dict[int, str]:
        """The classes that stay, and why."""
        reasons: dict[int, str] = {}
        for channel, reason in self.walk.edges.fixed.items():
            reasons.setdefault(int(self.class_of[channel]), reason)
        return reasons

    @cached_property
    def _uses(self) -> dict[int, Counter[Axis]]:
        """For each class the axes that its channels belong to, and how often."""
        uses: dict[int, Counter[Axis]] = {}
        for axis, ids in self.walk.axes.items():
            for channel_class in self.class_of[ids].tolist():
                uses.setdefault(channel_class, Counter())[axis] += 1
        return uses

    @cached_property
    def writers(self) -> dict[Axis, str]:
        """For each axis along which a weight has the outputs of a layer, the layer."""
        writers: dict[Axis, str] = {}
        for layer in self.walk.layers:
            for axis in (0, 1):
                ids = self.walk.axes.get((layer.weight, axis))
                if ids is not None and np.array_equal(
                    self.class_of[ids], self.class_of[layer.output]
                ):
                    writers.setdefault((layer.weight, axis), layer.name)
        return writers

    @cached_property
    def _grouped(self) -> list[tuple[tuple[str, ...], list[int], dict[Axis, int]]]:
        """The classes of equal uses: the layers that write them, the classes, the uses."""
        by_uses: dict[tuple[tuple[Axis, int], ...], list[int]] = {}
        for channel_class, uses in self._uses.items():
            key = (*uses.items(), (("", channel_class in self.reasons), 0))
            by_uses.setdefault(tuple(sorted(key)), []).append(channel_class)
        grouped = []
        for key, classes in by_uses.items():
            own = dict(pair for pair in key if pair[0][0])
            layers = {
                self.writers[axis]: None
                for axis in self.walk.axes
                if axis in own and axis in self.writers
            }
            grouped.append((tuple(layers), sorted(classes), own))
        order = {layer.name: index for index, layer in enumerate(self.walk.layers)}
        return sorted(grouped, key=lambda group: min((order[n] for n in group[0]), default=-1))

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The groups whose widths can change: of two classes or more."""
        groups = []
        for layers, classes, uses in self._grouped:
            if layers and len(classes) > 1 and classes[0] not in self.reasons:
                first = next(
                    uses[axis]
                    for axis, name in self.writers.items()
                    if name == layers[0] and axis in uses
                )
                groups.append(ChannelGroup(layers, np.array(classes), first, uses))
        return tuple(groups)

    @cached_property
    def fixed(self) -> tuple[FixedChannels, ...]:
        """What stays as it is, and why."""
        free = {int(index) for group in self.groups for index in group.classes}
        parts = []
        for layers, classes, uses in self._grouped:
            if not layers or classes[0] in free:
                continue
            channels = sum(
                uses[axis]
                for axis, name in self.writers.items()
                if axis in uses and name == layers[0]
            )
            reason = self.reasons.get(classes[0], "channels that all hang together")
            parts.append(FixedChannels(layers, channels * len(classes), reason))
        return tuple(parts)

    def kept_ids(self, removed: Iterable[int]) -> Mask:
        """Return for each id whether it stays where some classes are removed."""
        gone = np.zeros(int(self.class_of.max()) + 1, bool)
        gone[list(removed)] = True
        kept: Mask = ~gone[self.class_of]
        return kept

    def mismatch(self, other: "Channels", removed: Iterable[int]) -> list[int]:
        """Return the feature maps that a narrowed network writes otherwise than it should.

        `other`: the channels of the network without the classes `removed`. An empty list says that
        it runs the same operators on the channels that are left, each from where it came before.
        """
        kept = self.kept_ids(removed)
        if self.walk.calls != other.walk.calls:
            both = zip(self.nodes, other.nodes, strict=False)
            different = [a.index for a, b in both if (a.op, a.scope) != (b.op, b.scope)]
            return different[:1] or [len(other.nodes) - 1]
        wrong = []
        for node, new in zip(self.nodes, other.nodes, strict=False):
            own = kept[self.ids_of(node.index)]
            same = (node.op, node.parents, node.size) == (new.op, new.parents, new.size)
            same = same and int(own.sum()) == new.channels
            if same and node.sources is not None:
                same = new.sources is not None and np.array_equal(
                    self._renumbered(node, own, kept), new.sources
                )
            if not same:
                wrong.append(node.index)
        if len(self.nodes) != len(other.nodes):
            wrong = wrong or [min(len(self.nodes), len(other.nodes)) - 1]
        return wrong

    def _renumbered(self, node: Node, own: Mask, kept: Mask) -> Ids:
        """Return the sources of the channels of a feature map that stay, counted anew."""
        assert node.sources is not None
        sources = node.sources[own].copy()
        for number, parent in enumerate(node.parents):
            places = np.cumsum(kept[self.ids_of(parent)]) - 1
            rows = sources[:, 0] == number
            sources[rows, 1] = places[sources[rows, 1]]
        return sources

    @cached_property
    def live(self) -> tuple[list[int], list[list[int]]]:
        """The live elements of each step, and of them those of one class of each group.

        What is live together does not depend on widths: feature maps that share their memory have
        the same channels.
        """
        schedule = self.walk.live.schedule(self.walk.returned_nodes).schedule
        live = schedule.live()
        per_group = []
        parts = self.walk.labelled.labels
        for group in self.groups:
            members = np.isin(self.class_of, group.classes)
            more = [
                sum(_elements(label, members) for label in labels) // len(group.classes)
                for labels in parts
            ]
            # Both numbers in one: sizes that were equal stay equal where they show equal channels.
            unit = sum(more) + 1
            both = Schedule(
                tuple(unit * elements for elements in schedule.inputs),
                tuple(
                    replace(step, elements=unit * step.elements + own)
                    for step, own in zip(schedule.steps, more, strict=True)
                ),
                schedule.outputs,
            )
            per_group.append([a - unit * b for a, b in zip(both.live(), live, strict=True)])
        return live, per_group


def _elements(label: Label, members: Mask) -> int:
    """Return how many elements of a label show some of the ids."""
    place: list[int | slice] = [*label.middle()]
    for axis in label.axes():
        place[axis] = slice(None)
    ids = label.ids[tuple(place)].reshape(-1).numpy()
    shown = int(members[ids[ids != NO_CHANNEL]].sum())
    return shown * (label.ids.numel() // max(1, len(ids)))


def _components(count: int, pairs: Iterable[tuple[Ids, Ids]]) -> npt.NDArray[np.int64]:
    """Return the number of the connected component of each of so many vertices.

    >>> _components(4, [(np.array([0, 3]), np.array([2, 2]))]).tolist()
    [0, 1, 0, 0]
    """
    parent = list(range(count))

    def root(vertex: int) -> int:
        while parent[vertex] != vertex:
            parent[vertex] = vertex = parent[parent[vertex]]
        return vertex

    for first, second in pairs:
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            a, b = root(one), root(other)
            parent[max(a, b)] = min(a, b)
    _, numbers = np.unique([root(vertex) for vertex in range(count)], return_inverse=True)
    classes: npt.NDArray[np.int64] = numbers.astype(np.int64)
    return classes
