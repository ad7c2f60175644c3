"""The best blocks of a catalogue at the widths asked for, groups solved anew where these differ.

A design of a catalogue is the cheapest block of its composition at the widths of the catalogue;
at others another choice of groups is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, cast, get_args

from ifspace.answer import Status
from ifspace.bench.blocks.baselines import Baseline
from ifspace.bench.blocks.cases import BASELINE, Candidate
from ifspace.block import (
    Block,
    Composition,
    SizedBlock,
)
from ifspace.catalogue.choose import ranked, trade_offs
from ifspace.catalogue.design import (
    Catalogue,
    Design,
)
from ifspace.catalogue.dominance import mark_dominated
from ifspace.catalogue.setting import (
    DEFAULT_OVERLAPS,
    Objective,
)
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.values import (
    MAX_WIDTH,
    whole_within,
)

PARETO: Final = "pareto"
BY: Final = ("params", "macs", "activations", PARETO)
# For the groups of one design.
LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the blocks stand: widths in channels, stride, side of the maps written, batch.

    Raises: SettingError for a number out of its range.
    """

    channels: int
    out_channels: int
    side: int
    batch: int = 1
    stride: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        for name, most in (
            ("channels", MAX_WIDTH),
            ("out_channels", MAX_WIDTH),
            ("side", None),
            ("batch", None),
        ):
            whole_within(getattr(self, name), name, 1, most)
        whole_within(self.stride, "stride", 1, 2)

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes [N, C, H, W] of what is read and of what is written."""
        before = self.side * self.stride
        return (
            (self.batch, self.channels, before, before),
            (self.batch, self.out_channels, self.side, self.side),
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be measured, best first, and what of the best could not be, with the reason."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    solved: int = 0


def first_place(catalogue: Catalogue, side: int, batch: int) -> Place:
    """Return the place of the catalogue's first design.

    Raises: SettingError for a catalogue without designs, or of sequences.
    """
    if not catalogue.designs or catalogue.designs[0].dims != 2:
        raise SettingError.because(
            "nothing of this catalogue can be measured",
            got=f"{catalogue.designs[0].dims} dimension" if catalogue.designs else "an empty one",
            allowed="designs of two dimensions",
            remedy="enumerate them with --dims 2",
        )
    first = catalogue.designs[0]
    stride = cast(Literal[1, 2], first.stride)
    return Place(first.channels, first.out_channels, side, batch, stride)


def select(catalogue: Catalogue, top: int, by: str, place: Place) -> Selection:
    """Return the best `top` designs by an amount, or of those that none beats in every amount.

    `by` "pareto": parameters, MACs, activations and layers are compared.

    Raises: SettingError for an unknown amount, or a catalogue of which nothing can be measured.
    """
    designs = designs_for(catalogue, place)
    candidates: list[Candidate] = []
    left_out: list[tuple[str, str]] = []
    for design in _ordered(designs, by):
        if len(candidates) == top:
            break
        try:
            candidates.append(at_place(design, place, by, overlaps_of(catalogue, design)))
        except IfspaceError as error:
            left_out.append((design.composition, str(error)))
    solved = sum(each.design is None for each in candidates)
    if solved:
        candidates.sort(key=lambda each: _amount(each, by))
    return Selection(tuple(candidates), tuple(left_out), solved)


def designs_for(catalogue: Catalogue, place: Place) -> list[Design]:
    """Return the designs that stand at a place or, where none does, those of the first place.

    Raises: SettingError for a catalogue of which nothing can be measured.
    """
    first_place(catalogue, place.side, place.batch)
    first = next((x for x in catalogue.designs if _is_at(x, place)), catalogue.designs[0])
    return [each for each in catalogue.designs if each.place == first.place]


def at_place(
    design: Design, place: Place, by: str, overlaps: tuple[Fraction, ...] = DEFAULT_OVERLAPS
) -> Candidate:
    """Return a design where it is to stand, its groups solved anew if they must be.

    Raises: IfspaceError when no choice of groups has the full field there.
    """
    if _is_at(design, place):
        sized = Block.parse(design.block).at(
            design.channels, design.out_channels, design.bottleneck
        )
        return Candidate(sized, place.side, place.batch, place.stride, design=design)
    inside = None if design.bottleneck is None else Fraction(design.bottleneck)
    return _solved(
        Composition.parse(design.composition), place, by, inside, design.kernel, overlaps
    )


def moved(candidate: Candidate, catalogue: Catalogue, place: Place, by: str) -> Candidate:
    """Return a design of a catalogue at another place, its groups solved anew.

    Raises: IfspaceError when no choice of groups has the full field there.
    """
    sized = candidate.sized
    kernels = [layer.kernel for layer in sized.layers if layer.conv.spatial]
    overlaps = overlaps_of(catalogue, catalogue.designs[0])
    return _solved(
        sized.block.composition, place, by, sized.bottleneck, max(kernels, default=3), overlaps
    )


def _solved(
    composition: Composition,
    place: Place,
    by: str,
    bottleneck: Fraction | None,
    kernel: int,
    overlaps: tuple[Fraction, ...],
) -> Candidate:
    objective = cast(Objective, by if by in get_args(Objective) else "params")
    problem = GroupsProblem(
        composition,
        place.channels,
        place.out_channels,
        bottleneck,
        kernel=kernel,
        overlaps=overlaps,
        objective=objective,
        stride=place.stride,
    )
    answer = cheapest_groups(problem, time_limit_s=LIMIT_S)
    if not answer.plans:
        late = answer.status is Status.UNKNOWN
        raise BlockError.because(
            "no groups with the full field" + (f" in {LIMIT_S:.0f} s" if late else ""),
            got=f"{composition} from {place.channels} to {place.out_channels}",
            allowed="widths with common divisors",
            remedy="choose other widths",
        )
    return sized_at(answer.plans[0].sized, place)


def sized_at(sized: SizedBlock, place: Place, provider: str = "catalogue") -> Candidate:
    """Return a block where it is to stand.

    Raises: BlockError when no layer can hold the stride.
    """
    sized.macs_per_pixel(place.stride)
    return Candidate(sized, place.side, place.batch, place.stride, provider)


def beside(baselines: Iterable[Baseline], place: Place) -> Selection:
    """Return the baselines at a place, and why those that do not fit there are left out."""
    found: list[Candidate] = []
    left_out: list[tuple[str, str]] = []
    for each in baselines:
        try:
            sized = each.make(place.channels, place.out_channels)
            found.append(sized_at(sized, place, f"{BASELINE}: {each.title}"))
        except IfspaceError as error:
            left_out.append((each.title, str(error)))
    return Selection(tuple(found), tuple(left_out))


def _is_at(design: Design, place: Place) -> bool:
    own = design.channels, design.out_channels, design.stride, design.dims
    return own == (place.channels, place.out_channels, place.stride, 2)


def _ordered(designs: Sequence[Design], by: str) -> Sequence[Design]:
    if by == PARETO:
        return [design for design, _ in trade_offs(mark_dominated(designs))]
    if by not in BY:
        raise SettingError.because(
            "unknown amount",
            got=repr(by),
            allowed=", ".join(BY),
            remedy="choose one of them",
            argument="by",
        )
    return ranked(designs, by)


def _amount(candidate: Candidate, by: str) -> int:
    amounts = {
        "macs": candidate.sized.macs_per_pixel,
        "activations": candidate.sized.activations_per_pixel,
    }
    return amounts[by](candidate.stride) if by in amounts else candidate.sized.params


def overlaps_of(catalogue: Catalogue, design: Design) -> tuple[Fraction, ...]:
    """Return the overlap ratios that a design was enumerated with."""
    for setting in catalogue.settings:
        if (setting.channels, setting.out_width) == (design.channels, design.out_channels):
            return setting.overlaps
    return DEFAULT_OVERLAPS
