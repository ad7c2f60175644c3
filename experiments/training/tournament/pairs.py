"""The pairs of a tournament: a block of a front, and one of the same layers that fails the field.

The rule. *Passes*: a network of the front of a catalogue, written as the catalogue does; of more
than are asked for, those spread evenly over the front by parameters. *Fails*: a block of the same
enumeration (its kinds, group counts and overlaps at its width) whose layers have the kernel sizes
and the parameters of the other's, layer by layer, but read other channels, so that at least one
output sees fewer channels than the block has: `DW+GPW(8)+GPW(8)` against `DW+RPW(8,0)+GPW(8)`.
Shuffles are left out there: `RPW(g,0)` is `GPW(g)+SH(g)`. Of all such networks it is the one of
whose blocks so many as a stage has in a row see fewest channels, then one block; of equal ones the
first by its notation, none twice. A block of the front that has none, as DW+PW, takes no part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
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

MAX_PAIRS: Final = 1000
# Blocks in a row in a stage of the network.
DEPTH: Final = 2


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

    @cached_property
    def stage_field(self) -> int:
        """The same behind the blocks of a stage."""
        return channel_field(Block(self.block.layers, DEPTH).at(self.channels).layers)

    @property
    def params(self) -> int:
        """The number of weights of its layers."""
        return sum(layer.params for layer in self.sized.layers)

    @property
    def shape(self) -> tuple[tuple[int, int], ...]:
        """Kernel size and parameters of each layer that writes: the blocks of a pair share it."""
        return tuple(map(_shape_of, (x for x in self.sized.layers if x.conv.writes)))


@dataclass(frozen=True)
class Pair:
    """A block with the full field, and one without it of the same layers."""

    passes: Contestant
    fails: Contestant


def pairs_of(catalogue: Catalogue, count: int) -> tuple[Pair, ...]:
    """Return the pairs of a tournament by the rule of this module, in the order of the front.

    Raises: SettingError for a catalogue that is no front of square blocks of one width, or more
        pairs than it has.
    """
    whole_number(count, "pairs", 1, MAX_PAIRS)
    setting = _setting_of(catalogue)
    front = [
        (passes, failing)
        for design, _ in front_networks(catalogue.designs)
        for passes in [Contestant(design.block, setting.channels)]
        if (failing := failing_blocks(setting, passes))
    ]
    if count > len(front):
        raise SettingError.because(
            f"too many {ARGUMENT}",
            got=count,
            allowed=f"1 to {len(front)}: as many blocks of the front have another that fails",
            remedy="ask for fewer, or give another front",
            argument="pairs",
        )
    steps = max(1, count - 1)
    chosen = [front[round(index * (len(front) - 1) / steps)] for index in range(count)]
    pairs: list[Pair] = []
    for passes, failing in chosen:
        left = [one for one in failing if all(pair.fails.block != one.block for pair in pairs)]
        if not left:
            raise SettingError.because(
                "no block that fails the field",
                got=f"{passes}, of whose {len(failing)} all are taken",
                allowed="one for each block of the front",
                remedy="ask for fewer, or give another front",
                argument="pairs",
            )
        pairs.append(Pair(passes, left[0]))
    return tuple(pairs)


def failing_blocks(setting: EnumerationSetting, passes: Contestant) -> list[Contestant]:
    """Return all blocks that may stand against one, those that see fewest channels first.

    Of several blocks that are one network the first in the canonical order is returned.
    """
    letters = [SizedLayer(layer, setting.channels, setting.channels) for layer in _layers(setting)]
    letters.sort(key=lambda letter: letter.layer.sort_key)
    options = [[x for x in letters if _shape_of(x) == shape] for shape in passes.shape]
    blocks: dict[str, Contestant] = {}
    for chain in product(*options):
        if channel_field(chain) < setting.channels:
            block = Block(tuple(letter.layer for letter in chain))
            contestant = Contestant(block, setting.channels)
            blocks.setdefault(network_class(contestant.sized), contestant)
    return sorted(blocks.values(), key=lambda one: (one.stage_field, one.field, str(one)))


def _shape_of(layer: SizedLayer) -> tuple[int, int]:
    return layer.kernel, layer.params


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
