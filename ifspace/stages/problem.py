"""What is asked of stages (blocks, budgets, depths, widths), and plans that check themselves.

`StagesProblem` asks which block, width and depth each stage of a layout gets. `DepthsProblem` asks
for depths alone, of stages that are known by tables of gain, parameters and MACs by depth; where
their layers come from does not matter there. `Blocks` and `Budgets` are the values that every
function that chooses blocks within budgets takes, in this room and for real networks.

Reference: [3DRF] section 4.1 for the gain; the budgets are beyond the paper.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise, product
from math import ceil, floor, fsum, isfinite, log10
from typing import Any, Final, Self

from ifspace.answer import Answer, Status
from ifspace.block import DEFAULT_KERNEL, Block, Composition, Layer, SizedBlock, split_terms
from ifspace.errors import ARGUMENT, BlockError, SettingError
from ifspace.floors import NO_FLOORS, Floors
from ifspace.infofield import CAPS
from ifspace.kinds import dense_pointwise_kind, find_kind
from ifspace.latency import Latency, LatencySource, latency_of
from ifspace.memory import BYTES, DEFAULT_DTYPE, bytes_of, peak_bytes
from ifspace.stages.defaults import FORMS
from ifspace.stages.layout import BLOCK_AMOUNTS, MAX_DEPTH, Layout, Stage
from ifspace.stages.objectives import COSTS, OBJECTIVES, total
from ifspace.stages.peak import peak_elements
from ifspace.values import (
    MAX_WIDTH,
    amount,
    choice,
    counted,
    listed,
    number_from_zero,
    odd_number,
    set_fields,
    share,
    whole_number,
)

DEFAULT_MAX_DEPTH: Final = 16
MAX_BUDGET: Final = 10**12
# By how many channels, to both sides of a width, finer ones are offered.
FINER: Final = (8, 16, 32, 64)
CHEAPEST: Final = "cheapest"
FRONT: Final = "front"
AMOUNTS: Final = ("params", "macs", "activations", "layers", "latency_ms", "peak_memory")
TABLE_AMOUNTS: Final = ("params", "macs")
# Far above any gain: a field grows from a pixel to the whole feature map, and the gain with it.
MAX_GAIN: Final = 10**6
# A least gain holds up to the rounding of the solver's whole numbers.
GAIN_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class BlockChoice:
    """A block that may be chosen, or a composition whose group counts are still open.

    `block` None: the cheapest groups with the full field are found for every pair of widths. The
    width inside, between the first and the last of the channel-mixing layers, is `bottleneck` times
    the width that leaves, `expansion` times the width that enters, or `inner` channels; one of them
    at most. `type`: how the blocks of the stage are joined, a name of `STAGE_TYPES`, or None for
    what the network has around all of its stages. `full`: only where it has the full field.

    >>> str(BlockChoice.parse("DW+GPW+SH+GPW")), BlockChoice.parse("DW+PW").is_open
    ('DW+GPW+SH+GPW', False)
    >>> inverted = BlockChoice.of(Block.parse("PW+DW+PW"), expansion=Fraction(6))
    >>> str(inverted), [layer.c_out for layer in inverted.sized(16, 24).layers]
    ('PW+DW+PW with expansion 6', [96, 96, 24])

    Raises: SettingError for two widths inside.
    """

    composition: Composition
    block: Block | None = None
    bottleneck: Fraction | None = None
    kernel: int = DEFAULT_KERNEL
    expansion: Fraction | None = None
    inner: int | None = None
    type: str | None = None
    full: bool = False

    def __post_init__(self) -> None:
        """Check that one thing at most says how wide the block is inside."""
        widths = (self.bottleneck, self.expansion, self.inner)
        if sum(width is not None for width in widths) > 1:
            raise SettingError.because(
                "a block with two widths inside",
                got=str(self),
                allowed="a bottleneck, an expansion or channels",
                remedy="leave one out",
                argument="blocks",
            )

    @classmethod
    def of(cls, block: Block, bottleneck: Fraction | None = None, **more: Any) -> Self:
        """Return the choice of a block that has its groups."""
        return cls(block.composition, block, bottleneck, **more)

    @classmethod
    def of_stage(cls, stage: Stage) -> Self:
        """Return the choice of what a stage repeats, with its width inside."""
        sized, joined = stage.repeated, stage.type
        by_ratio = cls.of(sized.block, sized.bottleneck, type=joined)
        if by_ratio.allows(sized):
            return by_ratio
        ratio = Fraction(sized.inner_width, sized.channels)
        return cls.of(sized.block, expansion=ratio, type=joined)

    @classmethod
    def parse(cls, text: str, kernel: int = DEFAULT_KERNEL) -> Self:
        """Parse a block: the kinds that take groups have them all, or none does.

        `kernel`: of the spatial layers that are written without one.

        Raises: BlockError for text that is no block; SettingError for a block with some of its
            groups, or an even kernel.
        """
        terms, _ = split_terms(text)
        grouped = [term for term in terms if find_kind(term.partition("(")[0]).takes_groups]
        if grouped and not any("(" in term for term in grouped):
            return cls(Composition.parse(text), kernel=kernel)
        return cls.of(parse_block(text, kernel))

    @property
    def is_open(self) -> bool:
        """Whether group counts are still to be chosen."""
        return self.block is None

    @property
    def has_inner(self) -> bool:
        """Whether the block has two channel-mixing layers or more, and so a width inside."""
        return self._mixing > 1

    @property
    def _mixing(self) -> int:
        return sum(find_kind(kind).mixing for kind in self.composition.kinds)

    def expanded(self, expansion: Fraction) -> "BlockChoice":
        """Return the choice with an expansion; one of 1 leaves the layer out that would expand.

        >>> choice = BlockChoice.parse("PW+DW+PW")
        >>> str(choice.expanded(Fraction(1))), str(choice.expanded(Fraction(3, 2)))
        ('DW+PW with expansion 1', 'PW+DW+PW with expansion 3/2')

        Reference: Sandler et al., MobileNetV2, section 3.4 and Table 2, for the expansion of 1.
        """
        plain, kinds = dense_pointwise_kind().symbol, self.composition.kinds
        if expansion != 1 or kinds[0] != plain or not self.has_inner:
            return replace(self, bottleneck=None, expansion=expansion)
        composition = replace(self.composition, kinds=kinds[1:])
        block = self.block and replace(self.block, layers=self.block.layers[1:])
        return replace(
            self, composition=composition, block=block, bottleneck=None, expansion=expansion
        )

    def inside(self, entry: int) -> tuple[int, ...] | None:
        """Return the widths inside, behind each channel-mixing layer but the last.

        None where they are those of `Block.at`.

        Raises: BlockError for an expansion that is no whole number of channels, and for a block
            without a width inside.
        """
        width = self.inner if self.expansion is None else self.expansion * entry
        if width is None:
            return None
        if self._mixing == 1 and self.expansion == 1:
            return None
        if self.composition.repeats > 1 or self._mixing < 2 or Fraction(width).denominator != 1:
            raise BlockError.because(
                "a block without a width inside",
                got=f"{self} from {entry} channels",
                allowed="one copy, two channel-mixing layers or more, a whole number of channels",
                remedy="choose another block or expansion",
                argument="blocks",
            )
        return (int(width),) * (self._mixing - 1)

    def sized(self, entry: int, width: int, block: Block | None = None) -> SizedBlock:
        """Return the block, or another of its composition, from one width to another.

        Raises: BlockError where it does not fit.
        """
        taken = block or self.block
        assert taken is not None, "groups are open"
        return taken.at(entry, width, self.bottleneck, widths=self.inside(entry))

    def allows(self, block: SizedBlock) -> bool:
        """Return whether a block is this one, or of its composition where groups are open."""
        if block.block.composition != self.composition or (
            self.block is not None and block.block != self.block
        ):
            return False
        if self.is_open and any(x.kernel not in (None, self.kernel) for x in block.block.layers):
            return False
        try:
            inside = self.inside(block.channels)
            again = block.block.at(
                block.channels, block.out_channels, self.bottleneck, block.dims, inside
            )
        except BlockError:
            return False
        return again == block

    def __str__(self) -> str:
        """Return the block in its notation, followed by its width inside and its type, if any."""
        text = str(self.block or self.composition)
        if self.bottleneck is not None:
            text += f" with bottleneck {self.bottleneck}"
        if self.expansion is not None:
            text += f" with expansion {self.expansion}"
        if self.inner is not None:
            text += f" with {self.inner} channels inside"
        return text if self.type is None else f"{text}, {self.type}"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Blocks:
    """The blocks to choose from: those listed, or the cheapest of all with the full field.

    Each is a block in its notation, a Block or a BlockChoice. The one text "cheapest" stands for
    all blocks with the full field; `choices` is None then. So does "front", for real networks: for
    every layer blocks that trade parameters for the least fan-in, pointwise layers too; `is_front`
    is true then.

    >>> Blocks("dw+pw", Block.parse("CONV(3)"), "DW+PW")
    Blocks('DW+PW', 'CONV')
    >>> print(Blocks("cheapest").choices)
    None

    Raises: SettingError for no block, or a value that is no block; BlockError for text that cannot
        be read.
    """

    choices: tuple[BlockChoice, ...] | None
    is_front: bool

    def __init__(self, *blocks: Block | BlockChoice | str) -> None:
        """Parse each block once."""
        word = str(blocks[0]).lower() if len(blocks) == 1 else ""
        listed_blocks = () if word in (CHEAPEST, FRONT) else tuple(map(_choice, blocks or (None,)))
        set_fields(
            self,
            choices=tuple(dict.fromkeys(listed_blocks)) or None,
            is_front=word == FRONT,
        )

    def __repr__(self) -> str:
        """Return the call that makes the value again, where no groups are open."""
        word = FRONT if self.is_front else CHEAPEST
        blocks = [word] if self.choices is None else map(str, self.choices)
        return f"Blocks({', '.join(map(repr, blocks))})"

    @property
    def fixed(self) -> tuple[Block, ...] | None:
        """The listed blocks, None for the cheapest.

        Raises: SettingError for a block whose groups are open or that has a bottleneck.
        """
        if self.choices is None:
            return None
        blocks = [
            choice.block
            for choice in self.choices
            if (choice.bottleneck, choice.expansion, choice.inner) == (None, None, None)
        ]
        if None in blocks or len(blocks) < len(self.choices):
            raise SettingError.because(
                f"{ARGUMENT} that are not fixed",
                got=", ".join(map(str, self.choices)),
                allowed=f"{ARGUMENT} with their groups, without a bottleneck",
                remedy="write the groups, such as DW+RPW(2,1/2)",
                argument="blocks",
            )
        return tuple(block for block in blocks if block is not None)


def _choice(value: Any) -> BlockChoice:
    if isinstance(value, BlockChoice):
        return value
    if isinstance(value, Block | str):
        return BlockChoice.of(Block.parse(value) if isinstance(value, str) else value)
    raise SettingError.because(
        "wrong block",
        got="None" if value is None else type(value).__name__,
        allowed='a block such as "DW+PW", a Block, or "cheapest"',
        remedy="write it in the notation",
        argument="block",
    )


def parse_block(text: str, kernel: int = DEFAULT_KERNEL) -> Block:
    """Parse a block; `kernel` is that of the spatial layers that are written without one.

    >>> str(parse_block("CONV(3)+DW+PW", 5))
    'CONV+DW(5)+PW'

    Raises: BlockError for text that is no block; SettingError for a block without its groups, or an
        even kernel.
    """
    odd_number(kernel, "kernel", 1, MAX_WIDTH - 1)
    terms, _ = split_terms(text)
    for term in terms:
        kind = find_kind(term.partition("(")[0])
        if kind.takes_groups and "(" not in term:
            raise SettingError.because(
                "a block without its groups",
                got=f"{kind.symbol} in {text}",
                allowed=f"groups behind each kind that takes them, such as {kind.symbol}(4)",
                remedy="write them, or let `ifspace groups` or `ifspace layout` find them",
                argument="blocks",
            )
    block = Block.parse(text)
    layers = [
        layer
        if layer.kernel is None or _names_kernel(term, layer)
        else replace(layer, kernel=kernel)
        for layer, term in zip(block.layers, terms, strict=True)
    ]
    return replace(block, layers=tuple(layers))


def _names_kernel(term: str, layer: Layer) -> bool:
    return "k=" in term.lower() or (not layer.conv.takes_groups and "(" in term)


# One of an amount, and several.
_AMOUNT_NOUNS: Final = {
    "params": ("parameter", "parameters"),
    "macs": ("MAC", "MACs"),
    "activations": ("activation", "activations"),
    "layers": ("layer", "layers"),
    "latency_ms": ("millisecond", "milliseconds"),
    "peak_memory": ("byte of peak memory", "bytes of peak memory"),
}
_MS_DIGITS: Final = 3


Rounding = Callable[[Fraction | float], int]


def amounts_text(amounts: Mapping[str, int | Fraction], rounding: Rounding = round) -> str:
    """Return amounts in words; milliseconds are rounded, with `ceil` never to less than there are.

    >>> amounts_text({"params": 5_100_000, "latency_ms": Fraction(5, 2)})
    '5,100,000 parameters, 2.5 milliseconds'
    >>> amounts_text({"latency_ms": Fraction(1, 3)}, ceil), amounts_text({"macs": 1})
    ('0.334 milliseconds', '1 MAC')
    >>> amounts_text({"latency_ms": Fraction(0)}), amounts_text({"latency_ms": Fraction(10)})
    ('0 milliseconds', '10 milliseconds')
    """
    return ", ".join(
        _ms_text(value, rounding)
        if name == "latency_ms"
        else counted(int(value), *_AMOUNT_NOUNS[name])
        for name, value in amounts.items()
    )


def _ms_text(ms: Fraction | float, rounding: Rounding) -> str:
    """Return milliseconds with three decimals, three digits where they are below a tenth."""
    digits = max(_MS_DIGITS, _MS_DIGITS - 1 - floor(log10(abs(float(ms))))) if ms else _MS_DIGITS
    text = f"{rounding(ms * 10**digits) / 10**digits:,.{digits}f}".rstrip("0").rstrip(".")
    return f"{text} {_AMOUNT_NOUNS['latency_ms'][text != '1']}"


def budgets_error(
    plan: str,
    answer: Answer[Any],
    limits: Mapping[str, int | Fraction],
    remedy: str,
    least: Mapping[str, int | Fraction] | None = None,
    not_more: Sequence[str] = (),
    follow: Mapping[str, int | Fraction] | None = None,
    shares: bool = False,
) -> SettingError:
    """Return the error for a search that found no plan within budgets: why, and what would help.

    `plan` is what was searched for. `limits` are those that were asked for; of the amounts in
    `not_more` a plan may have no more than there is now, and `follow` are limits that follow from
    those that were asked for. `least`: of each amount alone, that of the answer if not given.
    `shares`: budgets may be shares of a network, for which a percentage without its sign was meant.

    >>> answer = Answer(Status.INFEASIBLE, None, (), least={"params": 1728})
    >>> print(budgets_error("layout", answer, {"params": 100}, "raise it"))
    proven: no layout keeps the budgets: got 100 parameters; allowed: at least 1,728 parameters; ...
    >>> print(budgets_error("layout", answer, {"params": 2000}, "raise it", follow={"macs": 9}))
    proven: ...: got 2,000 parameters, from which follow at most 9 MACs; allowed: at least 1,728
    parameters, and more of some of them together; raise it
    >>> print(budgets_error("design", answer, {"params": 60}, "raise it", shares=True))
    proven: no design keeps the budgets: got 60 parameters; allowed: at least 1,728 parameters;
    write 60% if a share is meant, or raise it
    """
    got = amounts_text(limits)
    if not_more:
        got += f" without more {listed([_AMOUNT_NOUNS[name][1] for name in not_more])} than now"
    if answer.status is not Status.INFEASIBLE:
        return SettingError.because(
            f"time ran out before a {plan} within the budgets was found",
            got=got,
            allowed="more time",
            remedy="raise the time limit",
            argument="time_limit_s",
        )
    least = answer.least if least is None else least
    bounds = {**(follow or {}), **limits}
    exceeded = [name for name, amount in least.items() if name in bounds and amount > bounds[name]]
    if follow and not set(exceeded) & limits.keys():
        got += f", from which follow at most {amounts_text(follow)}"
        limits = bounds
    needed = {name: amount for name, amount in least.items() if name in limits}
    allowed = f"at least {amounts_text(needed, ceil)}" if needed else "other budgets"
    allowed += " (each amount alone)" * (len(needed) > 1)
    percent = [limits[name] for name in exceeded if name in limits and name != "latency_ms"]
    if shares and percent and percent[0] <= 100:
        remedy = f"write {percent[0]}% if a share is meant, or {remedy}"
    return SettingError.because(
        f"proven: no {plan} keeps the budgets",
        got=got,
        allowed=allowed + ", and more of some of them together" * bool(needed and not exceeded),
        remedy=remedy,
        argument=next(iter(needed), None),
    )


@dataclass(frozen=True, slots=True, init=False)
class Budgets:
    """The most that a network may have: parameters, MACs of one image, layers, milliseconds, bytes.

    Parameters, MACs and layers are whole numbers, or text such as "5.1M"; so are activations, the
    elements that convolutions and dense layers write for one image. Layers are those of the
    blocks, shuffles included. `latency_ms` is exact. `peak_memory` is in bytes for one image, a
    whole number or text such as "256k" or "256KiB", and `dtype` the type of the feature maps, a
    name of `ifspace.memory.BYTES`. None bounds nothing.

    Text such as "60%" is a share of what the network has as it is: `limits` has it once `of` says
    how much that is. `shares`: the name and the share of each such amount.

    >>> Budgets(params="5.1M").limits, Budgets(peak_memory="256k", dtype="int8").limits
    ({'params': 5100000}, {'peak_memory': 256000})
    >>> Budgets(params="60%").bounded, Budgets(params="60%").of({"params": 1001}).limits
    (('params',), {'params': 600})

    Raises: SettingError for a value that is no amount, and for bytes without a type.
    """

    params: int | None
    macs: int | None
    layers: int | None
    latency_ms: Fraction | None
    peak_memory: int | None
    dtype: str | None
    activations: int | None
    shares: tuple[tuple[str, Fraction], ...] = field(init=False)

    def __init__(
        self,
        params: int | str | None = None,
        macs: int | str | None = None,
        layers: int | str | None = None,
        latency_ms: Fraction | int | str | None = None,
        peak_memory: int | str | None = None,
        dtype: str | None = None,
        activations: int | str | None = None,
    ) -> None:
        """Parse each amount once."""
        values = (params, macs, activations, layers, latency_ms, peak_memory)
        amounts: dict[str, Any] = dict(zip(AMOUNTS, values, strict=True))
        shares = {name: part for name, x in amounts.items() if (part := share(x, name)) is not None}
        amounts |= dict.fromkeys(shares)
        set_fields(
            self,
            params=_limit(amounts["params"], "params"),
            macs=_limit(amounts["macs"], "macs"),
            layers=_limit(amounts["layers"], "layers"),
            latency_ms=_exact_milliseconds(amounts["latency_ms"]),
            peak_memory=peak_bytes(amounts["peak_memory"], dtype),
            dtype=dtype,
            activations=_limit(amounts["activations"], "activations"),
            shares=tuple(shares.items()),
        )

    @property
    def bounded(self) -> tuple[str, ...]:
        """The names of the amounts that are bounded, shares included."""
        shared = [name for name, _ in self.shares]
        return tuple(name for name in AMOUNTS if name in shared or getattr(self, name) is not None)

    @property
    def limits(self) -> dict[str, int | Fraction]:
        """The amounts that are bounded, by name.

        Raises: SettingError for a share of which nothing says how much that is: `of` does.
        """
        for name, part in self.shares:
            if getattr(self, name) is None:
                raise _unknown_share(name, part)
        return self._known

    @property
    def _known(self) -> dict[str, int | Fraction]:
        values = {name: getattr(self, name) for name in AMOUNTS}
        return {name: value for name, value in values.items() if value is not None}

    def of(self, amounts: Mapping[str, int | Fraction | None]) -> "Budgets":
        """Return the budgets with each share as an amount, given what the network has as it is.

        Whole amounts are rounded down. A share of bytes has `dtype` fp32 where there is none. What
        is not among the amounts stays a share.

        Raises: SettingError for a share of an amount that is None.
        """
        limits: dict[str, Any] = {}
        for name, part in self.shares:
            if name not in amounts or getattr(self, name) is not None:
                continue
            whole = amounts[name]
            if whole is None:
                raise _unknown_share(name, part)
            limits[name] = part * whole if name == "latency_ms" else int(part * whole)
        bytes_are_shared = "peak_memory" in limits
        budgets = Budgets(
            **{**self._known, **limits},
            dtype=self.dtype or (DEFAULT_DTYPE if bytes_are_shared else None),
        )
        set_fields(budgets, shares=self.shares)
        return budgets

    def with_latency(self, latency_ms: Fraction) -> "Budgets":
        """Return the budgets with another one of latency.

        >>> Budgets(params="60%", latency_ms=4).with_latency(Fraction(1, 2)).latency_ms
        Fraction(1, 2)
        """
        budgets = copy(self)
        set_fields(budgets, latency_ms=latency_ms)
        return budgets

    @property
    def sums(self) -> "Budgets":
        """The budgets of amounts that are summed: without that of the peak memory."""
        return Budgets(self.params, self.macs, self.layers, self.latency_ms)

    @property
    def peak_elements(self) -> int | None:
        """The most elements that may be live at once, None for any number."""
        if self.peak_memory is None or self.dtype is None:
            return None
        return self.peak_memory // BYTES[self.dtype]

    def exceeded(self, amounts: Mapping[str, int | Fraction]) -> list[str]:
        """Return which limits some amounts exceed, in words."""
        return [
            f"{amounts[name]} {name}, more than {limit}"
            for name, limit in self.limits.items()
            if amounts[name] > limit
        ]

    def check(self, counted: Sequence[str] = AMOUNTS, above: int = 0) -> None:
        """Check that only counted amounts are bounded, each by more than a number.

        Raises: SettingError, also for a share of which nothing says how much that is.
        """
        for name, limit in self.limits.items():
            if name not in counted:
                raise SettingError.because(
                    f"a budget of {ARGUMENT} where they are not counted",
                    got=f"{limit} {name}",
                    allowed=f"budgets of {listed(counted)}",
                    remedy="leave it out",
                    argument=name,
                )
            if not above < limit <= MAX_BUDGET:
                raise SettingError.because(
                    f"{ARGUMENT} out of range",
                    got=limit,
                    allowed=f"more than {above:,}, up to {MAX_BUDGET:,}",
                    remedy="choose a budget between",
                    argument=name,
                )


def _unknown_share(name: str, part: Fraction) -> SettingError:
    """Return the error of a share of an amount that is not known."""
    return SettingError.because(
        "a share of an amount that is not known",
        got=f"{float(100 * part):g}% of the {_AMOUNT_NOUNS[name][1]}",
        allowed="shares of what is counted or measured in the network as it is",
        remedy=f"give {ARGUMENT} as an amount",
        argument=name,
    )


def _limit(value: int | str | None, name: str) -> int | None:
    """Return a limit, which may be below 0: what the rest of a network leaves over may be."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return amount(value, name)


def _exact_milliseconds(value: Any) -> Fraction | None:
    if value is None:
        return None
    if isinstance(value, int | Fraction) and not isinstance(value, bool):
        return Fraction(value)
    raise SettingError.because(
        "latency budget is not exact",
        got=repr(value),
        allowed="whole numbers, Fractions",
        remedy='write Fraction("2.5")',
        argument="latency_budget_ms",
    )


def timed_blocks(layout: Layout) -> Iterator[tuple[SizedBlock, int, int]]:
    """Yield the blocks of a layout, each with its output side and its stride."""
    for stage in layout.stages:
        for block, stride in stage.strided_blocks:
            yield block, stage.side_out, stride


@dataclass(frozen=True, slots=True)
class StagesProblem:
    """Which depths, widths and blocks have the greatest objective within budgets.

    `start`: a layout with the sides, the strides, and the stem and head; its own widths and blocks
    are the only choices of a stage unless `widths` or `blocks` list others for each stage. Depths
    go from one block, or those of `min_depths`, to `max_depth`, one for all stages or one for each,
    the counted layers of the stem included. `monotone`: no stage
    is narrower than the one before. `objective`: what is maximised, a name of `OBJECTIVES`, or
    minimised, one of `COSTS`; `least_gain`: the least total gain that a layout may have; `alpha` is
    the decay of the gain, `cap` where the spatial field stops growing, a name of `CAPS`.
    `floors` hold for every block; the one that reads the network's input reads what there is.
    `strides`: those that each stage may begin with, in place of those of the start, whose last
    feature maps every layout has. `forms`: of an open block the cheapest groups alone, or the front
    of parameters and least fan-in, a name of `FORMS`. `finer`: widths between those offered are
    offered too, around those of the best layout.

    >>> from ifspace.stages.networks import network
    >>> problem = StagesProblem(network("vgg16", 32), Budgets(params="5.1M"))
    >>> problem.width_choices[0], str(problem.block_choices[0][0])
    ((64,), 'CONV')

    Raises: SettingError for choices or budgets out of range.
    """

    start: Layout
    budgets: Budgets
    widths: tuple[tuple[int, ...], ...] | None = None
    blocks: tuple[Blocks, ...] | None = None
    max_depth: int | tuple[int, ...] = DEFAULT_MAX_DEPTH
    alpha: float = 3
    monotone: bool = False
    latency: LatencySource | None = None
    objective: str = "gain"
    cap: str = "input"
    floors: Floors = NO_FLOORS
    min_depths: tuple[int, ...] | None = None
    strides: tuple[tuple[int, ...], ...] | None = None
    forms: str = CHEAPEST
    least_gain: float | None = None
    finer: bool = False

    def __post_init__(self) -> None:
        """Check what every layout must have."""
        choice(self.objective, "objective", (*OBJECTIVES, *COSTS))
        choice(self.cap, "cap", CAPS)
        choice(self.forms, "forms", FORMS)
        self._check_depths()
        self._check_strides()
        listed_blocks = None
        if self.blocks is not None:
            listed_blocks = [blocks.choices for blocks in self.blocks]
        for name, choices in (("width_choices", self.widths), ("blocks", listed_blocks)):
            if choices is not None and (len(choices) != len(self.start.stages) or not all(choices)):
                raise SettingError.because(
                    "a stage without a choice",
                    got=f"{name} for {sum(map(bool, choices))} of {len(self.start.stages)} stages",
                    allowed="at least one for every stage",
                    remedy="list them for every stage, or one list for all",
                    argument=name,
                )
        for width in {width for choices in self.widths or () for width in choices}:
            whole_number(width, "width_choices", 1, MAX_WIDTH)
        set_fields(self, alpha=number_from_zero(self.alpha, "alpha"))
        self.budgets.check()
        if self.least_gain is not None:
            set_fields(self, least_gain=number_from_zero(self.least_gain, "least_gain"))
        is_objective = self.objective == "latency"
        if self.needs_latencies and self.latency is None:
            raise SettingError.because(
                "nothing says how long the blocks take",
                got=f"{'the objective latency' if is_objective else 'a latency budget'} "
                "without latencies",
                allowed="a model or a table beside it",
                remedy="give --latency MODEL" + " and --latency-budget-ms T" * (not is_objective),
            )
        if self.objective == "peak-memory" and self.budgets.dtype is None:
            raise SettingError.because(
                "peak memory in bytes of which type",
                got=f"{ARGUMENT} peak-memory without a type of the feature maps",
                allowed=", ".join(BYTES),
                remedy="add --dtype",
                argument="objective",
            )

    def _check_depths(self) -> None:
        stages, limits = self.start.stages, self.max_depth
        if isinstance(limits, tuple) and len(limits) != len(stages):
            raise SettingError.because(
                f"wrong number of {ARGUMENT}",
                got=len(limits),
                allowed=f"one for all, or {len(stages)}, one for each stage",
                remedy="give a depth to every stage",
                argument="max_depth",
            )
        for stage, limit in zip(stages, self._max_depths, strict=True):
            whole_number(limit, "max_depth", stage.min_depth, MAX_DEPTH)
        if self.min_depths is not None and (
            len(self.min_depths) != len(stages) or not all(self.depth_choices)
        ):
            raise SettingError.because(
                "least depths that the stages cannot have",
                got=", ".join(map(str, self.min_depths)),
                allowed=f"one for each stage, up to {', '.join(map(str, self._max_depths))}",
                remedy="lower them",
                argument="min_depths",
            )

    def _check_strides(self) -> None:
        if self.strides is None:
            return
        stages = self.start.stages
        if len(self.strides) != len(stages) or not all(map(all, self.strides)):
            raise SettingError.because(
                f"wrong number of {ARGUMENT}",
                got=f"strides of {len(self.strides)} stages",
                allowed=f"some for each of {len(stages)}",
                remedy="give strides to every stage",
                argument="strides",
            )
        pooled = [n for n, (a, b) in enumerate(pairwise(stages), 2) if a.side_out != b.side_strided]
        if pooled:
            raise SettingError.because(
                "free strides of stages that are pooled",
                got=f"feature maps pooled before stage {listed([str(n) for n in pooled])}",
                allowed="stages that begin with a stride",
                remedy="describe the stages by --stages instead of --network",
                argument="strides",
            )
        if not all(self.places(index) for index in range(len(stages))):
            halved = Fraction(stages[0].side_strided, stages[-1].side_out)
            raise SettingError.because(
                f"{ARGUMENT} that do not lead to the last feature maps",
                got="; ".join(", ".join(map(str, choices)) for choices in self.strides),
                allowed=f"some with a product of {halved}",
                remedy="allow other strides of some stages",
                argument="strides",
            )

    def places(self, index: int) -> tuple[Stage, ...]:
        """Return the stage of the start at every stride and side that a layout may have it at."""
        stages = self.start.stages
        if self.strides is None:
            return (stages[index],)
        sides = {stages[0].side_strided}
        for choices in self.strides[:index]:
            sides = {side // s for side, s in product(sides, choices) if not side % s}
        ends = {stages[-1].side_out}
        for choices in reversed(self.strides[index + 1 :]):
            ends = {side * s for side, s in product(ends, choices)}
        return tuple(
            replace(
                stages[index],
                side=stages[index].side if index == 0 and stages[0].stem else side,
                stride=stride,
                side_out=side // stride,
            )
            for side in sorted(sides, reverse=True)
            for stride in self.strides[index]
            if not side % stride and side // stride in ends
        )

    @property
    def _max_depths(self) -> tuple[int, ...]:
        limits = self.max_depth
        return limits if isinstance(limits, tuple) else (limits,) * len(self.start.stages)

    @property
    def depth_choices(self) -> tuple[range, ...]:
        """Depths that each stage may have, the counted layers of the stem included."""
        stages = self.start.stages
        shortest = self.min_depths or (1,) * len(stages)
        return tuple(
            range(max(stage.min_depth, least), most + 1)
            for stage, least, most in zip(stages, shortest, self._max_depths, strict=True)
        )

    @property
    def width_choices(self) -> tuple[tuple[int, ...], ...]:
        """Widths that each stage may have, in channels."""
        return self.widths or tuple((width,) for width in self.start.widths)

    def refined(self, widths: Sequence[int]) -> "StagesProblem":
        """Return the problem with the multiples of 8 next to some widths, a width of each stage.

        They lie between the narrowest and the widest that a stage may have.

        >>> from ifspace.stages.networks import network
        >>> widths = ((32, 64, 128), (64,), (256,), (512,), (512,))
        >>> problem = StagesProblem(network("vgg16", 32), Budgets(layers=20), widths)
        >>> problem.refined((64, 64, 256, 512, 512)).width_choices[0]
        (32, 48, 56, 64, 72, 80, 96, 128)
        """
        choices = []
        for offered, width in zip(self.width_choices, widths, strict=True):
            near = {width // 8 * 8 + step for step in (0, *FINER, *(-step for step in FINER))}
            between = {wide for wide in near if min(offered) < wide < max(offered)}
            choices.append(tuple(sorted({*offered, *between})))
        return replace(self, widths=tuple(choices))

    @property
    def needs_latencies(self) -> bool:
        """Whether a block whose latency is not known is no choice."""
        return self.objective == "latency" or self.budgets.latency_ms is not None

    @property
    def merit(self) -> str:
        """The name of what growing stages are judged by: of a cost that is minimised the gain."""
        return "gain" if self.objective in COSTS else self.objective

    @property
    def has_free_widths(self) -> bool:
        """Whether some stage has a choice of widths."""
        return any(len(widths) > 1 for widths in self.width_choices)

    @property
    def block_choices(self) -> tuple[tuple[BlockChoice, ...], ...]:
        """Blocks that each stage may repeat."""
        if self.blocks is not None:
            return tuple(blocks.choices or () for blocks in self.blocks)
        return tuple((BlockChoice.of_stage(stage),) for stage in self.start.stages)

    def choice_of(self, index: int, stage: Stage) -> BlockChoice | None:
        """Return the choice that a stage of a layout takes, None if it is none of them."""
        return next(
            (
                choice
                for choice in self.block_choices[index]
                if choice.type == stage.type
                and choice.allows(stage.first)
                and choice.allows(stage.repeated)
            ),
            None,
        )

    def floors_of(self, index: int, opens: bool) -> Floors:
        """Return the floors of the block that opens a stage, or of those that follow it."""
        if index or not opens:
            return self.floors
        return self.floors.below(self.start.stem_and_head.stem_channels)

    def amounts(self, layout: Layout) -> dict[str, int | Fraction]:
        """Count from its blocks what a layout has of everything that is bounded.

        Raises: SettingError for a case that the latency table lacks.
        """
        amounts: dict[str, int | Fraction] = {
            name: getattr(layout, name)
            for name in BLOCK_AMOUNTS
            if name != "activations" or self.budgets.activations is not None
        }
        times = self.known_latencies(layout)
        if self.latency is not None and self.needs_latencies:
            times = tuple(latency_of(self.latency, *case) for case in timed_blocks(layout))
        milliseconds = [time.ms for time in times if time is not None]
        if times and len(milliseconds) == len(times):
            amounts["latency_ms"] = sum(milliseconds, Fraction(0))
        if self.budgets.dtype is not None:
            amounts["peak_memory"] = bytes_of(peak_elements(layout), self.budgets.dtype)
        return amounts

    def known_latencies(self, layout: Layout) -> tuple[Latency | None, ...]:
        """Return the latency of each block of a layout in its order, None where it is not known."""
        source = self.latency
        return () if source is None else tuple(source.find(*case) for case in timed_blocks(layout))

    def fits(self, layout: Layout) -> bool:
        """Return whether a layout keeps every budget.

        Raises: SettingError for a case that the latency table lacks.
        """
        return not self.budgets.exceeded(self.amounts(layout))


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A chosen layout, whose objectives are counted again from the blocks alone."""

    problem: StagesProblem
    layout: Layout

    def objective(self) -> float:
        """Return the amount that is maximised, by default the total gain; a cost below 0."""
        name = self.problem.objective
        if name in COSTS:
            return -float(self.problem.amounts(self.layout)[COSTS[name]])
        return self.objectives[name]

    @property
    def objectives(self) -> dict[str, float]:
        """All objectives by name."""
        problem = self.problem
        return {
            name: total(objective, self.layout, problem.alpha, problem.cap)
            for name, objective in OBJECTIVES.items()
        }

    def check(self) -> None:
        """Recount budgets, depths, widths and blocks without any solver.

        Raises: SettingError naming what does not hold.
        """
        problem, layout = self.problem, self.layout
        faults = problem.budgets.exceeded(problem.amounts(layout))
        gain = self.objectives["gain"]
        if problem.least_gain is not None and gain < problem.least_gain - GAIN_TOLERANCE:
            faults.append(f"a gain of {gain}, less than {problem.least_gain}")
        if not self._stands_as_asked():
            faults.append("sides, strides, stem or head are not those asked for")
        entry = layout.stem_and_head.stem_channels
        choices = zip(layout.stages, problem.width_choices, strict=False)
        for number, (stage, widths) in enumerate(choices, start=1):
            if stage.depth not in problem.depth_choices[number - 1]:
                faults.append(f"stage {number} is {stage.depth} deep")
            if stage.width not in widths:
                faults.append(f"stage {number} has {stage.width} channels")
            joins = (stage.first.channels, stage.repeated.channels, stage.repeated.out_channels)
            if joins != (entry, stage.width, stage.width):
                faults.append(f"stage {number} does not join the one before")
            if problem.choice_of(number - 1, stage) is None:
                faults.append(f"stage {number} repeats {stage.repeated.block}")
            faults += [
                f"{block.block} of stage {number} is below the floors"
                for block, opens in ((stage.first, True), (stage.repeated, False))
                if not block.meets(problem.floors_of(number - 1, opens))
            ]
            entry = stage.width
        if problem.monotone and any(a > b for a, b in pairwise(layout.widths)):
            faults.append("a stage is narrower than the one before")
        check_faults(faults, "layouts within budgets and choices")

    def _stands_as_asked(self) -> bool:
        """Return whether stem and head are those of the start, and stages where they may stand."""
        problem, stages = self.problem, self.layout.stages
        start = problem.start
        if (self.layout.stem_and_head, len(stages)) != (start.stem_and_head, len(start.stages)):
            return False
        follow = (a.side_out == b.side_strided for a, b in pairwise(stages))
        return (problem.strides is None or all(follow)) and all(
            _place(stage) in map(_place, problem.places(index))
            for index, stage in enumerate(stages)
        )


def _place(stage: Stage) -> tuple[Any, ...]:
    """Return where a stage stands: what a search changes by strides alone."""
    return stage.side, stage.side_out, stage.stride, stage.stem


def check_faults(faults: Sequence[str], allowed: str) -> None:
    """Check that a plan has no faults.

    Raises: SettingError naming them.
    """
    if faults:
        raise SettingError.because(
            "a plan that does not hold",
            got="; ".join(faults),
            allowed=allowed,
            remedy="ask for the plan again",
        )


@dataclass(frozen=True, slots=True)
class StageTable:
    """A stage by depth, from `min_depth` to `max_depth`: total gain, parameters, MACs of one image.

    >>> table = StageTable("layer1", 1, (0.0, 1.5, 1.75), (100, 250, 400), (10, 20, 30), 3)
    >>> table.depths, table.at(2)
    (range(1, 4), (1.5, 250, 20))

    Raises: SettingError for rows of another length than there are depths, and numbers out of range.
    """

    name: str
    min_depth: int
    gains: tuple[float, ...]
    params: tuple[int, ...]
    macs: tuple[int, ...]
    max_depth: int

    def __post_init__(self) -> None:
        """Make the rows canonical and check them."""
        min_depth = whole_number(self.min_depth, "min_depth", 0)
        max_depth = whole_number(self.max_depth, "max_depth", min_depth)
        set_fields(self, min_depth=min_depth, max_depth=max_depth)
        for name in ("gains", *TABLE_AMOUNTS):
            row = tuple(getattr(self, name))
            if len(row) != len(self.depths):
                raise SettingError.because(
                    f"a table of another length than its depths in {self.name}",
                    got=f"{len(row)} {name} for depths {self.min_depth} to {self.max_depth}",
                    allowed=f"{len(self.depths)}, one for each depth",
                    remedy="give a number to every depth",
                    argument=name,
                )
            set_fields(self, **{name: row})
        for gain in self.gains:
            if not (isfinite(gain) and abs(gain) <= MAX_GAIN):
                raise SettingError.because(
                    f"gain out of range in {self.name}",
                    got=gain,
                    allowed=f"numbers up to {MAX_GAIN:,}",
                    remedy="correct the table",
                    argument="gains",
                )
        for name in TABLE_AMOUNTS:
            counts = (whole_number(n, name, 0, MAX_BUDGET) for n in getattr(self, name))
            set_fields(self, **{name: tuple(counts)})

    @property
    def depths(self) -> range:
        """The depths that the stage may have."""
        return range(self.min_depth, self.max_depth + 1)

    def at(self, depth: int) -> tuple[float, int, int]:
        """Return gain, parameters and MACs at a depth."""
        index = depth - self.min_depth
        return self.gains[index], self.params[index], self.macs[index]


@dataclass(frozen=True, slots=True)
class DepthsProblem:
    """Which depths have the greatest total gain within budgets of the whole network.

    `rest_params` and `rest_macs` are what the network has outside its stages. `start`: the depths
    that it has now; of equal gain those that change the fewest blocks of it come first, so that
    what saturates is not thrown out beyond what the budgets ask for.

    >>> table = StageTable("a", 1, (0.0, 1.0), (5, 9), (1, 2), 2)
    >>> DepthsProblem((table, table), Budgets(params=20), rest_params=3).amounts((1, 2))
    {'params': 17, 'macs': 3}

    Raises: SettingError for no stage, and budgets out of range or of anything else.
    """

    tables: tuple[StageTable, ...]
    budgets: Budgets
    rest_params: int = 0
    rest_macs: int = 0
    start: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check tables, budgets, the rest and the depths that are there."""
        set_fields(self, tables=tuple(self.tables))
        if not self.tables:
            raise SettingError.because(
                "no stage to choose a depth for",
                got="no table",
                allowed="one for each stage",
                remedy="name a network with stages",
                argument="tables",
            )
        if self.start is not None and len(self.start) != len(self.tables):
            raise SettingError.because(
                "depths of other stages",
                got=f"{len(self.start)} depths for {len(self.tables)} stages",
                allowed="one for each stage",
                remedy="give those of the network, or None",
                argument="start",
            )
        self.budgets.check(TABLE_AMOUNTS)
        for name in ("rest_params", "rest_macs"):
            rest = whole_number(getattr(self, name), name, 0, MAX_BUDGET)
            set_fields(self, **{name: rest})

    def amounts(self, depths: tuple[int, ...]) -> dict[str, int]:
        """Return parameters and MACs of the network at some depths."""
        rows = [table.at(depth) for table, depth in zip(self.tables, depths, strict=True)]
        return {
            "params": self.rest_params + sum(params for _, params, _ in rows),
            "macs": self.rest_macs + sum(macs for _, _, macs in rows),
        }


@dataclass(frozen=True, slots=True)
class DepthPlan:
    """Chosen depths, whose gain and costs are summed again from the tables alone."""

    problem: DepthsProblem
    depths: tuple[int, ...]

    @property
    def params(self) -> int:
        """Parameters of the network."""
        return self.problem.amounts(self.depths)["params"]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.problem.amounts(self.depths)["macs"]

    def objective(self) -> float:
        """Return the total gain.

        Reference: [IF] eq. 4.
        """
        pairs = zip(self.problem.tables, self.depths, strict=True)
        return fsum(table.at(depth)[0] for table, depth in pairs)

    def check(self) -> None:
        """Recount depths and budgets without any solver.

        Raises: SettingError naming what does not hold.
        """
        problem = self.problem
        faults = []
        if len(self.depths) != len(problem.tables):
            faults.append(f"{len(self.depths)} depths for {len(problem.tables)} stages")
        faults += [
            f"{table.name} is {depth} deep"
            for table, depth in zip(problem.tables, self.depths, strict=False)
            if depth not in table.depths
        ]
        faults = faults or problem.budgets.exceeded(problem.amounts(self.depths))
        check_faults(faults, "depths of the tables within budgets")
