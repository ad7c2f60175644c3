"""From the operators that torch.export lists to the graph of maps.

Reference: MATH section 5, stages of a real network.
"""

import operator
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from ifspace.models.graph import Op
from ifspace.models.tracing import moving, pooling, weighing
from ifspace.models.tracing.calls import Call, UnreadableError, Value, labels_in
from ifspace.models.tracing.labels import Label, flat
from ifspace.models.tracing.maps import Maps

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
        self.weights = weighing.Weights(model, names)
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
        for table in (weighing.READERS, pooling.READERS, moving.READERS):
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
