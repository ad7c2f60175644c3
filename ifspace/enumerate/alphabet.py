"""The alphabet of a search: letters, and the widths at which a block is followed.

A *letter* is a kind in one role, with every legal choice of its parameters. What a layer may
choose, costs and connects depends only on the widths around it and on whether it runs before the
stride. So a composition is a sequence of letters, and layers that connect each channel to itself
and have no parameters to choose (DW) drop out of that sequence: they do nothing in the channel
dimension, wherever they stand. The channel letters of DW+RPW+SH+GPW are those of RPW+SH+GPW+DW.

A composition may have to be followed at several widths at once: these are its *tracks*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

import numpy as np

from ifspace.block import Block, Layer, place_widths
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.bits import BitRows, pack
from ifspace.enumerate.timed import UNKNOWN_PS, LayerTimes
from ifspace.errors import SettingError
from ifspace.kinds import KINDS, ConvKind, step

# A composition: the symbols of its kinds, from the first layer to the last.
Kinds = tuple[str, ...]
# A sequence of letters: their indices in `Alphabet.letters`.
Letters = tuple[int, ...]
# A choice for a sequence of letters: the index of each one's option.
Choice = tuple[int, ...]
# Input and output width of a layer, in channels.
Widths = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Track:
    """Widths at which a block is followed: input, output and bottleneck, in channels."""

    c_in: int
    c_out: int
    inner: int | None


@dataclass(frozen=True, slots=True)
class Tracks:
    """The widths at which the copies of a block are followed, and what is decided on which.

    `all`: the distinct ones. `decides`: indices of those on which the rule decides, for the first
    copy and for the others. `real`: indices of those that the block really has, or None where they
    are the same; on them the block must have the full field again, and nothing more.
    """

    all: tuple[Track, ...]
    decides: tuple[int, int]
    real: tuple[int, int] | None


def tracks_of(setting: EnumerationSetting) -> Tracks:
    """Return the widths to follow: the rule decides at width C, or with a bottleneck at its own."""
    c, f, k = setting.channels, setting.out_width, setting.inner_width
    first, later = Track(c, f, k), Track(f, f, k)
    if k is None and c != f:
        real = (first,) if setting.repeats == 1 else (first, later)
        return Tracks((Track(c, c, None), *real), (0, 0), (1, len(real)))
    if setting.repeats == 1 or c == f:
        return Tracks((first,), (0, 0), None)
    return Tracks((first, later), (0, 1), None)


# Roles of a layer in its block: before the first channel-mixing layer, that layer, between it and
# the last, the last, behind the last; and the only one, which is the first and the last.
BEFORE, FIRST, BETWEEN, LAST, BEHIND, ONLY = range(6)


def role_of(index: int, first: int, last: int) -> int:
    """Return the role of a layer, given the indices of the first and last channel-mixing layer."""
    if first == last == index:
        return ONLY
    if index <= first:
        return FIRST if index == first else BEFORE
    return BETWEEN if index < last else LAST if index == last else BEHIND


def role_widths(track: Track) -> tuple[Widths, ...]:
    """Return the input and output width of each role, in channels."""
    several = place_widths([False, True, False, True, False], track.c_in, track.c_out, track.inner)
    return *several, (track.c_in, track.c_out)


@dataclass(frozen=True, slots=True)
class LetterChoice:
    """One choice of a letter's parameters: its layer, its cost and its relation on every track.

    `least_fan_in`: the fewest channels that a filter reads in any copy of the block; None where the
    kind does not mix channels. `times`: picoseconds in all copies, in each form; empty where
    latency is no amount.
    """

    layer: Layer
    cost: int
    least_fan_in: int | None
    relations: tuple[int, ...]
    times: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Letter:
    """A kind in one role.

    `removable`: whether the block may do without it, in the first copy and in the others; never for
    spatial layers, which it always needs, nor for changes of width. `tested`: whether the rule
    compact tries to remove it alone. `neutral`: it
    connects every channel to itself and has nothing to choose. `differs`: it connects other
    channels at the block's real widths than where the rule decides. `fixed_cost`: the cost of a
    neutral letter. `activations`: elements written per output pixel of the block by all copies.
    `plain`: the kinds without groups that the layer becomes at trivial group counts.
    """

    kind: str
    removable: tuple[bool, bool]
    tested: tuple[bool, bool]
    neutral: bool
    differs: bool
    fixed_cost: int
    activations: int
    options: tuple[LetterChoice, ...]
    plain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Solution:
    """The cheapest choice of a sequence of letters that passes the rule, and its cost."""

    cost: int
    choice: Choice


@dataclass(frozen=True, slots=True)
class Point(Solution):
    """The choices of a sequence of letters that pass the rule and have the same amounts.

    `choice` is the first of those with the fewest overlapping layers, `cost` its cost.
    `least_fan_in`: the fewest channels that a filter of a channel-mixing layer reads; `count`: how
    many choices they are; `times`: the sums of the times of the letters, in each form.
    """

    least_fan_in: int
    count: int
    times: tuple[int, ...] = ()


K = TypeVar("K")
# What the choices of a state have in common in the search for points: their amounts, folded, their
# least fan-in and their times in each form. Empty where only the cheapest choice matters.
Amounts = tuple[int, ...]
# Fewest overlapping layers, first choice; their cost, the choice, and how many choices there are.
Entry = tuple[int, Choice, int]


def add_entry(states: dict[K, Entry], state: K, cost: int, choice: Choice, count: int) -> None:
    """Count more choices of a state; of all its choices the cheapest, first one stands for them."""
    before = states.get(state)
    if before is None:
        states[state] = (cost, choice, count)
    elif (cost, choice) < before[:2]:
        states[state] = (cost, choice, before[2] + count)
    else:
        states[state] = (*before[:2], before[2] + count)


def points_of(entries: Mapping[Amounts, Entry]) -> tuple[Point, ...]:
    """Return the points of choices that were counted by their amounts, fewest first."""
    return tuple(
        Point(cost, choice, least_fan_in, count, times)
        for (_, least_fan_in, *_), (cost, choice, count), times in sorted(
            (amounts, entry, amounts[2:]) for amounts, entry in entries.items()
        )
    )


# Sums of two costs must fit into 64 bits with a sign.
LARGEST_COST: Final = 1 << 61
# More channels than any filter reads.
NO_FAN_IN: Final = 1 << 30


class Alphabet:
    """The letters of one setting, each built when a composition first needs it.

    Costs are lexicographic, folded into one integer: the objective, then MACs, activations and
    parameters, then the number of layers whose windows overlap. Activations are the same for all
    choices of a composition and decide nothing.
    """

    def __init__(self, setting: EnumerationSetting, times: LayerTimes | None = None) -> None:
        """Prepare the tracks of the setting. `times`: where latency is an amount.

        Raises: SettingError when costs can be too large to compare exactly.
        """
        self.setting = setting
        self.times = times if times and times.forms else None
        # Whether all choices that pass are of interest, by their amounts, not the cheapest alone.
        self.of_points = setting.front or self.times is not None
        self.tracks = tracks_of(setting)
        self.letters: list[Letter] = []
        # The bit matrix of each relation, and the width of the layer that it reads.
        self.relations: list[BitRows] = []
        self.inputs: list[int] = []
        self._relation_index: dict[tuple[bytes, tuple[int, ...]], int] = {}
        self._letter_index: dict[tuple[str, tuple[Widths, ...], int], int] = {}
        self._role_index: dict[tuple[str, int, bool], int] = {}
        real = self.tracks.real or self.tracks.decides
        self._convs = dict(KINDS)
        self._mixing = frozenset(kind for kind, conv in KINDS.items() if conv.mixing)
        self._spatial = frozenset(kind for kind, conv in KINDS.items() if conv.spatial)
        self._widths = tuple(zip(*(role_widths(t) for t in self.tracks.all), strict=True))
        # Channel-mixing layers that the widths need: a bottleneck's two, or one to get from C to F.
        self._least_mixing = (
            2 if setting.bottleneck is not None else int(setting.out_channels is not None)
        )
        # Whether a kind costs and connects the same wherever it stands.
        widths = {pair for role in self._widths for pair in role}
        self.has_one_width = len(widths) == 1 and setting.stride == 1
        self._copies = (real[0],) + (real[1],) * (setting.repeats - 1)
        # Choices of a composition never differ in activations: there the next measure decides.
        self._macs_first = setting.objective not in ("params", "latency")
        # More than any sum of the second measure, if there is one. No more than one layer is
        # spatial, and the others run on stride ** dims times as many pixels at most.
        widest = max(max(t.c_in, t.c_out, t.inner or 0) for t in self.tracks.all)
        pixels = setting.stride**setting.dims
        layers = setting.kernel**setting.dims + pixels * (setting.max_len - 1)
        largest_sum = 1 + layers * widest**2 * setting.repeats
        self._base = largest_sum if setting.stride > 1 else 1
        # More than the layers whose windows can overlap, if any can: amounts are costs over it.
        self.overlaps = 1 + setting.max_len if any(setting.overlaps) else 1
        if largest_sum * self._base * self.overlaps >= LARGEST_COST:
            raise SettingError.because(
                "costs too large to compare exactly",
                got=f"{widest} channels, kernel {setting.kernel}, {setting.max_len} layers, "
                f"{setting.repeats} copies, stride {setting.stride}",
                allowed="amounts below 2**62, with a stride squares below it",
                remedy="choose smaller widths or shorter blocks",
            )

    def channel_letters(self, kinds: Kinds) -> Letters | None:
        """Return the letters of a composition that act on channels; None if widths do not fit."""
        letters = self.all_letters(kinds)
        if letters is None:
            return None
        return tuple(index for index in letters if not self.letters[index].neutral)

    def all_letters(self, kinds: Kinds) -> Letters | None:
        """Return the letter of every layer of a composition, the neutral ones too.

        None where the composition has too few channel-mixing layers for the widths.
        """
        mixing = [index for index, kind in enumerate(kinds) if kind in self._mixing]
        if len(mixing) < self._least_mixing:
            return None
        first, last = (mixing[0], mixing[-1]) if mixing else (len(kinds), 0)
        spatial = next((index for index, kind in enumerate(kinds) if kind in self._spatial), 0)
        letters = []
        for index, kind in enumerate(kinds):
            role = role_of(index, first, last)
            letter = self._role_index.get((kind, role, index < spatial))
            letters.append(self.letter(kind, role, index < spatial) if letter is None else letter)
        return tuple(letters)

    def letter(self, kind: str, role: int, before_stride: bool) -> int:
        """Return the index of the letter of a kind in a role, before or behind the stride."""
        index = self._role_index.get((kind, role, before_stride))
        if index is None:
            index = self._role_index[kind, role, before_stride] = self._add_letter(
                self._convs[kind], self._widths[role], before_stride
            )
        return index

    def least_cost(self, kind: str) -> int:
        """Return what the cheapest choice of a kind costs, in every role where there is one width.

        See `has_one_width`.
        """
        options = self.letters[self.letter(kind, BETWEEN, False)].options
        return min((option.cost for option in options), default=LARGEST_COST)

    def amount(self, cost: int) -> tuple[int, int]:
        """Return what a sum of costs stands for: the amounts, folded; the overlapping layers."""
        return divmod(cost, self.overlaps)

    def measures(self, cost: int) -> tuple[int, int]:
        """Return the parameters, and the MACs per output pixel, that a sum of costs stands for."""
        cost, _ = self.amount(cost)
        if self._base == 1:
            return cost, cost
        first, second = divmod(cost, self._base)
        return (second, first) if self._macs_first else (first, second)

    def start_amounts(self) -> Amounts:
        """Return the amounts of no layer; empty where only the cheapest choice matters."""
        if not self.of_points:
            return ()
        return 0, NO_FAN_IN, *(0 for _ in (self.times.forms if self.times else ()))

    def amounts(self, before: Amounts, cost: int, option: LetterChoice) -> Amounts:
        """Return the amounts with one more layer, given the cost with it."""
        if not before:
            return ()
        fan_in = min(before[1], option.least_fan_in or NO_FAN_IN)
        return self.joined((cost // self.overlaps, fan_in), before[2:], option.times)

    @staticmethod
    def joined(amounts: tuple[int, int], times: Sequence[int], others: Sequence[int]) -> Amounts:
        """Return amounts with the sums of two times in each form; what is not known stays so."""
        sums = (min(a + b, UNKNOWN_PS) for a, b in zip(times, others, strict=True))
        return *amounts, *sums

    def choice_of(self, letters: Letters, block: Block) -> Choice | None:
        """Return the choice that a block is of all letters of its composition.

        None where it has parameters that are none: a trivial group count, another overlap or
        kernel size, or what floors leave out.
        """
        choice = []
        for index, layer in zip(letters, block.layers, strict=True):
            letter = self.letters[index]
            layers = [option.layer for option in letter.options]
            if layer not in layers:
                return None
            choice += [] if letter.neutral else [layers.index(layer)]
        return tuple(choice)

    def _add_letter(self, conv: ConvKind, widths: tuple[Widths, ...], before_stride: bool) -> int:
        pixels = self.setting.stride**self.setting.dims if before_stride else 1
        key = (conv.symbol, widths, pixels)
        index = self._letter_index.get(key)
        if index is None:
            self.letters.append(self._build(conv, widths, pixels))
            index = self._letter_index[key] = len(self.letters) - 1
        return index

    def _times(
        self, conv: ConvKind, layer: Layer, real: list[Widths], pixels: int
    ) -> tuple[int, ...]:
        if self.times is None:
            return ()
        return self.times.layer(conv, layer, real, before_stride=pixels > 1)

    def _build(self, conv: ConvKind, widths: tuple[Widths, ...], pixels: int) -> Letter:
        # Trivial are the choices that change nothing at the block's real widths; where the rule
        # decides they need only be legal.
        real = [widths[track] for track in self._copies]
        choices = conv.common_choices(
            real,
            self.setting.overlaps,
            self.setting.orders,
            also=widths,
            may_copy=self.setting.bottleneck is None,
        )
        # Floors hold for the layers that the block really has.
        choices = self.setting.floors.of(conv, choices, real)
        kernel = self.setting.kernel if conv.spatial else None
        layers = [
            Layer(conv.symbol, groups, overlap, kernel, order) for groups, overlap, order in choices
        ]
        options = tuple(
            LetterChoice(
                layer,
                self._cost(conv, widths, pixels, groups or 1, overlap),
                min(conv.fan_in_at(c_in, groups or 1) for c_in, _ in real) if conv.mixing else None,
                tuple(
                    self._relation(conv.in_order(order), pair, groups or 1, overlap)
                    for pair in widths
                ),
                self._times(conv, layer, real, pixels),
            )
            for layer, (groups, overlap, order) in zip(layers, choices, strict=True)
        )
        first, later = (widths[track] for track in self.tracks.decides)
        removable = (
            not conv.spatial and first[0] == first[1],
            not conv.spatial and later[0] == later[1],
        )
        tested = conv.writes or self.setting.compact != "kernels"
        neutral = (
            conv.spatial
            and not conv.takes_groups
            and len(options) == 1
            and all(self._is_identity(relation) for relation in options[0].relations)
        )
        return Letter(
            conv.symbol,
            removable,
            removable if tested else (False, False),
            neutral,
            any(len(set(option.relations)) > 1 for option in options),
            options[0].cost if neutral else 0,
            self._activations(conv, widths, pixels),
            options,
            self._plain(conv, widths),
        )

    def _params(self, conv: ConvKind, widths: tuple[Widths, ...], groups: int) -> list[int]:
        kernel = self.setting.kernel if conv.spatial else 1
        return [
            conv.params_at(*widths[track], groups, kernel, self.setting.dims)
            for track in self._copies
        ]

    def _cost(
        self,
        conv: ConvKind,
        widths: tuple[Widths, ...],
        pixels: int,
        groups: int,
        overlap: Fraction | None,
    ) -> int:
        amounts = self._amounts(conv, widths, pixels, groups)
        return amounts * self.overlaps + bool(overlap)

    def _amounts(self, conv: ConvKind, widths: tuple[Widths, ...], pixels: int, groups: int) -> int:
        per_copy = self._params(conv, widths, groups)
        params = sum(per_copy)
        if self._base == 1:
            return params
        # Only the first copy has layers in front of the stride.
        macs = params + (pixels - 1) * per_copy[0]
        first, second = (macs, params) if self._macs_first else (params, macs)
        return first * self._base + second

    def _activations(self, conv: ConvKind, widths: tuple[Widths, ...], pixels: int) -> int:
        per_copy = [widths[track][1] * conv.writes for track in self._copies]
        return sum(per_copy) + (pixels - 1) * per_copy[0]

    def _relation(
        self, conv: ConvKind, widths: Widths, groups: int, overlap: Fraction | None
    ) -> int:
        c_in, c_out = widths
        stride = step(conv.fan_in_at(c_in, groups), overlap or Fraction(0))
        rows = pack(conv.reads(c_in, c_out, groups, stride), c_in)
        key = (rows.tobytes(), (c_out, c_in))
        index = self._relation_index.get(key)
        if index is None:
            self.relations.append(rows)
            self.inputs.append(c_in)
            index = self._relation_index[key] = len(self.relations) - 1
        return index

    def _is_identity(self, relation: int) -> bool:
        rows = self.relations[relation]
        identity = pack(np.arange(len(rows), dtype=np.int32)[:, None], len(rows))
        return bool(np.array_equal(rows, identity))

    def _plain(self, conv: ConvKind, widths: tuple[Widths, ...]) -> tuple[str, ...]:
        """Return the kinds without groups that the kind becomes at a trivial group count.

        Decided by comparing what they read and cost, so that a new kind needs no entry here.
        """
        symbols = []
        for groups in (1, widths[0][0]):
            legal = all(groups in conv.group_counts(*pair, trivial=True) for pair in widths)
            if not conv.takes_groups or not legal:
                continue
            for other in self._convs.values():
                if other.takes_groups or other.spatial != conv.spatial:
                    continue
                if not other.mixing and any(c_in != c_out for c_in, c_out in widths):
                    continue
                if self._params(conv, widths, groups) == self._params(other, widths, 1) and all(
                    self._relation(conv, pair, groups, None) == self._relation(other, pair, 1, None)
                    for pair in widths
                ):
                    symbols.append(other.symbol)
        return tuple(dict.fromkeys(symbols))
