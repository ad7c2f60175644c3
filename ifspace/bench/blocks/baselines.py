"""The blocks with a name that all others are measured beside, at the same widths in and out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from ifspace.block import (
    Block,
    Composition,
    SizedBlock,
)
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups

# [ShuffleNet] Table 1 has these group counts; three are those of its title.
SHUFFLE_GROUPS: Final = (3, 4, 2, 8)
# [ResNeXt] Table 1, 32x4d: groups of four channels, at most so many.
RESNEXT_WIDTH: Final = 4
RESNEXT_GROUPS: Final = 32
# [MobileNetV2] Table 2, t: how much wider than the input it is inside.
EXPANSION: Final = 6


@dataclass(frozen=True, slots=True)
class Baseline:
    """A block with a name: `make` sizes it between two widths."""

    name: str
    title: str
    reference: str
    make: Callable[[int, int], SizedBlock]


def _plain(text: str, bottleneck: Fraction | None = None) -> Callable[[int, int], SizedBlock]:
    def make(channels: int, out_channels: int) -> SizedBlock:
        return Block.parse(text).at(channels, out_channels, bottleneck)

    return make


def _clcnet(channels: int, out_channels: int) -> SizedBlock:
    """Return the group convolutions with the cheapest group counts of full field."""
    problem = GroupsProblem(Composition.parse("GC+SH+GPW"), channels, out_channels)
    plans = cheapest_groups(problem).plans
    if not plans:
        raise BlockError.because(
            "no groups with the full field",
            got=f"GC+SH+GPW from {channels} to {out_channels}",
            allowed="widths with common divisors",
            remedy="choose other widths",
        )
    return plans[0].sized


def _shufflenet(channels: int, out_channels: int) -> SizedBlock:
    """Return the unit with a quarter of the width inside and the first group count that fits."""
    for groups in SHUFFLE_GROUPS:
        try:
            block = Block.parse(f"GPW({groups})+SH({groups})+DW+GPW({groups})")
            return block.at(channels, out_channels, Fraction(1, 4))
        except BlockError:
            continue
    raise BlockError.because(
        "no group count of ShuffleNet fits",
        got=f"widths {channels} and {out_channels}",
        allowed="widths divisible by 8 or 12",
        remedy="choose other widths",
    )


def _resnext(channels: int, out_channels: int) -> SizedBlock:
    inside = out_channels // 2
    groups = max(1, min(RESNEXT_GROUPS, inside // RESNEXT_WIDTH))
    return Block.parse(f"PW+GC({groups})+PW").at(channels, out_channels, Fraction(1, 2))


def _inverted(channels: int, out_channels: int) -> SizedBlock:
    """Return the residual with six times the width that enters inside, a multiple of F there."""
    inside = Fraction(EXPANSION * channels, out_channels)
    return Block.parse("PW+DW+PW").at(channels, out_channels, inside)


BASELINES: Final = tuple(
    Baseline(*each)
    for each in (
        ("conv", "CONV(3)", "what a block replaces", _plain("CONV")),
        ("dw+pw", "MobileNet", "[3DRF] 4.2, block B", _plain("DW+PW")),
        ("shufflenet", "ShuffleNet unit", "Zhang et al. 2018, Fig. 2", _shufflenet),
        ("clcnet", "clcNet", "[3DRF] 4.2, block C, once", _clcnet),
        ("resnext", "ResNeXt bottleneck", "Xie et al. 2017, Table 1", _resnext),
        ("inverted", "inverted residual", "Sandler et al. 2018, Table 1", _inverted),
    )
)
NAMES: Final = tuple(each.name for each in BASELINES)


def find_baselines(names: Iterable[str]) -> tuple[Baseline, ...]:
    """Return baselines by their names; a block in the notation is one, too.

    >>> [each.title for each in find_baselines(["Conv", "gc(4)+pw"])]
    ['CONV(3)', 'GC(4)+PW']

    Raises: SettingError for what is neither a name nor a block.
    """
    known = {each.name: each for each in BASELINES}
    found: dict[str, Baseline] = {}
    for name in names:
        if name.lower() in known:
            found[name.lower()] = known[name.lower()]
            continue
        try:
            text = str(Block.parse(name))
        except IfspaceError as error:
            raise SettingError.because(
                "no such baseline",
                got=repr(name),
                allowed=f"{', '.join(NAMES)}, blocks such as GC(4)+PW",
                remedy=f"choose among these ({str(error).partition(':')[0]})",
                argument="baselines",
            ) from None
        found[text] = Baseline(text.lower(), text, "asked for", _plain(text))
    return tuple(found.values())
