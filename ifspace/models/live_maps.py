"""Peak memory of a traced network: which feature maps are live while each operator runs.

The order is that of the program, which is a legal one. Operators become the steps of
`ifspace.memory`: views, work in place and channel shuffles share the memory of what they read;
activations, normalisation, sums and products take over a feature map of their own size that nothing
reads later; a concatenation writes a copy. What no image changes, such as weights, is not counted.

Reference: docs/concepts.md, peak memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from torch import Tensor, fx

from ifspace.memory import Schedule, Step
from ifspace.models.calls import Call
from ifspace.models.graph import LiveSchedule, OperatorCall
from ifspace.models.operators import ALONG_PIXELS, OPERATORS, elementwise, item, keep

# Operators that only index or pass on what they read, though torch may copy it.
_INDEX: Final = frozenset(
    ["channel_shuffle", "native_channel_shuffle", "dropout", "feature_dropout", "alpha_dropout"]
)
# Operators without a row that work along the pixels, and yet can write over what they read.
_IN_PLACE: Final = frozenset(["softmax", "_softmax", "log_softmax", "_log_softmax"])
# Copies of what they read first, with another part written into them.
_SCATTER: Final = frozenset(["slice_scatter", "select_scatter", "copy"])

# Which value of the schedule a node is; several for a list; None for what no image changes.
Live = int | tuple[Any, ...] | None


class LiveMaps:
    """The schedule of a program, which grows while its operators are read in their order."""

    def __init__(self) -> None:
        self._inputs: list[int] = []
        self._steps: list[Step] = []
        self._calls: list[OperatorCall] = []
        self._values: dict[fx.Node, Live] = {}

    def add_input(self, node: fx.Node) -> None:
        """Add the image, before any call."""
        self._values[node] = len(self._inputs)
        self._inputs.append(_elements(node.meta["val"]))

    def pass_on(self, node: fx.Node, argument: Any) -> None:
        """Note that an input of a subgraph is what is passed for it."""
        self._values[node] = self._value(argument)

    def add_outputs(self, node: fx.Node, outputs: Sequence[Any]) -> None:
        """Add what a node returns that wraps a subgraph, whose calls were added."""
        self._values[node] = tuple(map(self._value, outputs))

    def add(self, call: Call, layer: str) -> None:
        """Add a call, and the name of the layer that it runs, "" if it runs none."""
        node = call.node
        reads = tuple(dict.fromkeys(_flat(map(self._value, node.all_input_nodes))))
        if not reads:
            return  # no image changes it
        handler = OPERATORS.get(call.name, keep)
        if handler is item:
            value, index = self._value(node.args[0]), node.args[1]
            if isinstance(value, tuple) and isinstance(index, int):
                value = value[index]
            self._values[node] = value
            return
        first = next(iter(_flat([self._value(node.args[0])] if node.args else [])), reads[0])
        may_replace: tuple[int, ...] = ()
        if call.name in _SCATTER:
            may_replace = (first,)
        elif handler is elementwise or _keeps(call):
            may_replace = reads
        self._values[node] = len(self._inputs) + len(self._steps)
        result = call.tensor if _keeps(call) else call.result
        alias = first if call.name in _INDEX or _is_view(node) else None
        self._steps.append(Step(reads, _elements(result), alias, may_replace))
        self._calls.append(OperatorCall(call.scope, call.name, layer))

    def schedule(self, outputs: Iterable[Any]) -> LiveSchedule:
        """Return the schedule of a program that was read; `outputs` are the nodes it returns."""
        values = tuple(_flat(map(self._value, outputs)))
        schedule = Schedule(tuple(self._inputs), tuple(self._steps), values)
        return LiveSchedule(schedule, tuple(self._calls))

    def _value(self, argument: Any) -> Live:
        return self._values.get(argument) if isinstance(argument, fx.Node) else None


def _keeps(call: Call) -> bool:
    """Return whether an operator writes each element from the one at its place, or can do so."""
    handler = OPERATORS.get(call.name, keep)
    return handler is keep and (call.name not in ALONG_PIXELS or call.name in _IN_PLACE)


def _is_view(node: fx.Node) -> bool:
    """Return whether a node returns its first argument, or a part of it: a view, work in place."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(x.alias_info is not None for x in schema.arguments[:1])


def _elements(result: Any) -> int:
    """Return the elements of a tensor, or of several."""
    if isinstance(result, tuple | list):
        return sum(map(_elements, result))
    return int(result.numel()) if isinstance(result, Tensor) else 0


def _flat(values: Iterable[Live]) -> Iterator[int]:
    for value in values:
        if isinstance(value, tuple):
            yield from _flat(value)
        elif value is not None:
            yield value
