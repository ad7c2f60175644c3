"""One call of an operator in a program of torch.export, and what is known of its arguments."""

import operator
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from ifspace.models.feature_maps import Label
from ifspace.nn import RollingPointwiseConv2d

# What is known of a value: a feature map, several, or None for what no image changes.
Value = Label | tuple[Any, ...] | None


class UnreadableError(Exception):
    """An operation that the graph of feature maps cannot express."""


class Environment:
    """The values of a program while it is read, and the model whose parameters it uses.

    `names`: for each parameter and buffer of the program its full name in the model. `constants`:
    the buffers and other tensors that no image changes. `values`: what is known of each node read
    so far. `outer`: for each input of a subgraph the node that is passed to it.
    """

    def __init__(
        self, model: nn.Module, names: Mapping[str, str], constants: Mapping[str, Tensor]
    ) -> None:
        self.model, self.names, self.constants = model, names, constants
        self.values: dict[fx.Node, Value] = {}
        self.outer: dict[fx.Node, fx.Node] = {}
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        # A module may have several names: the first one stands for all.
        first = {module: name for name, module in reversed(list(model.named_modules()))}
        self.modules = {
            name: (module, first[module])
            for name, module in model.named_modules(remove_duplicate=False)
        }
        self.counted: set[nn.Parameter] = set()
        self._calls: dict[str, list[str]] = {}

    def call_number(self, module: str, key: str) -> tuple[str, int]:
        """Return the first name of a module and how often it was called before, by another key."""
        name = self.modules[module][1] if module in self.modules else module
        keys = self._calls.setdefault(name, [])
        if key not in keys:
            keys.append(key)
        return name, keys.index(key)

    def origin(self, node: fx.Node) -> fx.Node:
        """Return a node, or the node outside that is passed for this input of a subgraph."""
        while node in self.outer:
            node = self.outer[node]
        return node

    def constant(self, node: fx.Node) -> Tensor:
        """Return the values of a tensor that no image changes, such as an order of channels.

        Raises: ValueError for a tensor without values.
        """
        if node.op == "placeholder":
            tensor = self.constants.get(self.origin(node).name)
            if tensor is None or tensor.is_meta:
                raise ValueError(f"the values of {node.name}")
            return tensor.cpu()
        if not callable(node.target):
            raise ValueError(f"the values of {node.name}")
        args: Any = fx.map_arg(node.args, self.constant)
        kwargs: Any = fx.map_arg(dict(node.kwargs), self.constant)
        # On the CPU, where the labels are, whatever the device of the network.
        device = {"device": torch.device("cpu")} if "device" in kwargs else {}
        result: Tensor = node.target(*args, **kwargs | device)
        return result

    def parameter(self, node: fx.Node) -> nn.Parameter | None:
        """Return the parameter of the model that a node is."""
        return self.parameters.get(self.names.get(self.origin(node).name, ""))

    def owns(self, scope: str, name: str) -> bool:
        """Return whether the module `scope` itself holds the parameter of a full name."""
        parameter = self.parameters.get(name)
        if parameter is None or scope not in self.modules:
            return False
        module = self.modules[scope][0]
        return any(own is parameter for own in module.parameters(recurse=False))


class Call:
    """A call of an operator: its arguments by name, and what is known of them."""

    def __init__(self, node: fx.Node, environment: Environment) -> None:
        self.node, self.environment = node, environment

    @cached_property
    def name(self) -> str:
        """The bare name of the operator: conv2d of aten.conv2d.default, relu of aten.relu_."""
        return bare_name(self.node)

    @property
    def in_place(self) -> bool:
        """Whether it writes into its first argument."""
        return is_in_place(self.node)

    @cached_property
    def scope(self) -> str:
        """The full name of the module whose forward calls it."""
        stack = self.node.meta.get("nn_module_stack") or {}
        return str(list(stack.values())[-1][0]) if stack else ""

    @property
    def uses(self) -> dict[str, int]:
        """For each module around it that was called before, how often."""
        stack = self.node.meta.get("nn_module_stack") or {}
        calls = [
            self.environment.call_number(str(entry[0]), str(key)) for key, entry in stack.items()
        ]
        return {name: number for name, number in calls if number}

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments by their names in the operator's schema, with defaults."""
        schema = getattr(self.node.target, "_schema", None)
        if schema is None:
            raise UnreadableError(f"an operator {self.node.target}")
        names = [argument.name for argument in schema.arguments]
        defaults = {argument.name: argument.default_value for argument in schema.arguments}
        positional = dict(zip(names, self.node.args, strict=False))
        return {**defaults, **positional, **self.node.kwargs}

    def value(self, node: Any) -> Value:
        """Return what is known of an argument."""
        return self.environment.values.get(node) if isinstance(node, fx.Node) else None

    @cached_property
    def labels(self) -> list[Label]:
        """The labels of the feature maps among the arguments."""
        return labels_in(map(self.value, self.node.all_input_nodes))

    def label(self, name: str) -> Label:
        """Return the label of the feature map that an argument is.

        Raises: UnreadableError if the argument is not a feature map.
        """
        value = self.value(self.arguments[name])
        if not isinstance(value, Label):
            raise UnreadableError(f"{self.name} of weights that are computed from the image")
        return value

    @property
    def result(self) -> Any:
        """What torch says it returns: a tensor without values, several, or a number."""
        return self.node.meta.get("val")

    @property
    def returns_several(self) -> bool:
        """Whether it returns a tuple or a list."""
        return isinstance(self.result, tuple | list)

    @property
    def tensor(self) -> Tensor | None:
        """The tensor that it returns, the first of several."""
        first = self.result[0] if self.returns_several and self.result else self.result
        return first if isinstance(first, Tensor) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of that tensor."""
        return () if self.tensor is None else tuple(int(size) for size in self.tensor.shape)

    @property
    def rank(self) -> int:
        """How many axes that tensor has; 0 if it returns no tensor."""
        return len(self.shape)

    @property
    def subgraph(self) -> fx.GraphModule | None:
        """The operators that it wraps, such as those under autocast or without gradients."""
        if not self.name.startswith(("wrap_with", "tag_activation_checkpoint")):
            return None
        owner = self.node.graph.owning_module
        for node in self.node.all_input_nodes:
            if node.op == "get_attr":
                attribute = operator.attrgetter(str(node.target))(owner)
                if isinstance(attribute, fx.GraphModule):
                    return attribute
        return None

    def keeps_shape(self, label: Label) -> bool:
        """Return whether what it returns has the shape of a feature map."""
        return self.rank > 0 and tuple(label.ids.shape) == self.shape

    @cached_property
    def weight(self) -> tuple[str, tuple[int, ...]]:
        """The full name of the module that its weight belongs to, and the weight's shape.

        A weight that is computed on every call, or borrowed from another module, counts as one of
        the module that calls the operator.
        """
        environment = self.environment
        weight = environment.origin(self.arguments["weight"])
        name = environment.names.get(weight.name)
        if name is None or environment.owns(self.scope, name):
            module = self.scope
        else:
            module = name.rpartition(".")[0]
        if module in environment.modules:
            module = environment.modules[module][1]
        return module, tuple(int(size) for size in weight.meta["val"].shape)

    @property
    def rolling(self) -> RollingPointwiseConv2d | None:
        """The rolling pointwise layer that its weight belongs to, if it belongs to one."""
        try:
            module = self.environment.model.get_submodule(self.weight[0])
        except AttributeError:
            return None
        return module if isinstance(module, RollingPointwiseConv2d) else None

    @property
    def has_bias(self) -> bool:
        """Whether it adds a bias."""
        return self.arguments.get("bias") is not None

    @cached_property
    def parameters(self) -> frozenset[nn.Parameter]:
        """The parameters that its weight and bias come from.

        A weight may be computed from parameters, as under weight normalisation.
        """
        waiting = [self.arguments.get(name) for name in ("weight", "bias")]
        visited: set[fx.Node] = set()
        parameters: set[nn.Parameter] = set()
        while waiting:
            node = waiting.pop()
            if not isinstance(node, fx.Node) or self.value(node) is not None or node in visited:
                continue
            visited.add(node)
            parameter = self.environment.parameter(node)
            if parameter is not None:
                parameters.add(parameter)
            waiting += self.environment.origin(node).all_input_nodes
        return frozenset(parameters)

    def count_params(self) -> int:
        """Return how many parameters its weight and bias come from, those counted before not."""
        new = self.parameters - self.environment.counted
        self.environment.counted |= new
        return sum(parameter.numel() for parameter in new)

    @property
    def has_matrices(self) -> bool:
        """Whether it reads parameters of more than one axis: more than a scale or a shift."""
        parameters = map(self.environment.parameter, self.node.all_input_nodes)
        return any(parameter is not None and parameter.dim() > 1 for parameter in parameters)


def bare_name(node: fx.Node) -> str:
    """Return the name of the operator that a node calls, without overload and namespace."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", node.target)).rstrip("_")


def is_in_place(node: fx.Node) -> bool:
    """Return whether a node writes into its first argument, as aten.add_ does."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return node.op == "call_function" and str(packet).endswith("_")


def labels_in(values: Iterable[Any]) -> list[Label]:
    """Return the labels among values and inside tuples of them."""
    labels: list[Label] = []
    for value in values:
        if isinstance(value, Label):
            labels.append(value)
        elif isinstance(value, tuple):
            labels += labels_in(value)
    return labels
