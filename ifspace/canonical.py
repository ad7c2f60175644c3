"""The canonical class of a block: which blocks are one network, up to the order of channels.

The network of a block is a layered graph: the channels that enter it and those after every layer,
and an edge from each channel that an output reads, coloured by the kernel size of the layer. A
shuffle writes nothing and is contracted: the layer after it reads the channels that the shuffle
took. Two blocks are the same network when their graphs are isomorphic by a map that keeps layers:
then weights can be copied from one to the other so that both compute the same, up to the order of
their input and of their output channels.

Such a graph has an edge for every weight of a pixel, 10^5 of them in a wide block. What is labelled
here is a quotient with the same isomorphisms:

- Outputs of a layer that read the same channels share a *window*. Inputs that the same windows read
  are a *class*. Neither depends on how channels are numbered, so that an isomorphism of the layered
  graphs maps windows to windows and classes to classes, and who reads whom is known from classes,
  windows and the pairs of them. A dense layer has one window and one class.
- Channels between two layers that are written by the same window and are in the same class can be
  exchanged by an isomorphism that moves nothing else: of such a set only the size matters.
- A layer each of whose outputs reads one input, and no two the same (DW), matches the channels
  below and above it: an isomorphism is given on one side by what it is on the other. Both are one
  level, and the list of layers says where such a layer stands.

Levels, layers and sizes are in the colours of the quotient. Hence two blocks are the same network
if and only if their lists of layers (kernel size, matching or not) are equal and their quotients
isomorphic. BLISS (igraph) labels the quotient canonically, and the class is a digest of the
labelled graph. Quotients that are equal as they are written are labelled once.

The class is that of a block at stride 1. A stride sits on the first spatial layer, the same one in
both blocks unless a spatial kind has kernel size 1. Digests of different versions of igraph need
not agree.

Reference: T. Junttila, P. Kaski, "Engineering an efficient canonical labeling tool for large and
sparse graphs", ALENEX 2007.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ifspace.block import SizedBlock, SizedLayer
from ifspace.errors import BlockError

Indices = npt.NDArray[np.int64]

# How BLISS chooses the cell to split: of its six ways among the fastest on wide blocks.
_SPLITTING: Final = "flm"
_DIGEST_BYTES: Final = 16
# Where a level has more channels, vertices with the same neighbours are one: among many of them
# BLISS found no end, in blocks from 96 channels on. The classes of narrow blocks, whose labelling
# takes no time, stay what they were.
TWINS_TO: Final = 64


def network_class(sized: SizedBlock, fixed_ends: bool = False) -> str:
    """Return the canonical class of a block: equal for two blocks that are the same network.

    With `fixed_ends` a shortcut joins input and output: channel i that enters and channel i that
    leaves belong together, and the order of both may only be changed in the same way.

    >>> from ifspace.block import Block
    >>> rolling, shuffled = (
    ...     Block.parse(text).at(16) for text in ("RPW(4,0)+GC(4)", "GPW(4)+SH(4)+GC(4)")
    ... )
    >>> network_class(rolling) == network_class(shuffled)
    True
    >>> network_class(rolling) == network_class(Block.parse("GPW(4)+GC(4)").at(16))
    False

    Raises: BlockError for `fixed_ends` where the widths of input and output differ.
    """
    if fixed_ends and sized.channels != sized.out_channels:
        raise BlockError.because(
            "the ends of the block cannot be joined",
            got=f"{sized.channels} channels to {sized.out_channels}",
            allowed="equal widths",
            remedy="leave out fixed_ends",
        )
    return _digest(_Quotient.of(sized, fixed_ends))


def forget_classes() -> None:
    """Drop what is kept for more classes at the same widths: of wide blocks that is gigabytes."""
    for kept in (_wired, _level_between, _digest):
        kept.cache_clear()


def same_network(one: SizedBlock, other: SizedBlock) -> bool:
    """Return whether two blocks are one network, their ends free: whether their classes are equal.

    Quicker than two classes where the blocks differ in the sizes of sets of equal channels.

    >>> from ifspace.block import Block
    >>> same_network(Block.parse("SH(2)+DW+PW").at(8), Block.parse("DW+PW").at(8))
    True
    """
    quotients = [_Quotient.of(sized, fixed_ends=False) for sized in (one, other)]
    if quotients[0].invariant != quotients[1].invariant:
        return False
    return quotients[0] == quotients[1] or _digest(quotients[0]) == _digest(quotients[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Mixing:
    """A layer by its windows: which class each input is in, which window each output reads.

    `counts`: how many classes and windows there are, numbered as they first occur, and the bytes of
    the pairs of a class and a window that reads it, [n, 2], in ascending order.
    """

    inputs: Indices
    outputs: Indices
    counts: tuple[int, int, bytes]


def _mixing(layer: SizedLayer) -> _Mixing:
    reads = layer.reads()
    if reads.strides[0] == 0:  # one row for all outputs
        windows, outputs = reads[:1], np.zeros(layer.c_out, dtype=np.int64)
    else:
        reads = np.sort(reads, axis=1)
        firsts, outputs = _numbered(reads)
        windows = reads[firsts]
    readers = np.zeros((layer.c_in, len(windows)), dtype=bool)
    readers[windows, np.arange(len(windows))[:, None]] = True
    firsts, inputs = _numbered(np.packbits(readers, axis=1))
    pairs = np.argwhere(readers[firsts]).tobytes()
    return _Mixing(inputs, outputs, (len(firsts), len(windows), pairs))


def _numbered(rows: npt.NDArray[Any]) -> tuple[Indices, Indices]:
    """Return where each distinct row occurs first, and for every row the number of its like."""
    numbers: dict[bytes, int] = {}
    of_row = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows])
    return np.unique(of_row, return_index=True)[1], of_row


def _matching(layer: SizedLayer) -> Indices | None:
    """Return the input of each output, if every input is that of exactly one output."""
    if layer.fan_in != 1 or layer.changes_width:
        return None
    inputs = layer.reads()[:, 0].astype(np.int64)
    return inputs if len(np.unique(inputs)) == layer.c_in else None


@dataclass(frozen=True, slots=True, eq=False)
class _Wired:
    """A layer as it is wired: a matching, as the input of each output, or else by its windows.

    `about`: its kernel size and whether it is a matching; empty for a layer that writes nothing.
    """

    about: tuple[tuple[int, bool], ...]
    matching: Indices
    mixing: _Mixing | None


# What is made of several layers is looked up by these: each is equal to itself alone, and to
# compare and hash them takes no time.
@lru_cache(maxsize=4096)
def _wired(layer: SizedLayer) -> _Wired:
    matching = _matching(layer)
    about = ((layer.kernel, matching is not None),) if layer.conv.writes else ()
    if matching is None:
        return _Wired(about, np.empty(0, np.int64), _mixing(layer))
    return _Wired(about, matching, None)


@dataclass(frozen=True, slots=True)
class _Quotient:
    """The graph to be labelled, as values that can be compared and hashed.

    `layers` has for each layer its kernel size and whether it is a matching; `mixings` for each
    mixing layer `_Mixing.counts`. `levels` has the channels before each mixing layer and after the
    last: bytes of rows (window that writes them, class that they are in, number of channels),
    [n, 3], in ascending order, with -1 for the window of what enters the block and the class of
    what leaves it. With fixed ends the first level is the last one too.
    """

    dims: int
    fixed_ends: bool
    layers: tuple[tuple[int, bool], ...]
    mixings: tuple[tuple[int, int, bytes], ...]
    levels: tuple[bytes, ...]

    @classmethod
    def of(cls, sized: SizedBlock, fixed_ends: bool) -> Self:
        """Return the quotient of a block."""
        layers = tuple(map(_wired, sized.layers))
        mixers: list[_Mixing] = []
        # Before each mixing layer and after the last.
        matchings: list[tuple[_Wired, ...]] = [()]
        for layer in layers:
            if layer.mixing is None:
                matchings[-1] += (layer,)
            else:
                mixers.append(layer.mixing)
                matchings.append(())
        return cls(
            sized.dims,
            fixed_ends,
            tuple(about for layer in layers for about in layer.about),
            tuple(mixing.counts for mixing in mixers),
            tuple(_levels(sized.channels, mixers, matchings, fixed_ends)),
        )

    @property
    def invariant(self) -> tuple[Any, ...]:
        """What equal networks have equal: layers, numbers of windows, sizes on each level."""
        sizes = tuple(tuple(sorted(_rows(level, 3)[:, 2].tolist())) for level in self.levels)
        return self.dims, self.layers, tuple(x[:2] for x in self.mixings), sizes


def _levels(
    channels: int,
    mixers: list[_Mixing],
    matchings: list[tuple[_Wired, ...]],
    fixed_ends: bool,
) -> list[bytes]:
    if not mixers:
        # Joined ends make cycles of the wiring, and their lengths are all there is to know.
        none = np.full(channels, -1)
        wiring = _wiring(channels, matchings[0])
        return [_level(_cycle_lengths(wiring) if fixed_ends else none, none)]
    inner = [
        _level_between(below, wired, above)
        for (below, above), wired in zip(pairwise(mixers), matchings[1:-1], strict=True)
    ]
    first, last = mixers[0], mixers[-1]
    if not fixed_ends:
        return [
            _level_between(None, (), first),
            *inner,
            _level_between(last, matchings[-1], None),
        ]
    leaving = last.outputs[_wiring(len(last.outputs), matchings[-1])]
    class_of_channel = np.empty_like(first.inputs)
    class_of_channel[_wiring(channels, matchings[0])] = first.inputs
    return [_level(leaving, class_of_channel), *inner]


def _wiring(channels: int, matchings: tuple[_Wired, ...]) -> Indices:
    """Return for each channel behind layers that match channels the one before them that it is."""
    wiring = np.arange(channels)
    for layer in matchings:
        wiring = wiring[layer.matching]
    return wiring


# The blocks of a catalogue are put together from some ten thousand of these.
@lru_cache(maxsize=1 << 14)
def _level_between(
    below: _Mixing | None, matchings: tuple[_Wired, ...], above: _Mixing | None
) -> bytes:
    """Return the level between two mixing layers, or of an open end, where one of them is None."""
    classes = windows = None
    if above is not None:
        classes = above.inputs
    if below is not None:
        windows = below.outputs[_wiring(len(below.outputs), matchings)]
    if windows is None:
        windows = np.full_like(classes, -1)
    return _level(windows, np.full_like(windows, -1) if classes is None else classes)


def _level(windows: Indices, classes: Indices) -> bytes:
    # One number for a pair sorts faster than rows do; -1 is the first of both.
    base = int(classes.max()) + 2
    codes, sizes = np.unique((windows + 1) * base + classes + 1, return_counts=True)
    return np.column_stack([codes // base - 1, codes % base - 1, sizes]).tobytes()


def _cycle_lengths(permutation: Indices) -> Indices:
    """Return for each index the length of the cycle that it is in.

    >>> _cycle_lengths(np.array([1, 0, 2])).tolist()
    [2, 2, 1]
    """
    lengths = np.zeros(len(permutation), dtype=np.int64)
    for start in range(len(permutation)):
        if not lengths[start]:
            cycle = [start]
            while (after := int(permutation[cycle[-1]])) != start:
                cycle.append(after)
            lengths[cycle] = len(cycle)
    return lengths


@lru_cache(maxsize=1 << 16)
def _digest(quotient: _Quotient) -> str:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    about = (quotient.dims, quotient.fixed_ends, quotient.layers)
    if not quotient.mixings:
        digest.update(repr((about, quotient.levels)).encode())
        return digest.hexdigest()
    from igraph import GraphBase  # without the attributes that Graph looks for

    coloured = _Coloured.of(quotient)
    vertices: list[Any] = coloured.colours
    pairs = np.concatenate(coloured.edges)
    if max(int(_rows(level, 3)[:, 2].sum()) for level in quotient.levels) > TWINS_TO:
        vertices, pairs = _without_twins(vertices, pairs)
    palette = sorted(set(vertices))
    numbers = {colour: number for number, colour in enumerate(palette)}
    colours = [numbers[colour] for colour in vertices]
    graph = GraphBase(len(colours), np.ascontiguousarray(pairs).data)
    # Vertex n of the labelled graph is vertex order[n] of this one: `Graph.permute_vertices` would
    # make the same of it, but takes as long as the labelling.
    order = np.array(graph.canonical_permutation(sh=_SPLITTING, color=colours))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    labels = [colours[vertex] for vertex in order.tolist()]
    digest.update(repr((about, coloured.sizes, palette, labels)).encode())
    labelled = np.sort(place[pairs], axis=1)
    digest.update(labelled[np.lexsort(labelled.T)].tobytes())
    return digest.hexdigest()


def _without_twins(colours: list[Any], edges: Indices) -> tuple[list[Any], Indices]:
    """Return a graph with one of all vertices with the same neighbours and colour.

    How many there were is in its colour. Two such graphs are isomorphic if and only if those with
    all vertices are: twins can be exchanged, and an isomorphism maps twins to twins.
    """
    neighbours: list[list[int]] = [[] for _ in colours]
    for one, other in edges.tolist():
        neighbours[one].append(other)
        neighbours[other].append(one)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for vertex, colour in enumerate(colours):
        alike.setdefault((colour, *sorted(neighbours[vertex])), []).append(vertex)
    numbers = np.full(len(colours), -1)
    firsts = [vertices[0] for vertices in alike.values()]
    numbers[firsts] = np.arange(len(firsts))
    ends = numbers[edges]
    counted = [(colours[vertices[0]], len(vertices)) for vertices in alike.values()]
    return counted, ends[(ends >= 0).all(axis=1)]


_CLASS, _WINDOW, _CHANNELS = range(3)


@dataclass(slots=True)
class _Coloured:
    """A quotient as a graph: a colour for each vertex, edges as rows of two vertices.

    Vertices are the classes and the windows of each mixing layer; where no two windows share an
    input, a window and its class are one. The channels of a level are edges from their window to
    their class, if they are as many as is least on that level (`sizes`), else a vertex on such an
    edge. The channels of an open end are in the colour of their class or window. The level of
    joined ends has a vertex for all its channels, and the layer above it one for each class and for
    each window: an edge there would not show which way it goes.
    """

    colours: list[tuple[int, ...]] = field(default_factory=list)
    edges: list[Indices] = field(default_factory=lambda: [np.empty((0, 2), np.int64)])
    sizes: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, quotient: _Quotient) -> Self:
        """Return the graph of a quotient with a mixing layer."""
        graph = cls()
        levels = [_rows(level, 3) for level in quotient.levels]
        first, last = (0, len(quotient.mixings) - 1) if not quotient.fixed_ends else (None, None)
        vertices = [
            graph._add_layer(
                number,
                mixing,
                entering=levels[0][:, 2] if number == first else np.zeros(mixing[0], np.int64),
                leaving=levels[-1][:, 2] if number == last else np.zeros(mixing[1], np.int64),
                apart=quotient.fixed_ends and number == 0,
            )
            for number, mixing in enumerate(quotient.mixings)
        ]
        for number, (classes, _) in enumerate(vertices):
            if number != first:
                windows = vertices[number - 1][1]
                graph._add_level(number, levels[number], windows, classes, apart=number == 0)
        return graph

    def _add(self, layer: int, role: int, sizes: Indices) -> Indices:
        start = len(self.colours)
        self.colours += [(layer, role, size) for size in sizes.tolist()]
        return np.arange(start, len(self.colours))

    def _join(self, below: Indices, above: Indices) -> None:
        self.edges.append(np.column_stack([below, above]))

    def _add_layer(
        self,
        number: int,
        mixing: tuple[int, int, bytes],
        entering: Indices,
        leaving: Indices,
        apart: bool,
    ) -> tuple[Indices, Indices]:
        """Add a mixing layer; return the vertices of its classes and of its windows."""
        of_class, of_window = _rows(mixing[2], 2).T
        disjoint = np.array_equal(of_class, np.arange(len(entering))) and np.array_equal(
            np.sort(of_window), np.arange(len(leaving))
        )
        if disjoint and not apart:
            start = len(self.colours)
            self.colours += [
                (number, _CLASS, *sizes)
                for sizes in zip(entering.tolist(), leaving[of_window].tolist(), strict=True)
            ]
            classes = np.arange(start, len(self.colours))
            windows = np.empty_like(classes)
            windows[of_window] = classes
            return classes, windows
        classes = self._add(number, _CLASS, entering)
        windows = self._add(number, _WINDOW, leaving)
        self._join(classes[of_class], windows[of_window])
        return classes, windows

    def _add_level(
        self, number: int, level: Indices, windows: Indices, classes: Indices, apart: bool
    ) -> None:
        """Add the channels between the windows of the layer below and the classes above."""
        below, above, sizes = windows[level[:, 0]], classes[level[:, 1]], level[:, 2]
        least = int(sizes.min())
        self.sizes.append(least)
        plain = (sizes == least) & (not apart)
        self._join(below[plain], above[plain])
        channels = self._add(number, _CHANNELS, sizes[~plain])
        self._join(below[~plain], channels)
        self._join(channels, above[~plain])


def _rows(data: bytes, columns: int) -> Indices:
    return np.frombuffer(data, dtype=np.int64).reshape(-1, columns)
