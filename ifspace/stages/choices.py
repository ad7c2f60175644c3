"""The blocks that stages choose from: those listed, types of stages, widths inside, and fronts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from ifspace.catalogue.dataset import load
from ifspace.errors import SettingError
from ifspace.stages.defaults import BOTTLENECKS, EXPANSIONS, INNER_BLOCKS
from ifspace.stages.layout import INVERTED, PLAIN, RESIDUAL
from ifspace.stages.problem import BlockChoice
from ifspace.values import choice

CATALOGUE: Final = ".parquet"
# Each is tried at every pair of widths of every stage.
MAX_BLOCKS: Final = 64


@dataclass(frozen=True, slots=True)
class StageType:
    """A block and how it is joined, by the name that users know it by."""

    block: str
    joined: str


# The names are those of `defaults.TYPES`.
TYPES: Final = {
    "plain": StageType("CONV", PLAIN),
    "basic": StageType("CONV+CONV", RESIDUAL),
    "bottleneck": StageType("PW+CONV+PW", RESIDUAL),
    "inverted": StageType(INNER_BLOCKS["expansions"], INVERTED),
}


@dataclass(frozen=True, slots=True)
class Inside:
    """How wide blocks may be inside: several of each, or None for what is usual.

    `expansions` are ratios of the width that enters a block, `bottlenecks` of the width that leaves
    it, where below 1, or channels.
    """

    expansions: tuple[Fraction, ...] | None = None
    bottlenecks: tuple[Fraction, ...] | None = None

    def of(self, block: BlockChoice) -> Iterator[BlockChoice]:
        """Yield a block with every width that it may have inside."""
        if not block.has_inner:
            yield block
            return
        if self.expansions is None and self.bottlenecks is None:
            yield block
        for expansion in self.expansions or ():
            yield block.expanded(expansion)
        for width in self.bottlenecks or ():
            if width < 1:
                yield replace(block, bottleneck=width)
            else:
                yield replace(block, bottleneck=None, inner=int(width))

    def typed(self, name: str) -> "Inside":
        """Return the widths inside that a type of stage has: its own kind of them."""
        if name == "inverted":
            return Inside(self.expansions or tuple(map(Fraction, EXPANSIONS)))
        if name == "bottleneck":
            return Inside(None, self.bottlenecks or tuple(map(Fraction, BOTTLENECKS)))
        return Inside()


def offered(
    blocks: Sequence[str], types: Sequence[str], inside: Inside, kernel: int
) -> tuple[BlockChoice, ...]:
    """Return what a stage may choose from, each once; a block may be the name of a catalogue.

    >>> inside = Inside(expansions=(Fraction(1), Fraction(6)))
    >>> [str(choice) for choice in offered(["CONV"], ["inverted"], inside, 3)]
    ['CONV', 'DW+PW with expansion 1, inverted', 'PW+DW+PW with expansion 6, inverted']

    Raises: SettingError for an unknown type, for widths inside where no block has them, and for a
        catalogue with too many blocks; BlockError for a block that cannot be read.
    """
    listed = [choice for text in blocks for choice in _parsed(text, kernel)]
    choices = [wide for block in listed for wide in inside.of(block)]
    for name in types:
        choice(name, "types", TYPES)
        kind = TYPES[name]
        block = replace(BlockChoice.parse(kind.block, kernel), type=kind.joined)
        choices += inside.typed(name).of(block)
    return tuple(dict.fromkeys(choices))


def _parsed(text: str, kernel: int) -> Iterable[BlockChoice]:
    """Return the block of a text, or those of the catalogue that it names."""
    if not text.lower().endswith(CATALOGUE):
        return [BlockChoice.parse(text, kernel)]
    designs = load(Path(text)).designs
    choices = dict.fromkeys(
        BlockChoice.of(design.block, design.bottleneck, full=True)
        for design in designs
        if design.dims == 2
    )
    if len(choices) > MAX_BLOCKS:
        raise SettingError.because(
            "a catalogue with too many blocks to choose from",
            got=f"{len(choices):,} in {Path(text).name}",
            allowed=f"at most {MAX_BLOCKS}",
            remedy="choose some: `ifspace best FILE --top 20` lists them",
            argument="blocks",
        )
    return choices


def check_inside(choices: Iterable[BlockChoice], inside: Inside) -> None:
    """Check that widths inside were asked for where some block has them.

    Raises: SettingError.
    """
    for name, kind, usual in (
        ("expansions", "expansion", INNER_BLOCKS["expansions"]),
        ("bottlenecks", "bottleneck", INNER_BLOCKS["bottlenecks"]),
    ):
        if getattr(inside, name) is None or any(
            getattr(c, kind) is not None or (kind == "bottleneck" and c.inner is not None)
            for c in choices
        ):
            continue
        raise SettingError.because(
            "widths inside blocks that have none",
            got=f"--{name} for {', '.join(dict.fromkeys(str(c.composition) for c in choices))}",
            allowed="blocks with two channel-mixing layers or more",
            remedy=f"offer {usual}",
            argument=name,
        )
