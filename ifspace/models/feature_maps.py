"""Feature maps while a network is read: which channel stands where, and the graph as it grows.

Every channel of every feature map has an id. An operator that only moves channels (views, shuffles,
slices) is understood by running it on the ids instead of the activations: its result says, whatever
the operator was, which channel stands where. A tensor of ids is a *label*. It is expanded over the
pixels, so it takes no memory until an operator copies it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifspace.models.graph import Node, Op, Size, TracedLayer, shuffle_layer
from ifspace.models.pixels import UPRIGHT, Arrangement, common_arrangement, grid_of, plain

Ids = npt.NDArray[np.int64]
Stride = tuple[Fraction, Fraction]
NO_STRIDE: Final = (Fraction(1), Fraction(1))
# The id where no channel stands: zeros that padding put there.
NO_CHANNEL: Final = -1
# Up to so many pixels of a channel may come from channels of their own: upsampling by 8 x 8.
MAX_CHANNELS_PER_PIXEL: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A tensor by the ids of its channels, [1, C, H, W] or in any other order and shape.

    `pooled`: it has one value for all pixels of a channel, or no pixels any more. `replay` repeats
    the operator on other values, such as the coordinates of pixels: it is called with a function
    that returns these values for each label that the operator read.
    """

    ids: Tensor
    pooled: bool = False
    replay: Callable[[Callable[["Label"], Tensor]], Tensor] | None = None

    @classmethod
    def of(cls, ids: Ids, axis: int, shape: Sequence[int], pooled: bool = False) -> "Label":
        """Return the label of a tensor whose channels lie along an axis.

        >>> Label.of(np.arange(2), 1, (1, 2, 4, 4)).ids.shape
        torch.Size([1, 2, 4, 4])
        """
        channels_only = [1] * len(shape)
        channels_only[axis] = len(ids)
        return cls(torch.from_numpy(ids).reshape(channels_only).expand(*shape), pooled)

    def axes(self) -> list[int]:
        """Return the axes along which the channels change, zeros between them ignored."""
        axes = []
        for axis in range(1, self.ids.dim()):
            ids = self.along(axis)
            if len(np.unique(ids[ids != NO_CHANNEL])) > 1:
                axes.append(axis)
        return axes

    def along(self, axis: int) -> Ids:
        """Return the ids along an axis, through the middle: padding lies at the borders."""
        line: list[int | slice] = [*self.middle()]
        line[axis] = slice(None)
        return self.ids[tuple(line)].numpy()

    def middle(self) -> tuple[int, ...]:
        """Return the element in the middle; the nearest with a channel, if padding lies there."""
        middle = tuple(size // 2 for size in self.ids.shape)
        if int(self.ids[middle]) != NO_CHANNEL:
            return middle
        present = (self.ids != NO_CHANNEL).nonzero()
        if not len(present):
            return middle
        distance = (present - torch.tensor(middle)).abs().sum(1)
        return tuple(present[int(distance.argmin())].tolist())

    def all_ids(self) -> Ids:
        """Return all ids that stand anywhere in it, each once."""
        ids: Ids = torch.unique(self.ids).numpy()
        channels: Ids = ids[ids != NO_CHANNEL]
        return channels


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A feature map as an operator reads it: its index, and how its pixels were rearranged.

    `arrangement`: None where every pixel sees all others. `shift`: how far (rows, columns) it was
    moved. `unknown`: whether it was rearranged in a way that is not known.
    """

    index: int
    arrangement: Arrangement | None
    shift: Size = (0, 0)
    unknown: bool = False


def has_no_pixels(shape: Sequence[int]) -> bool:
    """Return whether the tensor of one image has no pixels: [1, F] or [F].

    >>> has_no_pixels((1, 512)), has_no_pixels((1, 49, 512)), has_no_pixels((49, 512))
    (True, False, False)
    """
    return len(shape) < 2 or (len(shape) == 2 and shape[0] == 1)


def size_of(shape: Sequence[int], axis: int) -> Size:
    """Return the (height, width) of a tensor whose channels lie along an axis.

    Axes of 1 in front are left out; a line of pixels has height 1; further axes in front of two,
    such as windows, count as more rows.

    >>> size_of((1, 64, 7, 7), 1), size_of((1, 7, 64), -1), size_of((1, 64), 1)
    ((7, 7), (1, 7), (1, 1))
    >>> size_of((64, 7, 7, 96), -1)
    (448, 7)
    """
    sizes = [int(size) for index, size in enumerate(shape) if index != axis % len(shape)]
    rows = prod(sizes[:-1]) if len(sizes) > 1 else 1
    return rows, sizes[-1] if sizes else 1


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


class FeatureMaps:
    """The graph of feature maps while it grows, in the order in which they are written.

    `pooled`: the indices of those that have no pixels any more. `gates`: those that only scale or
    shift others. `passed`: the operators that keep a feature map as it is, counted. `notes`: what
    was not understood, each text once. `arrangements`: of the pixels of each. `uses`: those of the
    nodes that are added next. `columns`: for each that holds windows as channels, by index, what
    was cut into them.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.labels: list[Label] = []
        self.arrangements: list[Arrangement | None] = []
        self.uses: Mapping[str, int] = {}
        self.pooled: set[int] = set()
        self.columns: dict[int, Label] = {}
        self.gates: set[int] = set()
        self.passed: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        # Node i has the ids from _first_ids[i] on.
        self._first_ids: list[int] = []
        self._next_id = 0
        # By the id() of a label; the label is kept too, so that no other one gets its id().
        self._added: dict[int, tuple[int, int, Label]] = {}
        self._readings: dict[tuple[int, int], tuple[Reading, Label]] = {}

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
        """Add a feature map of a shape, channels along an axis, and return its label.

        Its pixels are not rearranged. `more`: other fields of its node.
        """
        axis %= len(shape)
        channels, first_id, index = shape[axis], self._next_id, len(self.nodes)
        self.nodes.append(
            Node(index, op, parents, channels, size_of(shape, axis), scope, uses=self.uses, **more)
        )
        everywhere = pooled or op in (Op.MIX, Op.GLOBAL)
        self.arrangements.append(None if everywhere else plain(grid_of(shape, axis)))
        self._first_ids.append(first_id)
        self._next_id += channels
        if pooled:
            self.pooled.add(index)
        label = Label.of(np.arange(first_id, first_id + channels), axis, shape, pooled)
        self._added[id(label)] = index, axis, label
        self.labels.append(label)
        return label

    def write(
        self,
        op: Op,
        read: Sequence[Reading],
        shape: tuple[int, ...],
        axis: int,
        scope: str,
        pooled: bool = False,
        padding: Size | None = (0, 0),
        **more: Any,
    ) -> Label:
        """Add a feature map that is computed from others, pixel by pixel or through a window.

        `padding`: above and on the left of what a window reads; None for a window whose place is
        not known. `more`: other fields of its node.
        """
        grid = grid_of(shape, axis)
        arranged = [reading for reading in read if reading.arrangement is not None]
        arrangement = arranged[0].arrangement if arranged else None
        unknown = any(reading.unknown for reading in read)
        shifts = [reading.shift for reading in read]
        for number, reading in enumerate(read):
            if arrangement is None or reading.arrangement is None:
                continue
            if "starts" in more:  # each has a grid of its own
                unknown |= not reading.arrangement.is_plain
                continue
            moved = arrangement.moved(reading.arrangement)
            if moved is None:
                unknown = True
            else:
                shifts[number] = shifts[number][0] + moved[0], shifts[number][1] + moved[1]
        window, dilation = more.get("window", (1, 1)), more.get("dilation", (1, 1))
        margins = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
        reach = None
        if max(margins) and padding is not None and arrangement is not None:
            ends = [(-before, wide - before) for before, wide in zip(padding, margins, strict=True)]
            reach = arrangement.reach(ends)
            unknown |= reach is None
        label = self.add(
            op,
            tuple(reading.index for reading in read),
            shape,
            axis,
            scope,
            pooled,
            shifts=tuple(shifts) if any(map(any, shifts)) else (),
            reach=reach,
            unknown=np.full(shape[axis], True) if unknown else None,
            **more,
        )
        written = self.nodes[-1]
        if arrangement is None:
            # Where every pixel sees all others, so it does in what is computed from them.
            if not written.changes_size:
                self.arrangements[-1] = None
            return label
        if written.changes_size:
            # Windows along the batch each change their size; what was turned would need new lines.
            if arrangement.is_plain or arrangement.steps() == UPRIGHT:
                return label
            kept = None
        else:
            kept = arrangement.cut(grid)
        if kept is not None:
            self.arrangements[-1] = kept
        elif not pooled:
            self.nodes[-1] = replace(written, unknown=np.full(shape[axis], True))
        return label

    def index(self, label: Label) -> int:
        """Return the index of the feature map that was added with a label."""
        return self._added[id(label)][0]

    def ids_of(self, index: int) -> Ids:
        """Return the ids of the channels of a feature map."""
        first_id = self._first_ids[index]
        return np.arange(first_id, first_id + self.nodes[index].channels)

    def count_ids(self) -> int:
        """Return how many ids there are."""
        return self._next_id

    def note(self, text: str) -> None:
        """Keep a note of what was not understood."""
        self.notes[text] = None

    def resolve(self, label: Label, axis: int | None = None, scope: str = "") -> int:
        """Return the index of the feature map that a label shows along an axis.

        Where channels were moved since they were written, the moves are added as a node.
        """
        return self.read(label, axis, scope).index

    def read(self, label: Label, axis: int | None = None, scope: str = "") -> Reading:
        """Return the feature map that a label shows along an axis, and how its pixels were moved.

        Where channels were moved since they were written, or pixels of some channels further than
        those of others, the moves are added as a node.
        """
        index, own_axis, _ = self._added.get(id(label), (None, None, None))
        if axis is None:
            axis = next(
                (candidate for candidate in (own_axis, *label.axes()) if candidate is not None), 1
            )
        axis %= label.ids.dim()
        if index is not None and axis == own_axis:
            return Reading(index, self.arrangements[index])
        key = id(label), axis
        if key not in self._readings:
            images = [] if index is not None else _different_images(label, axis)
            if images:
                reading = self._add_images(label, images, axis, scope)
            elif index is not None or label.axes() not in ([], [axis]):
                node = self._add_transposed(label, axis, scope)
                reading = Reading(node, self.arrangements[node])
            else:
                reading = self._add_moved(label, axis, scope)
            self._readings[key] = reading, label
        return self._readings[key][0]

    def repeats(self, label: Label, axis: int, along: int) -> bool:
        """Return whether the slices of a label along an axis are the same channels and pixels.

        `axis`: that of the channels. So are the branches of a batch, once each of them counts as
        all of them.
        """
        if axis == along or label.replay is None or label.axes() not in ([], [axis]):
            return False
        index, shifted = self.resolve(label, axis), label.ids.movedim(along, 0)
        frame = self.arrangements[index]
        owner = self._sources(label.along(axis))[0]
        if frame is None or len(owner) != 1 or not bool((shifted == shifted[:1]).all()):
            return False
        arrangement = self.arrangements[owner[0]]
        if arrangement is None:
            return False
        pixels = arrangement.taken(self._pixels(label, {}).movedim(along, 0).numpy())
        return bool((pixels == pixels[:1]).all())

    def owners(self, labels: Iterable[Label]) -> tuple[int, ...]:
        """Return the indices of the feature maps that labels show channels of, each once."""
        indices: dict[int, None] = {}
        for label in labels:
            added = self._added.get(id(label))
            indices |= dict.fromkeys(
                [added[0]] if added else self._sources(label.all_ids())[0],
            )
        return tuple(indices)

    def _add_images(self, label: Label, images: Sequence[int], axis: int, scope: str) -> Reading:
        """Add the union of the images of a batch that show different feature maps."""
        read = tuple(
            self.read(_part_of(label, 0, number, number + 1), axis, scope) for number in images
        )
        joined = self.write(Op.JOIN, read, tuple(label.ids.shape), axis, scope, label.pooled)
        index = self.index(joined)
        return Reading(index, self.arrangements[index])

    def _add_moved(self, label: Label, axis: int, scope: str) -> Reading:
        """Add what selected channels, and what left pixels out, as far as either did anything."""
        ids = label.along(axis)
        owners, sources = self._sources(ids)
        # What was pooled and then expanded over the pixels does not say how many pixels there are.
        largest = max(owners, key=lambda owner: prod(self.nodes[owner].size), default=0)
        source = self.nodes[largest]
        stride = self._stride(label, axis, source) if owners else NO_STRIDE
        # Where every channel stands once for each pixel of a stride, no pixel is left out.
        copies = set(np.unique(ids, return_counts=True)[1].tolist())
        whole = max(stride) > 1 and copies == {prod(stride)}
        window = (int(stride[0]), int(stride[1])) if whole else (1, 1)
        arrangement, shifts = self._moves(label, axis, owners, sources, stride)
        if whole:
            shifts = [(0, 0)] * len(shifts)
        present = [shifts[channel] for channel in np.flatnonzero(ids != NO_CHANNEL)]
        index, uniform = source.index, len(set(present)) < 2
        shift = next(iter(present), None) or (0, 0)
        unknown = uniform and present[:1] == [None]
        if (
            len(owners) != 1
            or not uniform
            or not np.array_equal(sources[:, 1], np.arange(source.channels))
        ):
            shape, channel_axis = tuple(label.ids.shape), axis
            if max(stride) > 1:
                shape, channel_axis = (1, len(ids), *source.size), 1
            more: dict[str, Any] = {}
            if not uniform:
                more["moved"] = np.array([shift or (0, 0) for shift in shifts])
                if None in shifts:
                    more["unknown"] = np.array([shift is None for shift in shifts])
                shift = (0, 0)
            index = self.index(
                self.add(
                    Op.MOVE,
                    owners,
                    shape,
                    channel_axis,
                    scope,
                    label.pooled,
                    sources=sources,
                    layer=self._shuffle(owners, sources, source, scope) if uniform else None,
                    **more,
                )
            )
            if max(stride) == 1:
                self.arrangements[index] = arrangement
        if max(stride) == 1 or label.pooled:
            return Reading(index, arrangement, shift, unknown)
        pooled = self.add(
            Op.POOL,
            (index,),
            tuple(label.ids.shape),
            axis,
            scope,
            window=window,
            stride=stride,
            reach=((0, window[0] - 1), (0, window[1] - 1)),
            shifts=(shift,) if any(shift) else (),
            unknown=np.full(len(ids), True) if unknown else None,
        )
        return Reading(self.index(pooled), self.arrangements[-1])

    def _moves(
        self, label: Label, axis: int, owners: Sequence[int], sources: Ids, stride: Stride
    ) -> tuple[Arrangement | None, list[Size | None]]:
        """Return the arrangement of the pixels of a label, and how far each channel was moved."""
        grid, channels = grid_of(label.ids.shape, axis), len(sources)
        if label.replay is None or label.pooled or not owners:
            everywhere = label.pooled or all(self.arrangements[own] is None for own in owners)
            return None if everywhere and owners else plain(grid), [(0, 0)] * channels
        pixels = self._pixels(label, {}).movedim(axis, 0)
        same = pixels.stride(0) == 0 or channels == 1
        rows = pixels[:1].reshape(1, -1) if same else pixels.reshape(channels, -1)
        rows_of_pixels: Ids = rows.numpy()
        if not same and (rows_of_pixels == rows_of_pixels[:1]).all():
            rows_of_pixels, same = rows_of_pixels[:1], True
        numbers: dict[tuple[int, bytes], int] = {}
        parts: list[tuple[Arrangement | None, Ids]] = []
        part_of = []
        texts = [row.tobytes() for row in rows_of_pixels]
        for channel in range(channels):
            parent = int(sources[channel, 0])
            if parent == NO_CHANNEL:
                part_of.append(-1)
                continue
            row = 0 if same else channel
            arrangement = self.arrangements[owners[parent]]
            key = id(arrangement), texts[row]
            if key not in numbers:
                numbers[key] = len(parts)
                parts.append((arrangement, rows_of_pixels[row].astype(np.int64)))
            part_of.append(numbers[key])
        whole_stride = int(stride[0]), int(stride[1])
        arrangement, moves = common_arrangement(parts, grid, whole_stride)
        return arrangement, [(0, 0) if part < 0 else moves[part] for part in part_of]

    def _stride(self, label: Label, axis: int, source: Node) -> Stride:
        """Return how far apart neighbouring pixels of a label lie in its feature map, in pixels.

        After a product of feature maps the axes of the pixels are unknown; of pixels in one line
        only their number is known.
        """
        old, new = source.size, size_of(label.ids.shape, axis)
        everywhere = self.arrangements[source.index] is None
        if old == new or label.pooled or label.replay is None or everywhere:
            return NO_STRIDE
        if label.ids.dim() != 4 or label.ids.shape[0] > 1 or min(old) == 1:
            if prod(old) <= prod(new):
                return NO_STRIDE
            return Fraction(1), Fraction(prod(old) // prod(new))
        ids = label.along(axis)
        first_id = self._first_ids[source.index]
        channel = np.flatnonzero((ids >= first_id) & (ids < first_id + source.channels))[0]
        pixels = self._pixels(label, {}).movedim(axis, 0)[channel, 0]
        strides = []
        for direction in (0, 1):
            line = pixels.select(1 - direction, pixels.shape[1 - direction] // 2)
            place = line % old[1] if direction else line // old[1]
            line = torch.where(line < 0, NO_CHANNEL, place)
            step = _usual_step(line.numpy()) or max(1, old[direction] // new[direction])
            strides.append(Fraction(step))
        return strides[0], strides[1]

    def _pixels(self, label: Label, known: dict[int, Tensor]) -> Tensor:
        """Return a label with the numbers of pixels instead of ids: row * width + column.

        `known`: the results so far, by the id() of a label.
        """
        if id(label) in known:
            return known[id(label)]
        added = self._added.get(id(label))
        if added is not None:
            _, axis, _ = added
            shape = list(label.ids.shape)
            shape[axis] = 1
            numbers = torch.arange(prod(shape), dtype=torch.int32)
            pixels = numbers.reshape(shape).expand(label.ids.shape)
        elif label.replay is None:
            pixels = torch.zeros_like(label.ids)
        else:
            pixels = label.replay(lambda source: self._pixels(source, known))
        known[id(label)] = pixels
        return pixels

    def before_windows(self, label: Label) -> Label:
        """Return a label as moves of what was cut into windows, where it is moves of windows."""
        owners = self.owners([label])
        cut = self.columns.get(owners[0]) if len(owners) == 1 else None
        if cut is None:
            return label
        windows = self.labels[owners[0]]

        def moved(tensor: Tensor) -> Tensor:
            return _replayed(label, {id(windows): tensor})

        try:
            ids = moved(cut.ids)
        except KeyError:
            return label
        return Label(ids, label.pooled, lambda values: moved(values(cut)))

    def _sources(self, ids: Ids) -> tuple[tuple[int, ...], Ids]:
        """Return the feature maps that ids belong to; for each id which of them, and the channel.

        The second value is [ids, 2], as in `Node.sources`.
        """
        nodes = np.searchsorted(self._first_ids, ids, side="right") - 1
        nodes[ids == NO_CHANNEL] = NO_CHANNEL
        owners = tuple(int(node) for node in np.unique(nodes) if node != NO_CHANNEL)
        sources = np.full((len(ids), 2), NO_CHANNEL)
        for parent, owner in enumerate(owners):
            owned = nodes == owner
            sources[owned, 0], sources[owned, 1] = parent, ids[owned] - self._first_ids[owner]
        return owners, sources

    def _shuffle(
        self, owners: tuple[int, ...], sources: Ids, source: Node, scope: str
    ) -> TracedLayer | None:
        """Return the layer of a selection of channels that is a channel shuffle."""
        if len(owners) != 1 or len(sources) != source.channels:
            return None
        groups = shuffle_groups(sources[:, 1])
        return None if groups is None else shuffle_layer(scope, len(sources), groups, source.size)

    def _add_transposed(self, label: Label, axis: int, scope: str) -> int:
        """Add a label whose channels have become pixels, or pixels channels.

        Feature maps that lie side by side are their union. After a pixel shuffle every channel is
        an upsampled union of channels. Anything else counts as if every pixel saw all others.
        """
        shape, parents = tuple(label.ids.shape), self.owners([label])
        if parents and all(
            self.arrangements[parent] is None and self.nodes[parent].op is not Op.GLOBAL
            for parent in parents
        ):
            # Everything sees everything, however it is rearranged, such as the heads of attention.
            return self.index(self.add(Op.MIX, parents, shape, axis, scope, label.pooled))
        channels, size = shape[axis], size_of(shape, axis)
        ids = label.ids.movedim(axis, 0).reshape(channels, -1).numpy()
        members = [np.unique(row) for row in ids]
        count = len(members[0])
        disjoint = len(np.unique(ids)) == channels * count
        equal = {len(row) for row in members} == {count}
        regions = _regions(label, axis) if len(parents) > 1 else []
        if regions:
            read = [self.read(region, axis, scope) for region, _ in regions]
            starts = tuple(start for _, start in regions)
            whole = self.write(Op.JOIN, read, shape, axis, scope, label.pooled, starts=starts)
            return self.index(whole)
        if (
            len(parents) != 1
            or not (disjoint and equal)
            or count > MAX_CHANNELS_PER_PIXEL
            or ids.min() == NO_CHANNEL
            or any(b > a for a, b in zip(size, self.nodes[parents[0]].size, strict=True))
        ):
            if not label.pooled:
                self.note("channels and pixels change places: each sees all others")
            return self.index(self.add(Op.MIX, parents, shape, axis, scope, label.pooled))
        old = self.nodes[parents[0]].size
        old_shape = (1, channels, *old)
        joined = tuple(
            self.resolve(Label.of(row, 1, old_shape, label.pooled), 1, scope)
            for row in np.stack(members, axis=1)
        )
        union = self.index(self.add(Op.JOIN, joined, old_shape, 1, scope, label.pooled))
        stride = Fraction(old[0], size[0]), Fraction(old[1], size[1])
        unknown = None if self._stays(label, axis, stride) else np.full(channels, True)
        return self.index(
            self.add(
                Op.RESIZE,
                (union,),
                shape,
                axis,
                scope,
                label.pooled,
                stride=stride,
                unknown=unknown,
            )
        )

    def _stays(self, label: Label, axis: int, stride: Stride) -> bool:
        """Return whether pixels that were channels lie where the pixel of the channels lay."""
        owner = self.nodes[self.owners([label])[0]]
        arrangement = self.arrangements[owner.index]
        if label.replay is None or label.pooled or arrangement is None:
            return True
        batch, height, width = grid_of(label.ids.shape, axis)
        rows, columns = (
            np.arange(size) * step.numerator // step.denominator
            for size, step in zip((height, width), stride, strict=True)
        )
        pixels = self._pixels(label, {}).movedim(axis, 0).reshape(-1, batch, height, width).numpy()
        expected = rows[:, None] * owner.size[1] + columns
        return arrangement.is_plain and bool((pixels == expected).all())


def _replayed(label: Label, known: dict[int, Tensor]) -> Tensor:
    """Return the operators of a label repeated on values that are known by the id() of a label.

    Raises: KeyError for one that it reads, and that is neither known nor moved from others.
    """
    if id(label) not in known:
        if label.replay is None:
            raise KeyError(id(label))
        known[id(label)] = label.replay(lambda source: _replayed(source, known))
    return known[id(label)]


def _different_images(label: Label, axis: int) -> list[int]:
    """Return the first image of a batch for each feature map that its images show, if several."""
    if axis == 0 or label.ids.shape[0] == 1 or label.ids.dim() < 3:
        return []
    line: list[int | slice] = [*label.middle()]
    line[0] = line[axis] = slice(None)
    lines = label.ids[tuple(line)].numpy()
    present = np.flatnonzero((lines != NO_CHANNEL).any(1))
    _, first = np.unique(lines[present], axis=0, return_index=True)
    images = sorted(present[first].tolist())
    return images if 1 < len(images) <= MAX_CHANNELS_PER_PIXEL else []


def _regions(label: Label, axis: int) -> list[tuple[Label, Size]]:
    """Return the feature maps that lie side by side in a label, and (row, column) where they begin.

    Nothing if they do not.
    """
    axes = label.axes()
    if label.ids.dim() != 4 or axis != 1 or label.ids.shape[0] > 1 or len(axes) != 2:
        return []
    if axes[0] != 1:
        return []
    along = axes[1]
    line: list[int | slice] = [*label.middle()]
    line[1] = line[along] = slice(None)
    columns = label.ids[tuple(line)].numpy().T
    changes = (np.flatnonzero((columns[1:] != columns[:-1]).any(1)) + 1).tolist()
    ends = zip([0, *changes], [*changes, len(columns)], strict=True)
    spans = [(start, end) for start, end in ends if (columns[start] != NO_CHANNEL).any()]
    kinds = {columns[start].tobytes() for start, _ in spans}
    if not 1 < len(spans) == len(kinds) <= MAX_CHANNELS_PER_PIXEL:
        return []
    return [
        (_part_of(label, along, start, end), (start, 0) if along == 2 else (0, start))
        for start, end in spans
    ]


def _part_of(label: Label, axis: int, start: int, end: int) -> Label:
    """Return the label of a part along an axis."""
    replay = label.replay

    def part(tensor: Tensor) -> Tensor:
        return tensor.narrow(axis, start, end - start)

    return Label(
        part(label.ids),
        label.pooled,
        None if replay is None else lambda values: part(replay(values)),
    )


def _usual_step(coordinates: Ids) -> int:
    """Return the commonest distance of neighbours; 0 where there are none.

    >>> _usual_step(np.array([NO_CHANNEL, 0, 2, 4, 1])), _usual_step(np.array([3]))
    (2, 0)
    """
    present = (coordinates[1:] != NO_CHANNEL) & (coordinates[:-1] != NO_CHANNEL)
    steps = np.abs(np.diff(coordinates))[present]
    return int(np.bincount(steps).argmax()) if len(steps) else 0
