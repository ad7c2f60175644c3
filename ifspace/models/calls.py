"""One call of an operator, as torch.export writes it down."""

import operator
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import fx

from ifspace.models.feature_maps import Label

# A tensor of the network: a map, several of them, or None for what no image changes.
Value = Label | tuple[Any, ...] | None


class UnreadableError(Exception):
    """What the graph of maps has no word for."""


class Call:
    """A call with its arguments by name, and what is known of those that are maps."""

    def __init__(
        self, node: fx.Node, values: dict[fx.Node, Value], outside: dict[fx.Node, fx.Node]
    ) -> None:
        self.node = node
        self._values, self._outside = values, outside

    @cached_property
    def name(self) -> str:
        """The bare name of the operator: conv2d of aten.conv2d.default, relu of aten.relu_."""
        return bare_name(self.node)

    @property
    def in_place(self) -> bool:
        """Whether it writes into its first argument."""
        return writes(self.node)

    @cached_property
    def scope(self) -> str:
        """The path of the module that it runs in."""
        stack = self.node.meta.get("nn_module_stack") or {}
        return str(list(stack.values())[-1][0]) if stack else ""

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments by their names in the operator's schema, defaults filled in."""
        schema = getattr(self.node.target, "_schema", None)
        if schema is None:
            raise UnreadableError(f"an operator {self.node.target}")
        given = dict(zip((each.name for each in schema.arguments), self.node.args, strict=False))
        defaults = {each.name: each.default_value for each in schema.arguments}
        return {**defaults, **given, **self.node.kwargs}

    def value(self, node: Any) -> Value:
        """Return what is known of an argument."""
        return self._values.get(node) if isinstance(node, fx.Node) else None

    def source(self, node: fx.Node) -> fx.Node:
        """Return a node, or what was given for it where it is an input of a part."""
        while node in self._outside:
            node = self._outside[node]
        return node

    @cached_property
    def labels(self) -> list[Label]:
        """The maps among the arguments."""
        return labels_in(self._values.get(each) for each in self.node.all_input_nodes)

    def label(self, name: str) -> Label:
        """Return the map that an argument is.

        Raises: UnreadableError where it is none.
        """
        value = self.value(self.arguments[name])
        if not isinstance(value, Label):
            raise UnreadableError(f"{self.name} of weights that are computed from the image")
        return value

    @property
    def made(self) -> Any:
        """What torch says that it returns: a tensor without values, several, or a number."""
        return self.node.meta.get("val")

    @property
    def first(self) -> torch.Tensor | None:
        """The tensor that it returns, the first where there are several."""
        made = self.made[0] if isinstance(self.made, tuple | list) and self.made else self.made
        return made if isinstance(made, torch.Tensor) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of that tensor."""
        return () if self.first is None else tuple(int(size) for size in self.first.shape)

    @property
    def rank(self) -> int:
        """How many axes it has; 0 for what is no tensor."""
        return len(self.shape)

    @property
    def part(self) -> fx.GraphModule | None:
        """The operators that it wraps: those of a network under autocast, or without gradients."""
        if not self.name.startswith(("wrap_with", "tag_activation_checkpoint")):
            return None
        held = (each for each in self.node.all_input_nodes if each.op == "get_attr")
        owner = self.node.graph.owning_module
        found = [operator.attrgetter(str(each.target))(owner) for each in held]
        return next((each for each in found if isinstance(each, fx.GraphModule)), None)

    def keeps(self, label: Label) -> bool:
        """Return whether what it returns has the shape of a map."""
        return self.rank > 0 and tuple(label.ids.shape) == self.shape


def bare_name(node: fx.Node) -> str:
    """Return the name of the operator that a node calls, without overload and namespace."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", node.target)).rstrip("_")


def writes(node: fx.Node) -> bool:
    """Return whether a node writes into its first argument, as aten.add_ does."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return node.op == "call_function" and str(packet).endswith("_")


def labels_in(values: Iterable[Any]) -> list[Label]:
    """Return the maps in values, those inside tuples too."""
    found: list[Label] = []
    for value in values:
        if isinstance(value, Label):
            found.append(value)
        elif isinstance(value, tuple):
            found += labels_in(value)
    return found
