"""The pairs of a tournament: a block of a front, and one that fails the field at its parameters.

The rule. *Passes*: a network of the front of a catalogue, written as the catalogue does; of more
than are asked for, those spread evenly over the front by parameters. *Fails*: a block of the same
enumeration (its kinds, group counts and overlaps at its width) with as many layers that write and
as many spatial ones, and as many parameters up to `MOST_APART`, of which at least one output sees
fewer channels than the block has. Shuffles are left out there: `RPW(g,0)` is `GPW(g)+SH(g)`. All
such blocks are listed, one for a network; which one fails against which block of the front is drawn
by a seed, none twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from random import Random
from typing import Final

from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.canonical import network_class
from ifspace.catalogue.design import Catalogue
from ifspace.catalogue.front import front_networks
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import ARGUMENT, SettingError
from ifspace.kinds import find_kind
from ifspace.reach import channel_field
from ifspace.values import whole_number

# By which share of its parameters a block may differ from the one that it stands against.
MOST_APART: Final = Fraction(2, 100)
MAX_PAIRS: Final = 1000


@dataclass(frozen=True)
class Contestant:
    """A block at the width of the tournament.

    >>> Contestant(Block.parse("DW+GPW(8)+GPW(8)"), 64).field
    8
    """

    block: Block
    channels: int

    def __str__(self) -> str:
        return str(self.block)

    @property
    def sized(self) -> SizedBlock:
        """The block at its width."""
        return self.block.at(self.channels)

    @cached_property
    def field(self) -> int:
        """Input channels that the output sees which sees fewest."""
        return channel_field(self.sized.layers)

    def field_of(self, copies: int) -> int:
        """Return the channel field of so many copies in a row."""
        return channel_field(Block(self.block.layers, copies).at(self.channels).layers)

    @property
    def params(self) -> int:
        """The number of weights of its layers."""
        return sum(layer.params for layer in self.sized.layers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers that write, spatial layers, parameters: what the blocks of a pair have alike."""
        convs = [layer.conv for layer in self.sized.layers if layer.conv.writes]
        return len(convs), sum(conv.spatial for conv in convs), self.params


@dataclass(frozen=True)
class Pair:
    """A block with the full field, and one without it at its parameters."""

    passes: Contestant
    fails: Contestant


def draw_pairs(catalogue: Catalogue, count: int, seed: int = 0) -> tuple[Pair, ...]:
    """Return the pairs of a tournament by the rule of this module, in the order of the front.

    Raises: SettingError for a catalogue that is no front of square blocks of one width, or more
        pairs than it has.
    """
    whole_number(count, "pairs", 1, MAX_PAIRS)
    setting = _setting_of(catalogue)
    front = [
        Contestant(design.block, setting.channels)
        for design, _ in front_networks(catalogue.designs)
    ]
    if count > len(front):
        raise SettingError.because(
            f"too many {ARGUMENT}",
            got=count,
            allowed=f"1 to {len(front)}: the front has as many networks",
            remedy="ask for fewer, or give another front",
            argument="pairs",
        )
    steps = max(1, count - 1)
    chosen = [front[round(index * (len(front) - 1) / steps)] for index in range(count)]
    draws, drawn, pairs = Random(seed), set[str](), []
    failing_by_shape: dict[tuple[int, ...], dict[str, Contestant]] = {}
    for passes in chosen:
        if passes.shape not in failing_by_shape:
            failing_by_shape[passes.shape] = failing_blocks(setting, passes)
        failing = failing_by_shape[passes.shape]
        left = [name for name in failing if name not in drawn]
        if not left:
            raise SettingError.because(
                "no block that fails the field",
                got=f"{passes}, of whose {len(failing)} all are drawn",
                allowed="one for each block of the front",
                remedy="ask for fewer, or give another front",
                argument="pairs",
            )
        name = draws.choice(left)
        drawn.add(name)
        pairs.append(Pair(passes, failing[name]))
    return tuple(pairs)


def failing_blocks(setting: EnumerationSetting, passes: Contestant) -> dict[str, Contestant]:
    """Return all blocks that may stand against one, by their network class, in a fixed order.

    Of several blocks that are one network the first in the canonical order is returned.
    """
    letters = [SizedLayer(layer, setting.channels, setting.channels) for layer in _layers(setting)]
    letters.sort(key=lambda letter: letter.layer.sort_key)
    blocks: dict[str, Contestant] = {}
    for chain in _chains(letters, passes):
        if channel_field(chain) < setting.channels:
            block = Block(tuple(letter.layer for letter in chain))
            contestant = Contestant(block, setting.channels)
            blocks.setdefault(network_class(contestant.sized), contestant)
    return dict(sorted(blocks.items(), key=lambda item: str(item[1])))


def _setting_of(catalogue: Catalogue) -> EnumerationSetting:
    first, *others = catalogue.settings
    square = (first.out_channels, first.bottleneck, first.repeats, first.stride, first.dims)
    if others or not first.front or square != (None, None, 1, 1, 2):
        raise SettingError.because(
            "catalogue of other blocks",
            got=f"{len(catalogue.settings)} settings, {'a' if first.front else 'no'} front",
            allowed="the front of one width, without a bottleneck, a stride or repeats",
            remedy="`ifspace enumerate --front --channels 64 --out FILE.parquet` writes one",
            argument="catalogue",
        )
    return first


def _layers(setting: EnumerationSetting) -> Iterator[Layer]:
    """Yield every layer that writes, of the kinds, groups and overlaps of an enumeration."""
    for kind in setting.kinds:
        row = find_kind(kind)
        if not row.writes:
            continue
        for groups in row.group_counts(setting.channels, setting.channels):
            for overlap in setting.overlaps if row.takes_overlap else [None]:
                kernel = setting.kernel if row.spatial else None
                yield Layer(kind, groups, overlap, kernel)


def _chains(letters: Sequence[SizedLayer], passes: Contestant) -> Iterator[tuple[SizedLayer, ...]]:
    """Yield the chains with the layers, the spatial layers and about the parameters of a block."""
    writing, all_spatial, params = passes.shape
    low, high = params * (1 - MOST_APART), params * (1 + MOST_APART)
    least = min(letter.params for letter in letters)

    def longer(
        chain: tuple[SizedLayer, ...], spatial: int, params: int
    ) -> Iterator[tuple[SizedLayer, ...]]:
        left = writing - len(chain)
        if not left:
            if spatial == 0 and params >= low:
                yield chain
            return
        for letter in letters:
            more = params + letter.params
            if letter.conv.spatial <= spatial and more + (left - 1) * least <= high:
                yield from longer((*chain, letter), spatial - letter.conv.spatial, more)

    yield from longer((), all_spatial, 0)
