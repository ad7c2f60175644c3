"""The setting of an enumeration, stated completely and checked once.

A setting holds everything that decides which designs survive and which parameters are cheapest. It
is independent of the search: the same value is written into the catalogue beside its designs.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from typing import Any, Final, Literal, Self, get_args

from ifspace.block import Block, Composition, Layer, SizedBlock
from ifspace.errors import IfspaceError, SettingError
from ifspace.floors import NO_FLOORS, Floors, kinds_without_choice
from ifspace.kinds import (
    BLOCKED,
    KINDS,
    ORDERS,
    alphabet,
    canonical_kinds,
    reference_kind,
    ungrouped_kinds,
)
from ifspace.reach import Compact, Reference
from ifspace.serialize import from_plain, to_plain
from ifspace.values import (
    MAX_COPIES,
    MAX_WIDTH,
    choice,
    counted,
    exact_bottleneck,
    exact_overlaps,
    listed,
    odd_number,
    set_fields,
    whole_number,
)

# Compositions of six kinds: 6^16 are more than any machine lists in a month.
MAX_LEN: Final = 16
Rule = Literal["compact", "early-stop"]
Permutation = Literal["explicit", "free"]
Patterns = Literal["whole", "any", "keep"]
Objective = Literal["params", "macs", "activations"]
# What the search minimises of each composition; latencies are those that it is given.
SearchObjective = Literal["params", "macs", "activations", "latency"]
RpwOrder = Literal["rolling", "blocked", "both"]

DEFAULT_OVERLAPS: Final = (Fraction(0), Fraction(33, 100), Fraction(1, 2))


@dataclass(frozen=True, slots=True)
class EnumerationSetting:
    """One setting of the enumeration: widths, alphabet, rule and what is minimised.

    With `front` a composition has not only its cheapest choice but every choice that no other of it
    beats in parameters, MACs and least fan-in. `most_peak`: the most elements that may be live at
    once per output pixel; which compositions keep that is known before their choices are searched.

    Values are canonical: kinds in the order of the table, overlaps ascending and exact, an
    `out_channels` equal to `channels` is None. Kinds without legal parameters at these widths stay
    in `kinds` and are not in `usable_kinds`.

    >>> setting = EnumerationSetting(channels=16, kinds=("dw", "PW"), overlaps=("0.5", 0))
    >>> setting.kinds, setting.overlaps
    (('PW', 'DW'), (Fraction(0, 1), Fraction(1, 2)))
    >>> EnumerationSetting(channels=13).notes()
    ('13 is prime: GC, GPW, RPW and SH have no legal group count and drop out; PW and DW remain',)

    Raises: SettingError for a value out of its range, and when no kind is left at the widths.

    Reference: [IF] and [3DRF] 4.2 for the rule `compact`, [Fog] 3.1 for `early-stop`, repeated
    patterns and bottleneck.
    """

    channels: int = 64
    out_channels: int | None = None
    kinds: tuple[str, ...] = field(default_factory=alphabet)
    max_len: int = 6
    kernel: int = 3
    overlaps: tuple[Fraction, ...] = DEFAULT_OVERLAPS
    repeats: int = 1
    bottleneck: Fraction | None = None
    rule: Rule = "compact"
    permutation: Permutation = "explicit"
    patterns: Patterns = "whole"
    compact: Compact = "single"
    stride: Literal[1, 2] = 1
    dims: Literal[1, 2] = 2
    objective: SearchObjective = "params"
    rpw_order: RpwOrder = "rolling"
    floors: Floors = NO_FLOORS
    front: bool = False
    most_peak: int | None = None

    def __post_init__(self) -> None:
        channels = whole_number(self.channels, "channels", 2, MAX_WIDTH)
        out_channels = self.out_channels
        if out_channels is not None:
            out_channels = whole_number(out_channels, "out_channels", 1, MAX_WIDTH)
        set_fields(
            self,
            channels=channels,
            out_channels=None if out_channels == channels else out_channels,
            kinds=canonical_kinds(self.kinds),
            max_len=whole_number(self.max_len, "max_len", 1, MAX_LEN),
            kernel=odd_number(self.kernel, "kernel", 3),
            overlaps=exact_overlaps(self.overlaps),
            repeats=whole_number(self.repeats, "repeats", 1, MAX_COPIES),
            bottleneck=exact_bottleneck(self.bottleneck, out_channels or channels),
        )
        if self.most_peak is not None:
            set_fields(self, most_peak=whole_number(self.most_peak, "most_peak"))
        for name, allowed in _CHOICES.items():
            choice(getattr(self, name), name, allowed)
        # Floors that rule out every kind are an error of the search, which says what would work.
        if len(self._dropped_kinds(NO_FLOORS)) == len(self.kinds):
            raise SettingError.because(
                f"no kind is left at {self.widths_text}: none has a legal group count",
                got=", ".join(self.kinds),
                allowed=f"kinds without groups ({', '.join(ungrouped_kinds())}) at any width",
                remedy="add one of them or choose widths with more divisors",
            )

    @property
    def out_width(self) -> int:
        """The width F that leaves the block, in channels."""
        return self.channels if self.out_channels is None else self.out_channels

    @property
    def inner_width(self) -> int | None:
        """The width K = ratio x F inside the bottleneck, in channels; None without one."""
        return None if self.bottleneck is None else int(self.bottleneck * self.out_width)

    @property
    def orders(self) -> tuple[str, ...]:
        """The orders that an RPW layer may have."""
        return orders_of(self.rpw_order)

    @property
    def width_pairs(self) -> tuple[tuple[int, int], ...]:
        """All (input, output) widths that a layer of some composition has in this setting."""
        c, f, inner = self.channels, self.out_width, self.inner_width
        if inner is None:
            pairs = [(c, c), (c, f), (f, f)]
        else:
            pairs = [(c, c), (c, inner), (inner, inner), (inner, f), (f, f)]
            pairs += [(f, inner)] * (self.repeats > 1)
        return tuple(dict.fromkeys(pairs))

    @property
    def usable_kinds(self) -> tuple[str, ...]:
        """The kinds that have legal parameters at one width pair at least, in canonical order."""
        dropped = self._dropped_kinds(self.floors)
        return tuple(kind for kind in self.kinds if kind not in dropped)

    def _dropped_kinds(self, floors: Floors) -> tuple[str, ...]:
        return kinds_without_choice(
            self.kinds,
            self.width_pairs,
            self.overlaps,
            self.orders,
            may_copy=self.bottleneck is None,
            floors=floors,
        )

    @property
    def replaced(self) -> tuple[Any, ...]:
        """What the designs of this setting replace: `Design.replaces`."""
        return (
            self.channels,
            self.out_width,
            self.bottleneck,
            self.repeats,
            self.kernel,
            self.stride,
            self.dims,
        )

    @property
    def reference(self) -> SizedBlock:
        """What a block competes with: `repeats` standard convolutions at its widths.

        >>> str(EnumerationSetting(kernel=5, repeats=2).reference.block)
        '(CONV(5))x2'
        """
        block = standard_block(self.kernel, self.repeats)
        return block.at(self.channels, self.out_width, dims=self.dims)

    @property
    def reference_field(self) -> Reference:
        """The field to reach: kernel and repeats of the reference."""
        return Reference(self.kernel, self.repeats)

    @property
    def reference_params(self) -> int:
        """The weights of the reference.

        >>> EnumerationSetting(channels=64, out_channels=128, repeats=2).reference_params
        221184
        """
        return self.reference.params

    @property
    def reference_macs_per_pixel(self) -> int:
        """The multiply-accumulates of the reference per output pixel of the block."""
        return self.reference.macs_per_pixel(self.stride)

    @property
    def widths_text(self) -> str:
        """The widths as a reader says them.

        >>> EnumerationSetting(channels=64, out_channels=128, bottleneck="1/4").widths_text
        '64 channels by way of 32 to 128'
        """
        text = counted(self.channels, "channel")
        if self.inner_width is not None:
            text += f" by way of {self.inner_width}"
        return text if self.out_channels is None else f"{text} to {self.out_channels}"

    @property
    def within_floors(self) -> str:
        """The floors as a reader says them, behind what they hold for; "" without any.

        >>> EnumerationSetting(floors=Floors(most_groups=8)).within_floors
        ' with at most 8 groups'
        """
        return f" with {self.floors}" if self.floors else ""

    def keeps_peak(self, kinds: Iterable[str]) -> bool:
        """Return whether a composition that fits the widths needs no more memory than it may.

        >>> setting = EnumerationSetting(channels=16, bottleneck="2", most_peak=48)
        >>> setting.keeps_peak(("PW", "PW", "DW")), setting.keeps_peak(("PW", "DW", "PW"))
        (True, False)
        """
        if self.most_peak is None:
            return True
        return self._peak_of(tuple(kinds)) <= self.most_peak

    @property
    def least_peak(self) -> int | None:
        """The least elements per output pixel that are live at once in any composition.

        None where no composition fits the widths. One that enters the width inside, one that holds
        the stride and one that leaves are enough: layers between them need no less. A shuffle alone
        writes nothing, and has no field.

        >>> EnumerationSetting().least_peak, EnumerationSetting(stride=2).least_peak
        (128, 320)
        """
        peaks = []
        for length in range(1, min(self.max_len, 3) + 1):
            for kinds in product(self.usable_kinds, repeat=length):
                with suppress(IfspaceError):
                    if any(KINDS[kind].writes for kind in kinds):
                        peaks.append(self._peak_of(kinds))
        return min(peaks, default=None)

    def _peak_of(self, kinds: tuple[str, ...]) -> int:
        block = Composition(kinds, self.repeats).with_one_group(self.kernel)
        sized = block.at(self.channels, self.out_width, self.bottleneck, self.dims)
        return sized.peak_per_pixel(self.stride)

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the results should know of this setting, one sentence each."""
        dropped = self._dropped_kinds(self.floors)
        if not dropped:
            return ()
        plain = self.out_channels is None and self.bottleneck is None
        prime = plain and all(self.channels % n for n in range(2, self.channels))
        where = f"{self.channels} is prime" if prime else f"at {self.widths_text}"
        has, drop = ("have", "drop") if len(dropped) > 1 else ("has", "drops")
        remain = "remain" if len(self.usable_kinds) > 1 else "remains"
        return (
            f"{where}: {listed(dropped)} {has} no legal group count{self.within_floors} and {drop} "
            f"out; {listed(self.usable_kinds)} {remain}",
        )

    def arguments(self) -> dict[str, Any]:
        """Return the setting as plain JSON values in a fixed order; fractions as text.

        >>> EnumerationSetting(bottleneck="1/4").arguments()["bottleneck"]
        '1/4'
        """
        values: dict[str, Any] = to_plain(self)
        return values

    def options(self) -> dict[str, str]:
        """Return the arguments that are no defaults, as the options of `ifspace enumerate`.

        >>> EnumerationSetting(kinds="DW,PW", floors=Floors(most_groups=8)).options()
        {'kinds': '--kinds PW,DW', 'most_groups': '--most-groups 8'}
        """
        values, defaults = self.arguments(), type(self)().arguments()
        values |= values.pop("floors")
        defaults |= defaults.pop("floors")
        return {
            name: option_text(name, value)
            for name, value in values.items()
            if value != defaults[name]
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the setting that `arguments` came from.

        >>> setting = EnumerationSetting(channels=16, out_channels=32)
        >>> EnumerationSetting.from_arguments(setting.arguments()) == setting
        True

        Raises: SettingError for a name that is no argument, or a value out of its range.
        """
        return from_plain(cls, arguments)


def option_text(name: str, value: Any) -> str:
    """Return an argument as it is given on the command line.

    >>> option_text("max_len", 4), option_text("overlaps", ["0", "1/2"])
    ('--max-len 4', '--overlaps 0,1/2')
    >>> option_text("front", True)
    '--front'
    """
    if value is True:
        return f"--{name.replace('_', '-')}"
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"--{name.replace('_', '-')} {text}"


def orders_of(rpw_order: RpwOrder) -> tuple[str, ...]:
    """Return the orders that a layer may have where `rpw_order` is asked for.

    >>> orders_of("both"), orders_of("blocked")
    (('rolling', 'blocked'), ('blocked',))
    """
    return ORDERS if rpw_order == "both" else (rpw_order,)


def rpw_order_of(block: Block) -> RpwOrder:
    """Return the `rpw_order` that allows the orders of a block.

    >>> rpw_order_of(Block.parse("DW+RPW(8,0,blocked)+GPW(8)"))
    'blocked'
    """
    orders = {layer.order for layer in block.layers if layer.order is not None}
    if len(orders) > 1:
        return "both"
    return "blocked" if BLOCKED in orders else "rolling"


def standard_block(kernel: int, repeats: int = 1) -> Block:
    """Return `repeats` standard convolutions in a row, the reference of every comparison.

    >>> str(standard_block(3, 2))
    '(CONV)x2'
    """
    return Block((Layer(reference_kind().symbol, kernel=kernel),), repeats)


_CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "rule": get_args(Rule),
    "permutation": get_args(Permutation),
    "patterns": get_args(Patterns),
    "compact": get_args(Compact),
    "stride": (1, 2),
    "dims": (1, 2),
    "objective": get_args(SearchObjective),
    "rpw_order": get_args(RpwOrder),
}
