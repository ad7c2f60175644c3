"""The list of blocks that are measured: the best of a catalogue, baselines, a sample for the model.

A design of a catalogue is the cheapest block of its composition at the widths of the catalogue; at
others its group counts are solved again.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal, cast, get_args

from ifspace.answer import Status
from ifspace.bench.case import BlockCandidate, BlockKey
from ifspace.block import Block, Composition, SizedBlock
from ifspace.canonical import network_class
from ifspace.catalogue.choose import ranked, trade_offs
from ifspace.catalogue.design import Catalogue, Design, mark_dominated, one_a_network
from ifspace.catalogue.setting import DEFAULT_OVERLAPS, Objective, rpw_order_of
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.floors import NO_FLOORS, Floors
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.measurements import BASELINE, CATALOGUE
from ifspace.values import MAX_BATCH, MAX_SIDE, MAX_WIDTH, whole_number

PARETO: Final = "pareto"
BY: Final = ("params", "macs", "activations", PARETO)
# For the group counts of one design.
TIME_LIMIT_S: Final = 20.0

# [ShuffleNet] Table 1 has these group counts; three are those of its title.
SHUFFLE_GROUPS: Final = (3, 4, 2, 8)
# [ResNeXt] Table 1, 32x4d: groups of four channels, at most so many.
RESNEXT_WIDTH: Final = 4
RESNEXT_GROUPS: Final = 32
# [MobileNetV2] Table 2, t: how much wider than the input it is inside.
EXPANSION: Final = 6

SEED: Final = 0
# Designs of the sample at the shape of the run, and at each of the others.
SAMPLE: Final = 40
SAMPLE_ELSEWHERE: Final = 3
# Designs tried for each of those elsewhere, where the widths may leave them no groups.
MAX_TRIED: Final = 3
MAX_SHAPES: Final = 3
# Blocks of kinds that few designs have, or none.
ANCHORS: Final = ("CONV", "DW+PW")
ANCHOR: Final = "anchor"
# The widths and sizes of the other shapes.
MIN_WIDTH: Final = 8
MAX_SAMPLE_WIDTH: Final = 1024
MIN_SIDE: Final = 4


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What blocks are measured at: widths, side of the output feature map, batch, stride.

    Raises: SettingError for a number out of its range.
    """

    channels: int
    out_channels: int
    side: int
    batch: int = 1
    stride: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        for name, largest in (
            ("channels", MAX_WIDTH),
            ("out_channels", MAX_WIDTH),
            ("side", MAX_SIDE),
            ("batch", MAX_BATCH),
        ):
            whole_number(getattr(self, name), name, 1, largest)
        whole_number(self.stride, "stride", 1, 2)

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes [N, C, H, W] of input and output."""
        in_side = self.side * self.stride
        return (
            (self.batch, self.channels, in_side, in_side),
            (self.batch, self.out_channels, self.side, self.side),
        )


def parse_shape(text: str, batch: int) -> BlockShape:
    """Parse CxFxSIDE or CxFxSIDExSTRIDE.

    >>> parse_shape("64x128x28x2", batch=16)
    BlockShape(channels=64, out_channels=128, side=28, batch=16, stride=2)

    Raises: SettingError for anything else.
    """
    numbers = text.lower().replace("×", "x").split("x")
    if len(numbers) not in (3, 4) or not all(x.isascii() and x.isdigit() for x in numbers):
        raise SettingError.because(
            "no such shape",
            got=repr(text),
            allowed="CxFxSIDE or CxFxSIDExSTRIDE",
            remedy="write 64x128x28x2",
            argument="predict",
        )
    channels, out_channels, side, *stride = map(int, numbers)
    return BlockShape(channels, out_channels, side, batch, *stride)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Selection:
    """Blocks to measure, best first; those left out, and why; how many were solved again.

    `same`: designs passed over because they are the network of a better one.
    """

    candidates: tuple[BlockCandidate, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    solved: int = 0
    same: int = 0


def catalogue_shape(catalogue: Catalogue, side: int, batch: int) -> BlockShape:
    """Return the shape of the catalogue's first design, at a side and batch.

    Raises: SettingError for a catalogue without designs, or of one dimension.
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
    return BlockShape(first.channels, first.out_channels, side, batch, stride)


def select(
    catalogue: Catalogue, top: int, by: str, shape: BlockShape, every_row: bool = False
) -> Selection:
    """Return the `top` best designs by an amount: of those that are one network, one.

    `by` "pareto": those that no other dominates in parameters, MACs, activations and layers. With
    `every_row` designs that are the same network are all there.

    Raises: SettingError for an unknown amount, or a catalogue of which nothing can be measured.
    """
    candidates: list[BlockCandidate] = []
    left_out: list[tuple[str, str]] = []
    same = 0
    networks: set[str] = set()
    for design, others in _networks(designs_for(catalogue, shape), by, every_row):
        if len(candidates) == top:
            break
        try:
            candidate = design_at(design, shape, by, *choices_of(catalogue, design))
        except IfspaceError as error:
            left_out.append((design.composition, str(error)))
            continue
        # With groups solved again, networks that differ at home can be one.
        network = network_class(candidate.sized)
        if network in networks and not every_row:
            same += 1 + others
            continue
        networks.add(network)
        same += others
        candidates.append(candidate)
    solved = sum(candidate.design is None for candidate in candidates)
    if solved:
        candidates.sort(key=lambda candidate: _amount(candidate, by))
    return Selection(tuple(candidates), tuple(left_out), solved, same)


def _networks(designs: Sequence[Design], by: str, every_row: bool) -> Iterator[tuple[Design, int]]:
    """Yield the designs to measure, best first, and how many others are the same network."""
    if every_row:
        yield from ((design, 0) for design in _ordered(designs, by))
        return
    rows = one_a_network(designs)
    others = {design.block: len(members) for design, members in rows}
    for design in _ordered([design for design, _ in rows], by):
        yield design, others[design.block]


def designs_for(catalogue: Catalogue, shape: BlockShape) -> list[Design]:
    """Return the designs enumerated at a shape or, where there are none, at that of the first.

    Raises: SettingError for a catalogue of which nothing can be measured.
    """
    catalogue_shape(catalogue, shape.side, shape.batch)
    first = next(
        (design for design in catalogue.designs if is_at(design, shape)), catalogue.designs[0]
    )
    return [design for design in catalogue.designs if design.replaces == first.replaces]


def is_at(design: Design, shape: BlockShape) -> bool:
    """Return whether a design was enumerated at the widths and stride of a shape."""
    own = design.channels, design.out_channels, design.stride, design.dims
    return own == (shape.channels, shape.out_channels, shape.stride, 2)


def design_at(
    design: Design,
    shape: BlockShape,
    by: str,
    overlaps: tuple[Fraction, ...] = DEFAULT_OVERLAPS,
    floors: Floors = NO_FLOORS,
) -> BlockCandidate:
    """Return a design at a shape, its groups solved again where it was enumerated at another one.

    `overlaps`, `floors`: of these groups, as of `choices_of`.

    Raises: IfspaceError when no group counts have the full field there.
    """
    if is_at(design, shape):
        return BlockCandidate(design.sized, shape.side, shape.batch, shape.stride, design=design)
    return _solved(design.block, shape, by, design.bottleneck, design.kernel, overlaps, floors)


def reshaped(
    candidate: BlockCandidate, catalogue: Catalogue, shape: BlockShape, by: str
) -> BlockCandidate:
    """Return a design of a catalogue at another shape, its groups solved again.

    One of a front keeps its least fan-in, and so stays another trade-off.

    Raises: IfspaceError when no group counts have the full field there.
    """
    sized = candidate.sized
    kernels = [layer.kernel for layer in sized.layers if layer.conv.spatial]
    overlaps, floors = choices_of(catalogue, catalogue.designs[0])
    if catalogue.designs[0].of_front:
        floors = floors.but("least_fan_in", sized.least_fan_in)
    kernel = max(kernels, default=3)
    return _solved(sized.block, shape, by, sized.bottleneck, kernel, overlaps, floors)


def _solved(
    block: Block,
    shape: BlockShape,
    by: str,
    bottleneck: Fraction | None,
    kernel: int,
    overlaps: tuple[Fraction, ...],
    floors: Floors,
) -> BlockCandidate:
    problem = GroupsProblem(
        block.composition,
        shape.channels,
        shape.out_channels,
        bottleneck,
        kernel=kernel,
        overlaps=overlaps,
        objective=cast(Objective, by if by in get_args(Objective) else "params"),
        stride=shape.stride,
        rpw_order=rpw_order_of(block),
        floors=floors,
    )
    return sized_at(_cheapest(problem, TIME_LIMIT_S), shape)


def _cheapest(problem: GroupsProblem, time_limit_s: float | None = None) -> SizedBlock:
    answer = cheapest_groups(problem, time_limit_s=time_limit_s)
    if not answer.plans:
        is_late = answer.status is Status.UNKNOWN
        raise BlockError.because(
            "no groups with the full field" + (f" in {time_limit_s:.0f} s" if is_late else ""),
            got=f"{problem.composition} from {problem.channels} to {problem.out_channels}",
            allowed="widths with common divisors",
            remedy="choose other widths",
        )
    return answer.plans[0].sized


def sized_at(sized: SizedBlock, shape: BlockShape, provider: str = CATALOGUE) -> BlockCandidate:
    """Return a block at a shape.

    Raises: BlockError when no layer can hold the stride.
    """
    sized.strides(shape.stride)  # raises where no layer can hold it
    return BlockCandidate(sized, shape.side, shape.batch, shape.stride, provider)


def choices_of(catalogue: Catalogue, design: Design) -> tuple[tuple[Fraction, ...], Floors]:
    """Return the overlap ratios and the floors that a design was enumerated with.

    For one of a front the floor on the least fan-in is its own: with fewer channels per filter it
    would be another trade-off.
    """
    overlaps: tuple[Fraction, ...] = DEFAULT_OVERLAPS
    floors = NO_FLOORS
    for setting in catalogue.settings:
        if (setting.channels, setting.out_width) == (design.channels, design.out_channels):
            overlaps, floors = setting.overlaps, setting.floors
            break
    if design.of_front:
        floors = floors.but("least_fan_in", design.least_fan_in)
    return overlaps, floors


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


def _amount(candidate: BlockCandidate, by: str) -> int:
    amounts = {
        "macs": candidate.sized.macs_per_pixel,
        "activations": candidate.sized.activations_per_pixel,
    }
    return amounts[by](candidate.stride) if by in amounts else candidate.sized.params


# Baselines.


@dataclass(frozen=True, slots=True)
class Baseline:
    """A named block that others are measured beside; `size` sizes it between two widths."""

    name: str
    title: str
    reference: str
    size: Callable[[int, int], SizedBlock]


def _written(text: str) -> Callable[[int, int], SizedBlock]:
    return Block.parse(text).at


def _shufflenet(channels: int, out_channels: int) -> SizedBlock:
    """Return the residual block, a quarter wide inside, with the first group count that fits."""
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


def _clcnet(channels: int, out_channels: int) -> SizedBlock:
    """Return the group convolutions with the cheapest group counts of full field."""
    return _cheapest(GroupsProblem(Composition.parse("GC+SH+GPW"), channels, out_channels))


def _resnext(channels: int, out_channels: int) -> SizedBlock:
    groups = max(1, min(RESNEXT_GROUPS, out_channels // 2 // RESNEXT_WIDTH))
    return Block.parse(f"PW+GC({groups})+PW").at(channels, out_channels, Fraction(1, 2))


def _inverted(channels: int, out_channels: int) -> SizedBlock:
    """Return the inverted residual: inside six times as wide as its input."""
    # A bottleneck is a ratio to the output's width.
    bottleneck = Fraction(EXPANSION * channels, out_channels)
    return Block.parse("PW+DW+PW").at(channels, out_channels, bottleneck)


BASELINES: Final = (
    Baseline("conv", "CONV(3)", "what a block replaces", _written("CONV")),
    Baseline("dw+pw", "MobileNet", "[3DRF] 4.2, block B", _written("DW+PW")),
    Baseline("shufflenet", "ShuffleNet unit", "Zhang et al. 2018, Fig. 2", _shufflenet),
    Baseline("clcnet", "clcNet", "[3DRF] 4.2, block C, once", _clcnet),
    Baseline("resnext", "ResNeXt bottleneck", "Xie et al. 2017, Table 1", _resnext),
    Baseline("inverted", "inverted residual", "Sandler et al. 2018, Table 1", _inverted),
)
NAMES: Final = tuple(baseline.name for baseline in BASELINES)


def find_baselines(names: Iterable[str]) -> tuple[Baseline, ...]:
    """Return baselines by their names, or blocks in the notation, each once.

    >>> [baseline.title for baseline in find_baselines(["Conv", "gc(4)+pw"])]
    ['CONV(3)', 'GC(4)+PW']

    Raises: SettingError for anything else.
    """
    by_name = {baseline.name: baseline for baseline in BASELINES}
    baselines: dict[str, Baseline] = {}
    for name in names:
        if name.lower() in by_name:
            baselines[name.lower()] = by_name[name.lower()]
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
        baselines[text] = Baseline(text.lower(), text, "asked for", _written(text))
    return tuple(baselines.values())


def baselines_at(baselines: Iterable[Baseline], shape: BlockShape) -> Selection:
    """Return the baselines at a shape, and why those that do not fit there are left out."""
    candidates: list[BlockCandidate] = []
    left_out: list[tuple[str, str]] = []
    for baseline in baselines:
        try:
            sized = baseline.size(shape.channels, shape.out_channels)
            candidates.append(sized_at(sized, shape, f"{BASELINE}: {baseline.title}"))
        except IfspaceError as error:
            left_out.append((baseline.title, str(error)))
    return Selection(tuple(candidates), tuple(left_out))


# The sample that the latency model is fitted to and judged on.


@dataclass(frozen=True, slots=True)
class Calibration:
    """Blocks to fit to, and a sample at the shape of the run, held out in turn to judge by."""

    fit: tuple[BlockCandidate, ...] = ()
    sample: tuple[BlockCandidate, ...] = ()

    @property
    def candidates(self) -> tuple[BlockCandidate, ...]:
        """All blocks, those to fit to first."""
        return (*self.fit, *self.sample)


def neighbours(shape: BlockShape) -> tuple[BlockShape, ...]:
    """Return the shapes that networks have next: half or twice the width, and so on.

    >>> [(shape.channels, shape.side) for shape in neighbours(BlockShape(64, 64, 56))]
    [(32, 112), (128, 28), (256, 14)]
    """
    shapes = []
    for up, down in ((1, 2), (2, 1), (4, 1)):
        widths = shape.channels * up, shape.out_channels * up
        side = shape.side * down // up
        is_whole = not any(width % down for width in widths) and shape.side * down % up == 0
        fits = min(widths) // down >= MIN_WIDTH and max(widths) // down <= MAX_SAMPLE_WIDTH
        if is_whole and fits and side >= MIN_SIDE:
            channels, out_channels = (width // down for width in widths)
            shapes.append(replace(shape, channels=channels, out_channels=out_channels, side=side))
    return tuple(shapes)


def calibration(
    catalogue: Catalogue,
    shape: BlockShape,
    others: Sequence[BlockShape],
    more: Sequence[BlockCandidate] = (),
    excluded: frozenset[str] = frozenset(),
) -> Calibration:
    """Return the blocks of a model: a sample without those `excluded` by name, and what to fit to.

    `others`: more shapes to fit to; `more`: blocks to fit to beside the sample. All are timed
    again, in rounds that they share.
    """
    designs = designs_for(catalogue, shape)
    drawn = random.Random(SEED).sample(designs, min(len(designs), 4 * SAMPLE))
    excluded = excluded | {*ANCHORS, *(candidate.name for candidate in more)}
    first = _first_at(drawn, shape, catalogue, SAMPLE + len(excluded))
    sample = [candidate for candidate in first if candidate.name not in excluded]
    shapes = list(others[:MAX_SHAPES])
    fit = _anchors([shape, *shapes])
    fit += [replace(x, provider=ANCHOR, design=None, calibrates=True) for x in more]
    for index, elsewhere in enumerate(shapes):
        tried = drawn[index :: len(shapes)][: MAX_TRIED * SAMPLE_ELSEWHERE]
        fit += _first_at(tried, elsewhere, catalogue, SAMPLE_ELSEWHERE)
    once: dict[BlockKey, BlockCandidate] = {}
    for candidate in fit:
        once.setdefault(candidate.key, candidate)
    return Calibration(tuple(once.values()), tuple(sample[:SAMPLE]))


def _first_at(
    designs: Sequence[Design], shape: BlockShape, catalogue: Catalogue, count: int
) -> list[BlockCandidate]:
    """Return the first `count` designs that have the full field at a shape."""
    candidates: list[BlockCandidate] = []
    for design in designs:
        if len(candidates) < count:
            with suppress(IfspaceError):
                candidate = design_at(design, shape, "params", *choices_of(catalogue, design))
                candidates.append(replace(candidate, calibrates=True))
    return candidates


def _anchors(shapes: Sequence[BlockShape]) -> list[BlockCandidate]:
    anchors = []
    for shape in shapes:
        for text in ANCHORS:
            sized = Block.parse(text).at(shape.channels, shape.out_channels)
            anchors.append(replace(sized_at(sized, shape, ANCHOR), calibrates=True))
    return anchors
