"""What a chain computes: its stages, the channels that they read, and the definition in torch.

A chain is a small graph of convolutions that is computed in one pass: value 0 is the input, value
i the output of stage i. A stage reads windows of channels, as a rolling pointwise convolution
does, with a k x k kernel: so one description serves all kinds.

    PW     fan_in = step = C_in                GPW, GC   fan_in = step = C_in / g, blocked order
    DW     fan_in = step = 1, blocked order    RPW       fan_in = w, step = s, either order

Channel shuffles are index arithmetic: a stage may read its source shuffled (`shuffle_in`) and
write its own channels shuffled (`shuffle_out`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from json import dumps, loads
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ifspace.errors import KernelError
from ifspace.kernels.windows import ROLLING, is_grouped, read_channels, windows_at

Index = NDArray[np.int64]

# The most filters that are computed together, and the least number of times that the channels of a
# window are more than those by which the windows of such filters differ.
MOST_FILTERS: Final = 4
MOST_SHIFT: Final = 5
ACTIVATIONS: Final = ("relu", "relu6", "silu", "hardswish")


class Window(NamedTuple):
    """Channels [w] that are read together, and the filters that read them."""

    channels: Index
    filters: Index


class Family(NamedTuple):
    """Filters whose windows overlap as tiles of a roof do: all lie in one sequence of channels.

    Filter number i of `filters` reads `width` of the `channels`, from number `first[i]` on; `first`
    does not decrease. Filters of one window are a family as well.

        channels    0 1 2 3 4 5    with width 4, filters 7, 8 and 9, first 0, 1 and 2:
        filter 7    # # # #        channels 2 and 3 are read by all
        filter 8      # # # #
        filter 9        # # # #
    """

    channels: Index
    filters: Index
    first: Index
    width: int

    def parts(self) -> Iterator[slice]:
        """Yield which filters are computed together: four, two or one at a time.

        Those of several windows are where all read most of the channels that each reads.

        >>> [*Family(np.arange(11), np.arange(4), np.array([0, 1, 2, 3]), 8).parts()]
        [slice(0, 2, None), slice(2, 4, None)]
        """
        begin, count = 0, len(self.filters)
        while begin < count:
            size = next(
                size
                for size in (4, 2, 1)
                if begin + size <= count
                and MOST_SHIFT * (self.first[begin + size - 1] - self.first[begin]) <= self.width
            )
            yield slice(begin, begin + size)
            begin += size


@dataclass(frozen=True)
class Convolution(ABC):
    """A convolution as the compiled loops see it: filters that read windows of channels.

    The fields are those of `Stage`.
    """

    c_in: int
    c_out: int
    fan_in: int
    step: int
    order: str = ROLLING
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    shuffle_in: tuple[int, ...] = ()
    shuffle_out: tuple[int, ...] = ()
    source: int = -1
    residual: int | None = None
    activation: str | None = None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash, computed once: a convolution is a key of tables at every call."""
        return hash(tuple(getattr(self, row.name) for row in fields(self)))

    @property
    @abstractmethod
    def weights(self) -> int:
        """The number of weights."""

    @property
    @abstractmethod
    def windows(self) -> tuple[Window, ...]:
        """The channels that are read together, with the filters that read them.

        Windows that overlap follow on each other where that is possible.
        """

    @property
    @abstractmethod
    def first_weights(self) -> Index:
        """The place [C_out] of each filter's first weight in the flat weights."""

    @property
    @abstractmethod
    def weight_steps(self) -> Index:
        """The places [C_out] from one weight of a filter to its next."""

    @cached_property
    def rows(self) -> Index:
        """The channel [C_out] of the output in which each filter's results stand."""
        return np.argsort(shuffled_channels(self.c_out, self.shuffle_out))

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The windows, those of few filters joined with the next where they overlap at stride 1."""
        chains: list[list[tuple[int, Window]]] = []  # windows and how much further they begin
        for window in self.windows:
            shift = 0
            if chains and self.stride == 1:
                shift = _shift(chains[-1][-1][1], window)
            if not shift:
                chains.append([])
            chains[-1].append((shift, window))
        return tuple(map(_family, chains))

    @cached_property
    def together(self) -> int:
        """How many filters share what a block of the compiled loops reads, on average."""
        pairs = reads = 0
        for family in self.families:
            for part in family.parts():
                first, count = family.first[part], part.stop - part.start
                pairs += count * family.width
                reads += family.width + (count - 1) * int(first[-1] - first[0])
        return max(1, round(pairs / max(1, reads)))

    @property
    def is_pointwise(self) -> bool:
        """Whether a pixel of the output is computed from the same pixel of the source alone."""
        return self.kernel == self.stride == 1 and not self.padding

    @cached_property
    def is_depthwise(self) -> bool:
        """Whether every filter reads one channel, and no two the same."""
        return all(len(channels) == len(filters) == 1 for channels, filters in self.windows)

    def size_of(self, length: int) -> int:
        """Return the output's height or width for that of the source."""
        return (length + 2 * self.padding - self.kernel) // self.stride + 1


def _shift(last: Window, window: Window) -> int:
    """Return how much further than the last window of a family one begins; 0 if it does not fit."""
    (before, users), (channels, filters) = last, window
    if max(len(users), len(filters)) >= MOST_FILTERS or len(before) != len(channels):
        return 0
    shift = int(np.argmax(before == channels[0])) if len(channels) else 0
    return shift if shift and np.array_equal(before[shift:], channels[:-shift]) else 0


def _family(chain: list[tuple[int, Window]]) -> Family:
    """Return the family of windows that each begin some channels further than the one before."""
    (_, (channels, _)), *others = chain
    return Family(
        np.concatenate([channels, *(window.channels[-shift:] for shift, window in others)]),
        np.concatenate([window.filters for _, window in chain]),
        np.repeat(
            np.cumsum([shift for shift, _ in chain]), [len(window.filters) for _, window in chain]
        ),
        len(channels),
    )


@dataclass(frozen=True)
class Stage(Convolution):
    """One convolution of a chain, with what is added to it and applied to the sum.

    y[n, f] = activation(bias[f] + sum over t, i, j of weight[f, t, i, j] x[n, channel(f, t),
    s p + i - padding, s q + j - padding] + residual[n, f]), where channel(f, t) is `reads[f, t]`.

    `c_in`, `c_out`: channels. `fan_in`: channels that a filter reads, from one window to the next
    `step` channels (see `ifspace.kernels.windows`). `order`: "rolling" or "blocked". `kernel`,
    `stride` (s), `padding`: of both axes. `shuffle_in`: group counts of channel shuffles of the
    source, in the order in which they are applied; `shuffle_out`: of the output, behind bias,
    residual and activation. `source`: the value that is read, -1 for that of the stage before.
    `residual`: the value that is added, of the same shape as the output, or None; it is added
    before `shuffle_out`. `activation`: None, "relu", "relu6", "silu" or "hardswish".

    >>> Stage(4, 4, fan_in=2, step=2).reads.tolist()
    [[0, 1], [2, 3], [0, 1], [2, 3]]

    Raises: KernelError for windows that do not fit the channels, or values out of range.
    """

    __hash__ = Convolution.__hash__  # which a dataclass would replace

    def __post_init__(self) -> None:
        windows_at(self.c_in, self.c_out, self.fan_in, self.step, self.order)
        wrong = [
            name
            for name, fits in (
                ("kernel", self.kernel >= 1),
                ("stride", self.stride >= 1),
                ("padding", 0 <= self.padding < self.kernel),
                ("shuffle_in", _divide(self.shuffle_in, self.c_in)),
                ("shuffle_out", _divide(self.shuffle_out, self.c_out)),
                ("activation", self.activation in (None, *ACTIVATIONS)),
            )
            if not fits
        ]
        if wrong:
            raise KernelError.because(
                f"{wrong[0]} of a stage out of range",
                got=repr(getattr(self, wrong[0])),
                allowed="kernel and stride from 1, a padding below the kernel, group counts that "
                f"divide the channels, activations None, {', '.join(ACTIVATIONS)}",
                remedy="correct it",
            )

    @cached_property
    def is_grouped(self) -> bool:
        """Whether its filters read groups of channels, as those of torch's conv2d do."""
        groups = self.c_in // self.fan_in
        is_dense = self.step == self.c_in
        return is_dense or is_grouped(self.fan_in, self.step, groups, self.c_out, self.order)

    @cached_property
    def reads(self) -> Index:
        """The channels of the source [C_out, fan-in] that each filter reads."""
        reads: Index = shuffled_channels(self.c_in, self.shuffle_in)[self._places]
        return reads

    @cached_property
    def _places(self) -> Index:
        """The channels [C_out, fan-in] of the shuffled source that each filter reads."""
        places = read_channels(self.c_in, self.c_out, self.fan_in, self.step, None, self.order)
        return places.numpy()

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The channels that are read together, with the filters that read them."""
        places, users = np.unique(self._places, axis=0, return_inverse=True)
        order = np.argsort(users, axis=None, kind="stable")
        ends = np.cumsum(np.bincount(users.ravel(), minlength=len(places)))
        reads = shuffled_channels(self.c_in, self.shuffle_in)[places]
        return tuple(map(Window, reads, np.split(order, ends[:-1])))

    @cached_property
    def first_weights(self) -> Index:
        """The place [C_out] of each filter's first weight in the flat weights of the stage."""
        return np.arange(self.c_out) * (self.fan_in * self.kernel**2)

    @cached_property
    def weight_steps(self) -> Index:
        """The places from one weight of a filter to its next: they are adjacent."""
        return np.ones(self.c_out, dtype=np.int64)

    @property
    def weights(self) -> int:
        """The number of weights, C_out x fan-in x k x k."""
        return self.c_out * self.fan_in * self.kernel**2


@dataclass(frozen=True)
class InputGradient(Convolution):
    """The gradient by the source of a stage of stride 1, as a convolution; see `gradient_of`.

    Its source is the gradient by the output. Its filters are the stage's channels, and each reads
    the filters that read it, which need not be as many for all: `fan_in` is the most. Its kernel is
    turned around. Its weights are those of the stage in another order: `weight_order` [weights].
    """

    of: Stage | None = None

    __hash__ = Convolution.__hash__

    @property
    def weights(self) -> int:
        """The number of weights: that of the stage."""
        assert self.of is not None
        return self.of.weights

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The filters of the stage that are read together, with the channels that they read."""
        assert self.of is not None
        alike: dict[bytes, tuple[Index, list[int]]] = {}
        for channel, pairs in enumerate(self.pairs):
            readers = pairs // self.of.fan_in
            alike.setdefault(readers.tobytes(), (readers, []))[1].append(channel)
        return tuple(Window(readers, np.array(channels)) for readers, channels in alike.values())

    @property
    def first_weights(self) -> Index:
        """The place [C_in] of each channel's first weight in `weight_order`."""
        return self._layout[0]

    @property
    def weight_steps(self) -> Index:
        """The places [C_in] from one weight of a channel to its next."""
        return self._layout[1]

    @property
    def weight_order(self) -> Index:
        """The place [weights] in the stage's flat weights of each weight of this one.

        Channels that the same filters read have their weights for a filter side by side, as they
        are in the stage, where the weights of different filters are far apart.
        """
        return self._layout[2]

    @cached_property
    def weight_index(self) -> Tensor:
        """`weight_order` as a tensor."""
        return torch.from_numpy(self.weight_order)

    @cached_property
    def _layout(self) -> tuple[Index, Index, Index]:
        """`first_weights`, `weight_steps`, `weight_order`."""
        taps = np.arange(self.kernel**2)[::-1]
        first, steps = np.zeros((2, self.c_out), dtype=np.int64)
        orders, begin = [], 0
        for family in self.families:
            for part in family.parts():
                channels = family.filters[part]
                pairs = [(self.pairs[c][:, None] * len(taps) + taps).ravel() for c in channels]
                is_shifted = family.first[part.start] != family.first[part.stop - 1]
                order = np.stack(pairs, axis=0 if is_shifted else 1)
                steps[channels] = 1 if is_shifted else len(channels)
                first[channels] = begin + np.arange(len(channels)) * (
                    order.shape[1] if is_shifted else 1
                )
                orders.append(order.ravel())
                begin += order.size
        return first, steps, np.concatenate(orders)

    @cached_property
    def pairs(self) -> list[Index]:
        """For each channel the places in `reads`, flat, where a filter reads it.

        They are in the order of the filters' windows: the first is the one that begins the furthest
        before the channel.
        """
        assert self.of is not None
        reads = self.of.reads
        filters, places = np.indices(reads.shape)
        order = np.lexsort([filters.ravel(), -places.ravel(), reads.ravel()])
        counts = np.bincount(reads.ravel(), minlength=self.c_out)
        return np.split(order, np.cumsum(counts)[:-1])


@lru_cache(maxsize=512)
def gradient_of(stage: Stage) -> InputGradient:
    """Return the stage that computes the gradient by the source of a stage of stride 1.

    >>> stage = gradient_of(Stage(4, 2, fan_in=2, step=1))  # filters 0 1 and 1 2 of four channels
    >>> [readers.tolist() for readers, _ in stage.windows], stage.weight_order.tolist()
    ([[0], [0, 1], [1], []], [0, 1, 2, 3])
    """
    readers = np.bincount(stage.reads.ravel(), minlength=stage.c_in)
    return InputGradient(
        stage.c_out,
        stage.c_in,
        fan_in=max(1, int(readers.max())),
        step=1,
        kernel=stage.kernel,
        padding=stage.kernel - 1 - stage.padding,
        of=stage,
    )


@dataclass(frozen=True)
class Chain:
    """Stages that are computed in one pass; the last one's output is the result.

    Its weights are one float32 tensor, the stages' weights [C_out, fan-in, k, k] one after the
    other, and its biases another, the stages' [C_out] one after the other, or None.

    >>> depthwise = Stage(8, 8, 1, 1, "blocked", kernel=3, padding=1)
    >>> chain = Chain((depthwise, Stage(8, 16, fan_in=8, step=8, activation="relu")))
    >>> chain.weights, chain.biases, chain.shape_of((2, 8, 5, 7))
    (200, 24, (2, 16, 5, 7))
    >>> Chain.parse(chain.text) == chain
    True

    Raises: KernelError for no stage, or stages that do not follow on each other.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise KernelError.because(
                "a chain without a stage",
                got="none",
                allowed="one or more",
                remedy="give it a convolution",
            )
        channels = [self.stages[0].c_in]
        for number, stage in enumerate(self.stages, 1):
            source = self.source_of(number)
            if not 0 <= source < number or channels[source] != stage.c_in:
                self._raise_misfit(number, f"{stage.c_in} channels of value {source}")
            if stage.residual is not None and (
                not 0 <= stage.residual < number or channels[stage.residual] != stage.c_out
            ):
                self._raise_misfit(number, f"a residual of value {stage.residual}")
            channels.append(stage.c_out)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash, computed once: a chain is the key of its plans at every call."""
        return hash(self.stages)

    def _raise_misfit(self, number: int, read: str) -> None:
        raise KernelError.because(
            f"stage {number} of a chain does not fit",
            got=f"{read} in {self.stages}",
            allowed="values of earlier stages with as many channels",
            remedy="correct its source, residual or channels",
        )

    def source_of(self, number: int) -> int:
        """Return the value that stage `number` (from 1) reads."""
        source = self.stages[number - 1].source
        return number - 1 if source == -1 else source

    @property
    def weights(self) -> int:
        """The number of weights of all stages."""
        return sum(stage.weights for stage in self.stages)

    @property
    def biases(self) -> int:
        """The number of biases of all stages."""
        return sum(stage.c_out for stage in self.stages)

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the height and width of every value, the input first.

        Raises: KernelError where a stage has no output, or a residual another size.
        """
        sizes = [(height, width)]
        for number, stage in enumerate(self.stages, 1):
            h, w = (stage.size_of(length) for length in sizes[self.source_of(number)])
            if h < 1 or w < 1 or (stage.residual is not None and sizes[stage.residual] != (h, w)):
                raise KernelError.because(
                    f"stage {number} of a chain does not fit the input",
                    got=f"a map of {height}x{width}, {h}x{w} behind the stage",
                    allowed="maps that leave a pixel or more, residuals of the output's size",
                    remedy="give a larger input, or another stride or padding",
                )
            sizes.append((h, w))
        return sizes

    def shape_of(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Return the result's shape [N, C_out, H, W] for the input's."""
        n, _, height, width = shape
        return (n, self.stages[-1].c_out, *self.sizes(height, width)[-1])

    @cached_property
    def text(self) -> str:
        """The chain as JSON text, from which `parse` makes it again."""
        return dumps([asdict(stage) for stage in self.stages], separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the chain that a text describes."""
        rows: list[dict[str, Any]] = loads(text)
        shuffles = ("shuffle_in", "shuffle_out")
        return cls(
            tuple(Stage(**(row | {name: tuple(row[name]) for name in shuffles})) for row in rows)
        )

    def split(self, flat: Tensor, biases: bool = False) -> list[Tensor]:
        """Return the views of each stage in flat weights [C_out, fan-in, k, k], or in biases."""
        counts = [stage.c_out if biases else stage.weights for stage in self.stages]
        parts = torch.split(flat, counts)
        if biases:
            return list(parts)
        return [
            part.view(stage.c_out, stage.fan_in, stage.kernel, stage.kernel)
            for stage, part in zip(self.stages, parts, strict=True)
        ]


def shuffled_channels(channels: int, groups: Sequence[int]) -> Index:
    """Return which channel stands at each place behind channel shuffles.

    >>> shuffled_channels(6, (2,)).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    order = np.arange(channels, dtype=np.int64)
    for count in groups:
        order = order.reshape(count, channels // count).T.reshape(-1)
    return order


def reference(x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain) -> Tensor:
    """Return the result [N, C_out, H', W'] of a chain, stage by stage in eager torch.

    Every window is a gather and a sum: the definition, in any dtype. It is differentiable.
    """
    values = [x]
    by_stage = zip(
        chain.stages,
        chain.split(weights),
        [None] * len(chain.stages) if biases is None else chain.split(biases, biases=True),
        strict=True,
    )
    for number, (stage, weight, bias) in enumerate(by_stage, 1):
        source = values[chain.source_of(number)]
        windows = source[:, torch.from_numpy(stage.reads).view(-1)]
        y = F.conv2d(windows, weight, bias, stage.stride, stage.padding, groups=stage.c_out)
        y = y if stage.residual is None else y + values[stage.residual]
        y = y if stage.activation is None else getattr(F, stage.activation)(y)
        values.append(y[:, torch.from_numpy(shuffled_channels(stage.c_out, stage.shuffle_out))])
    return values[-1]


def _divide(groups: Sequence[int], channels: int) -> bool:
    return all(count >= 1 and channels % count == 0 for count in groups)
