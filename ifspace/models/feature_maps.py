"""Where the numbers of a tensor come from: labels that go through views, shuffles and slices.

Every channel of every map has a number. A tensor that only moves channels is known by running the
same operator on the numbers instead of the activations: what comes out says, whatever the operator
was, which channel stands where. Labels are expanded over the pixels, so they take no memory until
an operator copies them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifspace.models.graph import (
    Node,
    Op,
    Size,
    TracedLayer,
)

Ids = npt.NDArray[np.int64]
# Stands where no channel does: zeros that padding put there.
NOTHING = -1


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A tensor by the numbers of its channels, [1, C, H, W] or any other order and shape.

    `pooled`: it has one value of a channel for the whole map, or none for a pixel any more.
    `remade` makes the same moves with other numbers, such as those of pixels: it is given what
    stands for each label.
    """

    ids: Tensor
    pooled: bool = False
    remade: Callable[[Callable[["Label"], Tensor]], Tensor] | None = None

    @classmethod
    def of(cls, ids: Ids, axis: int, shape: Sequence[int], pooled: bool = False) -> "Label":
        """Return the label of a tensor whose channels stand along an axis.

        >>> Label.of(np.arange(2), 1, (1, 2, 4, 4)).ids.shape
        torch.Size([1, 2, 4, 4])
        """
        along = [1] * len(shape)
        along[axis] = len(ids)
        return cls(torch.from_numpy(ids).reshape(along).expand(*shape), pooled)

    def axes(self) -> list[int]:
        """Return the axes along which the channels change; zeros put between them are none."""
        found = []
        for axis in range(1, self.ids.dim()):
            ids = self.along(axis)
            if len(np.unique(ids[ids != NOTHING])) > 1:
                found.append(axis)
        return found

    def along(self, axis: int) -> Ids:
        """Return the numbers along an axis, through the middle: padding lies at the borders."""
        place = tuple(
            slice(None) if other == axis else size // 2 for other, size in enumerate(self.ids.shape)
        )
        return self.ids[place].numpy()

    def everything(self) -> Ids:
        """Return all numbers that stand anywhere in it, each once."""
        found: Ids = torch.unique(self.ids).numpy()
        kept: Ids = found[found != NOTHING]
        return kept


def flat(shape: Sequence[int]) -> bool:
    """Return whether a tensor of one image has no pixels: [1, F], or [F].

    >>> flat((1, 512)), flat((1, 49, 512)), flat((49, 512))
    (True, False, False)
    """
    return len(shape) < 2 or (len(shape) == 2 and shape[0] == 1)


def shuffle_groups(order: Ids) -> int | None:
    """Return the groups of the channel shuffle that puts channels into an order, or None.

    >>> shuffle_groups(np.array([0, 2, 4, 1, 3, 5]))
    3
    """
    width = len(order)
    # Of g runs, the second output is the first channel of the second run.
    run = int(order[1]) if width > 3 else 0
    if run < 2 or width % run or run == width:
        return None
    shuffled = np.arange(width).reshape(width // run, run).T.ravel()
    return width // run if np.array_equal(order, shuffled) else None


Stride = tuple[Fraction, Fraction]
# Up to so many pixels of a channel come from channels of their own: a map made 8 times larger.
MOST_SPREAD: Final = 64


def side_of(shape: Sequence[int], axis: int) -> Size:
    """Return (height, width) of a tensor whose channels stand along an axis.

    Axes of 1 in front are left out; a line of pixels has the height 1; what stands in front of two
    axes, such as windows, is taken as more rows.

    >>> side_of((1, 64, 7, 7), 1), side_of((1, 7, 64), -1), side_of((1, 64), 1)
    ((7, 7), (1, 7), (1, 1))
    >>> side_of((64, 7, 7, 96), -1)
    (448, 7)
    """
    sizes = [int(size) for place, size in enumerate(shape) if place != axis % len(shape)]
    rows = prod(sizes[:-1]) if len(sizes) > 1 else 1
    return rows, sizes[-1] if sizes else 1


class Maps:
    """Maps in the order in which they are written, each with the numbers of its channels.

    `last` is the last map that has pixels; `pooled` are those that have none any more.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.labels: list[Label] = []
        self.pooled: set[int] = set()
        self.notes: dict[str, None] = {}
        self.last = 0
        self._offsets: list[int] = []
        self._width = 0
        # Labels are kept beside what is known of them: no other one can then get their id.
        self._own: dict[int, tuple[int, int, Label]] = {}
        self._settled: dict[tuple[int, int], tuple[int, Label]] = {}

    def add(
        self,
        op: Op,
        parents: tuple[int, ...],
        shape: tuple[int, ...],
        axis: int,
        scope: str,
        pooled: bool = False,
        **more: Any,
    ) -> Label:
        """Add a map whose tensor has a shape, channels along an axis, and return its label."""
        axis %= len(shape)
        channels, start, number = shape[axis], self._width, len(self.nodes)
        self.nodes.append(Node(number, op, parents, channels, side_of(shape, axis), scope, **more))
        self._offsets.append(start)
        self._width += channels
        if pooled:
            self.pooled.add(number)
        else:
            self.last = number
        label = Label.of(np.arange(start, start + channels), axis, shape, pooled)
        self._own[id(label)] = number, axis, label
        self.labels.append(label)
        return label

    def number(self, label: Label) -> int:
        """Return the number of the map that was added with a label."""
        return self._own[id(label)][0]

    def settle(self, label: Label, axis: int | None = None, scope: str = "") -> int:
        """Return the number of the map that a label shows along an axis, adding what moved it."""
        number, own, _ = self._own.get(id(label), (None, None, None))
        if axis is None:
            axis = next((each for each in (own, *label.axes()) if each is not None), 1)
        axis %= label.ids.dim()
        if number is not None and axis == own:
            return number
        key = id(label), axis
        if key not in self._settled:
            if number is not None or label.axes() not in ([], [axis]):
                # Channels and pixels have changed places.
                found = self._spread(label, axis, scope)
            else:
                found = self._settle(label, axis, scope)
            self._settled[key] = found, label
        return self._settled[key][0]

    def _settle(self, label: Label, axis: int, scope: str) -> int:
        ids = label.along(axis)
        owners, moves = self._moves(ids)
        # What was pooled and spread over the pixels again says nothing of their number.
        largest = max(owners, key=lambda owner: prod(self.nodes[owner].side), default=0)
        source = self.nodes[largest]
        stride = self._stride(label, axis, source) if owners else (Fraction(1), Fraction(1))
        number = source.number
        if len(owners) != 1 or not np.array_equal(moves[:, 1], np.arange(source.channels)):
            there, along = tuple(label.ids.shape), axis
            if max(stride) > 1:
                there, along = (1, len(ids), *source.side), 1
            number = self.number(
                self.add(
                    Op.MOVE,
                    owners,
                    there,
                    along,
                    scope,
                    label.pooled,
                    moves=moves,
                    layer=self._shuffle(owners, moves, source, scope),
                )
            )
        if max(stride) == 1 or label.pooled:
            return number
        # Where every channel stands once for each pixel of a stride, none of them is left out.
        copies = set(np.unique(ids, return_counts=True)[1].tolist())
        window = (1, 1) if copies != {prod(stride)} else (int(stride[0]), int(stride[1]))
        return self.number(
            self.add(
                Op.POOL,
                (number,),
                tuple(label.ids.shape),
                axis,
                scope,
                window=window,
                stride=stride,
            )
        )

    def _stride(self, label: Label, axis: int, source: Node) -> Stride:
        """Return how far apart pixels stand that are neighbours in a label, in pixels of its map.

        Of products of maps nobody knows which axes are pixels; of pixels in a row only how many
        there are.
        """
        old, new = source.side, side_of(label.ids.shape, axis)
        none = Fraction(1), Fraction(1)
        if old == new or label.pooled or label.remade is None or source.op is Op.MIX:
            return none
        if label.ids.dim() != 4 or label.ids.shape[0] > 1 or min(old) == 1:
            return none if prod(old) <= prod(new) else (none[0], Fraction(prod(old) // prod(new)))
        ids = label.along(axis)
        offset = self._offsets[source.number]
        mine = np.flatnonzero((ids >= offset) & (ids < offset + source.channels))[0]
        steps = []
        for which in (0, 1):
            places = self._places(label, which).movedim(axis, 0)[mine, 0]
            line = places.select(1 - which, places.shape[1 - which] // 2)
            steps.append(Fraction(_step(line.numpy()) or max(1, old[which] // new[which])))
        return steps[0], steps[1]

    def _places(self, label: Label, which: int) -> Tensor:
        """Return a label with numbers of rows, or of columns, instead of those of channels."""
        own = self._own.get(id(label))
        if own is None:
            if label.remade is None:
                return torch.zeros_like(label.ids)
            return label.remade(lambda other: self._places(other, which))
        number, axis, _ = own
        shape = list(label.ids.shape)
        shape[axis] = 1
        places = torch.arange(prod(shape))
        width = self.nodes[number].side[1]
        numbers = places % width if which else places // width
        return numbers.reshape(shape).expand(label.ids.shape)

    def _moves(self, ids: Ids) -> tuple[tuple[int, ...], Ids]:
        """Return the maps that channels come from; for each channel which of them, and where."""
        place = np.searchsorted(self._offsets, ids, side="right") - 1
        place[ids == NOTHING] = NOTHING
        owners = tuple(int(each) for each in np.unique(place) if each != NOTHING)
        moves = np.full((len(ids), 2), NOTHING)
        for which, owner in enumerate(owners):
            here = place == owner
            moves[here, 0], moves[here, 1] = which, ids[here] - self._offsets[owner]
        return owners, moves

    def _shuffle(
        self, owners: tuple[int, ...], moves: Ids, source: Node, scope: str
    ) -> TracedLayer | None:
        """Return the layer that moves are when they are a channel shuffle."""
        if len(owners) != 1 or len(moves) != source.channels:
            return None
        groups = shuffle_groups(moves[:, 1])
        if groups is None:
            return None
        width, side = source.channels, source.side
        return TracedLayer(
            scope, "SH", width, width, groups, (1, 1), (1, 1), (1, 1), side, side, 0, 0
        )

    def sources(self, labels: Iterable[Label]) -> tuple[int, ...]:
        """Return the maps that labels show channels of, each once."""
        found: dict[int, None] = {}
        for label in labels:
            own = self._own.get(id(label))
            found |= dict.fromkeys([own[0]] if own else self._moves(label.everything())[0])
        return tuple(found)

    def _spread(self, label: Label, axis: int, scope: str) -> int:
        """Return the map of a label whose channels have become pixels, or pixels channels.

        Of a pixel shuffle every channel is a union of channels, made larger. What else there is
        counts as if every place saw all others.
        """
        shape, parents = tuple(label.ids.shape), self.sources([label])
        channels, side = shape[axis], side_of(shape, axis)
        ids = label.ids.movedim(axis, 0).reshape(channels, -1).numpy()
        kinds = [np.unique(row) for row in ids]
        count = len(kinds[0])
        apart = len(np.unique(ids)) == channels * count and {len(row) for row in kinds} == {count}
        if len(parents) != 1 or not apart or count > MOST_SPREAD or ids.min() == NOTHING:
            if not label.pooled:
                self.notes["channels and pixels change places: each sees all others"] = None
            return self.number(self.add(Op.MIX, parents, shape, axis, scope, label.pooled))
        old = self.nodes[parents[0]].side
        rows = np.stack(kinds, axis=1)
        joined = tuple(
            self.settle(Label.of(row, 1, (1, channels, *old), label.pooled), 1, scope)
            for row in rows
        )
        shape_there = (1, channels, *old)
        number = self.number(self.add(Op.JOIN, joined, shape_there, 1, scope, label.pooled))
        stride = Fraction(old[0], side[0]), Fraction(old[1], side[1])
        found = self.add(Op.RESIZE, (number,), shape, axis, scope, label.pooled, stride=stride)
        return self.number(found)


def _step(places: Ids) -> int:
    """Return by how much neighbours differ mostly; 0 where there are none.

    >>> _step(np.array([NOTHING, 0, 2, 4, 1])), _step(np.array([3]))
    (2, 0)
    """
    apart = np.abs(np.diff(places))[(places[1:] != NOTHING) & (places[:-1] != NOTHING)]
    return int(np.bincount(apart).argmax()) if len(apart) else 0
