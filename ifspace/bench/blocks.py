"""What is measured: a block at its widths, on maps of a side, under conditions that all share."""

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal, cast, get_args

import torch
from torch import Tensor

from ifspace.answer import Status
from ifspace.bench.machine import DTYPES
from ifspace.bench.rows import (
    LAYOUTS,
    MODES,
    Machine,
    Row,
)
from ifspace.block import Block, Composition, SizedBlock
from ifspace.catalogue.choose import ranked, trade_offs
from ifspace.catalogue.design import (
    Catalogue,
    Design,
    mark_dominated,
)
from ifspace.catalogue.setting import (
    DEFAULT_OVERLAPS,
    Objective,
)
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.nn.block import (
    BlockModule,
    build,
)
from ifspace.values import MAX_WIDTH, whole_number

CATALOGUE: Final = "catalogue"
BASELINE: Final = "baseline"
CALIBRATION: Final = "calibration: "
_FORMATS: Final = {LAYOUTS[0]: torch.channels_last, LAYOUTS[1]: torch.contiguous_format}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for all candidates of a run; `threads` are those of a CPU."""

    device: torch.device
    dtype: str
    layout: str = LAYOUTS[0]
    threads: int = 1
    style: str = "plain"
    modes: tuple[str, ...] = MODES
    compiled: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the tensors."""
        return DTYPES[self.dtype]

    def draw(self, *shape: int, seed: int = 0) -> Tensor:
        """Return random maps [N, C, H, W] in type and layout."""
        random = torch.Generator(self.device).manual_seed(seed)
        drawn = torch.randn(shape, generator=random, device=self.device)
        return self.lay(drawn.to(self.torch_dtype))

    def lay(self, maps: Tensor) -> Tensor:
        """Return maps in the layout."""
        return maps.contiguous(memory_format=_FORMATS[self.layout])

    def build(self, candidate: "Candidate", seed: int = 0) -> BlockModule:
        """Return the module of a candidate with fresh weights in type and layout."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build(
                candidate.sized, stride=candidate.stride, style=self.style, dtype=self.torch_dtype
            )
        placed = module.to(self.device)
        for weight in placed.parameters():
            if weight.dim() == 4:
                weight.data = self.lay(weight.data)
        return placed


# A block and its shapes, whatever it is measured for.
Key = tuple[str, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block that reads [batch, C, side * stride, ...] and writes [batch, F, side, side].

    `provider`: where it comes from. `design`: the row of a catalogue that it is, whose claims are
    checked. `calibrates`: it is measured for the latency model alone.
    """

    sized: SizedBlock
    side: int
    batch: int
    stride: int = 1
    provider: str = CATALOGUE
    design: Design | None = None
    calibrates: bool = False

    @property
    def name(self) -> str:
        """The block, and the width inside where that is not the one outside."""
        inside = self.sized.bottleneck
        return str(self.sized.block) + ("" if inside is None else f", bottleneck {inside}")

    @property
    def key(self) -> Key:
        """What it is, wherever it comes from."""
        return self.name, *self.shapes

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of input and output: blocks that have the same can stand in for each other."""
        return self.in_shape, self.out_shape

    @property
    def in_shape(self) -> tuple[int, int, int, int]:
        """[N, C, H, W] of the input."""
        return self.batch, self.sized.channels, self.side * self.stride, self.side * self.stride

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """[N, F, H, W] of the output."""
        return self.batch, self.sized.out_channels, self.side, self.side

    @property
    def macs(self) -> int:
        """The multiply-accumulates of a batch."""
        return self.sized.macs_per_pixel(self.stride) * self.batch * self.side**2

    def case(self, conditions: Conditions) -> str:
        """Return in words what the candidates that it is compared with share."""
        text = (
            f"{self.sized.channels} to {self.sized.out_channels} channels, side {self.side}, "
            f"stride {self.stride}, {conditions.style} style"
        )
        text = CALIBRATION + text if self.calibrates else text
        if conditions.device.type != "cpu":
            return text
        return f"{text}, {conditions.threads} thread{'s' * (conditions.threads > 1)}"

    def row(self, conditions: Conditions, mode: str, machine: Machine) -> Row:
        """Return the columns of a row that say what was measured on what."""
        batch, width, *sides = self.out_shape
        return {
            "case": self.case(conditions),
            "candidate": self.name,
            "provider": self.provider,
            "mode": mode,
            "dtype": conditions.dtype,
            "layout": conditions.layout,
            "N": batch,
            "C": self.sized.channels,
            "F": width,
            "H": sides[0],
            "W": sides[1],
            "metric": "",
            "unit": "",
            "median": "",
            "p20": "",
            "p80": "",
            "bound": "",
            "device": machine.device,
            "torch": machine.torch,
            "triton": machine.triton,
            "date": machine.date,
        }


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the numbers of the points that none beats, by the first amount and then the second.

    A point beats another that is no less in either amount and more in one; equal ones all stay.

    >>> front([(3, 1.0), (1, 4.0), (2, 4.0), (2, 2.0), (3, 1.0)])
    [1, 3, 0, 4]
    """
    order = sorted(range(len(points)), key=lambda number: (*points[number], number))
    found: list[int] = []
    for number in order:
        last = points[found[-1]] if found else None
        if last is None or points[number][1] < last[1] or points[number] == last:
            found.append(number)
    return found


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
            whole_number(getattr(self, name), name, 1, most)
        whole_number(self.stride, "stride", 1, 2)

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
    return [each for each in catalogue.designs if each.replaces == first.replaces]


def at_place(
    design: Design, place: Place, by: str, overlaps: tuple[Fraction, ...] = DEFAULT_OVERLAPS
) -> Candidate:
    """Return a design where it is to stand, its groups solved anew if they must be.

    Raises: IfspaceError when no choice of groups has the full field there.
    """
    if _is_at(design, place):
        return Candidate(design.sized, place.side, place.batch, place.stride, design=design)
    inside = None if design.bottleneck is None else Fraction(design.bottleneck)
    return _solved(design.block.composition, place, by, inside, design.kernel, overlaps)


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
    sized.strides(place.stride)
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


SEED: Final = 0
# Designs at the place asked for, and at each of the others.
HERE: Final = 40
ELSEWHERE: Final = 3
# Designs looked at for each at another place, where the widths may leave it no groups.
MOST_TRIED: Final = 3
# Kinds that few designs have or none.
ANCHORS: Final = ("CONV", "DW+PW")
ANCHOR: Final = "anchor"
MOST_PLACES: Final = 3
LEAST_WIDTH, MOST_WIDTH, LEAST_SIDE = 8, 1024, 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """Blocks to fit to, and a sample at the place asked for, held out in turn to judge by."""

    fit: tuple[Candidate, ...]
    sample: tuple[Candidate, ...]


def neighbours(place: Place) -> tuple[Place, ...]:
    """Return the places where networks go on from here: half or twice the width, and so on.

    >>> [(each.channels, each.side) for each in neighbours(Place(64, 64, 56))]
    [(32, 112), (128, 28), (256, 14)]
    """
    found = []
    for up, down in ((1, 2), (2, 1), (4, 1)):
        widths = place.channels * up, place.out_channels * up
        side = place.side * down // up
        whole = not any(each % down for each in widths) and place.side * down % up == 0
        fits = min(widths) // down >= LEAST_WIDTH and max(widths) // down <= MOST_WIDTH
        if whole and fits and side >= LEAST_SIDE:
            c_in, c_out = (each // down for each in widths)
            found.append(replace(place, channels=c_in, out_channels=c_out, side=side))
    return tuple(found)


def calibration(
    catalogue: Catalogue,
    place: Place,
    others: Sequence[Place],
    more: Sequence[Candidate] = (),
    but: frozenset[str] = frozenset(),
) -> Calibration:
    """Return what to measure for a model: a sample without the blocks named in `but`.

    `others`: more places to fit to; `more`: blocks to fit to beside the sample. All are timed
    again, in rounds that they share.
    """
    designs = designs_for(catalogue, place)
    drawn = random.Random(SEED).sample(designs, min(len(designs), 4 * HERE))
    but = but | {*ANCHORS, *(each.name for each in more)}
    here = [x for x in _first(drawn, place, catalogue, HERE + len(but)) if x.name not in but]
    places = list(others[:MOST_PLACES])
    anchors = [replace(x, provider=ANCHOR, design=None, calibrates=True) for x in more]
    fit = [*_anchors([place, *places]), *anchors]
    for number, other in enumerate(places):
        tried = drawn[number :: len(places)][: MOST_TRIED * ELSEWHERE]
        fit += _first(tried, other, catalogue, ELSEWHERE)
    once: dict[Key, Candidate] = {}
    for each in fit:
        once.setdefault(each.key, each)
    return Calibration(tuple(once.values()), tuple(here[:HERE]))


def _first(
    designs: Sequence[Design], place: Place, catalogue: Catalogue, count: int
) -> list[Candidate]:
    """Return so many designs at a place, of the first that have the full field there."""
    found: list[Candidate] = []
    for design in designs:
        if len(found) < count:
            with suppress(IfspaceError):
                moved = at_place(design, place, "params", overlaps_of(catalogue, design))
                found.append(replace(moved, calibrates=True))
    return found


def _anchors(places: Sequence[Place]) -> list[Candidate]:
    found = []
    for place in places:
        for text in ANCHORS:
            sized = Block.parse(text).at(place.channels, place.out_channels)
            found.append(replace(sized_at(sized, place), provider=ANCHOR, calibrates=True))
    return found
