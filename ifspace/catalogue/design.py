"""The catalogue as values: designs and their columns, funnels, dominance, published names."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import accumulate
from operator import attrgetter
from typing import Annotated, Any, Final, get_type_hints

import numpy as np

from ifspace.block import Block, SizedBlock
from ifspace.canonical import network_class
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.kinds import KINDS
from ifspace.reach import field_after
from ifspace.values import counted


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the catalogue: its Arrow type, what it means, and how tables show it.

    `header` is what tables print above it, marked as in `ifspace.table.Table`; only some columns
    are in tables. `nullable`: a design may have no value there. `name` is the name in files, that
    of the field unless given. `since`: the first schema of files that has the column; what older
    files lack is computed from the block when they are read.
    """

    type: str
    meaning: str
    header: str = ""
    nullable: bool = False
    name: str = ""
    since: int = 1


@dataclass(frozen=True, slots=True)
class Design:
    """One survivor of one setting, with its cheapest block: a row of the catalogue.

    Every field is a column of the same name in files, with the meaning that stands here; but the
    information field, (pixels, channels), is two columns. JSON has the fields.
    """

    channels: Annotated[int, Column("int32", "width C that enters the block, channels", ">C")]
    out_channels: Annotated[int, Column("int32", "width F that leaves the block, channels", ">F")]
    bottleneck: Annotated[
        Fraction | None,
        Column(
            "string",
            "ratio K/F of the width inside, exact; null without a bottleneck",
            nullable=True,
        ),
    ]
    repeats: Annotated[
        int,
        Column("int32", "copies of the composition in a row, as many as the reference has layers"),
    ]
    kernel: Annotated[
        int,
        Column("int32", "kernel size k of the spatial layers and of the reference, pixels"),
    ]
    stride: Annotated[int, Column("int32", "stride of the first spatial layer")]
    dims: Annotated[int, Column("int32", "spatial dimensions")]
    composition: Annotated[
        str, Column("string", "kinds from first layer to last, and the number of copies")
    ]
    block: Annotated[
        Block,
        Column("string", "cheapest block of the composition that passes the rule", "block~"),
    ]
    params: Annotated[
        int, Column("int64", "weights of all copies, without bias or normalisation", ">params")
    ]
    macs_per_pixel: Annotated[
        int, Column("int64", "multiply-accumulates of all copies per output pixel", ">MACs/px")
    ]
    activations_per_pixel: Annotated[
        int, Column("int64", "elements written by all copies per output pixel", ">act/px")
    ]
    peak_per_pixel: Annotated[
        int,
        Column(
            "int64",
            "most elements that are live at once per output pixel, layer by layer, input and "
            "output included",
            ">peak/px",
            since=3,
        ),
    ]
    params_ratio: Annotated[
        float,
        Column("float64", "params divided by those of the reference convolutions", ">×CONV"),
    ]
    macs_ratio: Annotated[
        float,
        Column("float64", "macs_per_pixel divided by that of the reference convolutions"),
    ]
    field: Annotated[
        tuple[int, int],
        Column("int32", "spatial information field, side in pixels", name="field_side"),
        Column(
            "int32",
            "channel information field, channels of the block's input",
            name="field_channels",
        ),
    ]
    layers: Annotated[int, Column("int32", "layers of one copy, shuffles included", ">layers")]
    least_fan_in: Annotated[
        int,
        Column(
            "int32",
            "fewest channels that a filter of a channel-mixing layer reads",
            ">least fan-in",
            since=4,
        ),
    ]
    params_formula: Annotated[
        str, Column("string", "params in the symbols C, F, K and groups g_1, g_2, ...")
    ]
    field_condition: Annotated[
        str, Column("string", "what the parameters must meet for the full channel field")
    ]
    irreducible: Annotated[
        bool, Column("bool", "whether no proper sub-sequence of the layers has the field")
    ]
    stands_for: Annotated[
        int | None,
        Column(
            "int64",
            "of a row of a front: choices of all compositions that pass the rule and have the same "
            "amounts, this one included; null without --front",
            ">stands for",
            nullable=True,
            since=5,
        ),
    ] = None
    beats: Annotated[
        int | None,
        Column(
            "int64",
            "of a row of a front: choices of all compositions that pass the rule and are no better "
            "in params, MACs, activations, peak memory, least fan-in and layers and worse in one; "
            "null without --front",
            ">beats",
            nullable=True,
            since=5,
        ),
    ] = None
    dominated_by: Annotated[
        str | None,
        Column(
            "string",
            "first survivor that is no worse in params, MACs, activations and layers and better "
            "in one; of a row of a front, the block of the first row that is so, peak memory and "
            "least fan-in compared too; null if none",
            nullable=True,
        ),
    ] = None
    same_as: Annotated[
        str | None,
        Column(
            "string",
            "simpler composition that the cheapest legal choice amounts to, groups 1 and C "
            "included; null if none",
            nullable=True,
        ),
    ] = None
    published_as: Annotated[
        str | None,
        Column("string", "names of the composition in the literature; null if none", nullable=True),
    ] = None
    network: Annotated[
        str | None,
        Column(
            "string",
            "canonical class of the block: rows with equal values are one network, up to the order "
            "of channels",
            nullable=True,
            since=2,
        ),
    ] = None
    representative: Annotated[
        str | None,
        Column(
            "string",
            "the block of the same network that tables show: fewest layers, then fewest layers of "
            "a kind that frameworks lack (RPW), then canonical order",
            nullable=True,
            since=2,
        ),
    ] = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of one copy, from the first layer to the last."""
        return tuple(layer.kind for layer in self.block.layers)

    @property
    def kinds_key(self) -> tuple[int, ...]:
        """Key of the canonical order among compositions of one length: the kinds' places."""
        places = {symbol: place for place, symbol in enumerate(KINDS)}  # kinds may be added
        return tuple(places[layer.kind] for layer in self.block.layers)

    @property
    def sized(self) -> SizedBlock:
        """The block at the design's widths, all copies in a row."""
        return self.block.at(self.channels, self.out_channels, self.bottleneck, self.dims)

    @property
    def field_as_written(self) -> tuple[int, int]:
        """The exact information field of the block as it stands, (pixels, channels).

        It has fewer channels than `field` where the block was found with the channels permuted
        freely between its layers, and needs such a permutation.
        """
        return field_after(self.sized)[-1]

    @property
    def permutation_note(self) -> str:
        """What a block that lacks the field as written needs; "" for one that has it.

        Reference: [Fog] 3.1.
        """
        channels = self.field_as_written[1]
        if channels == self.field[1]:
            return ""
        return (
            f"needs a channel permutation between its layers "
            f"(sees {channels:,} of {self.channels:,} channels as written)"
        )

    @property
    def representative_key(self) -> tuple[Any, ...]:
        """Key by which the first design of a network represents it.

        Fewest layers, then fewest layers with overlapping windows, which no framework has, then
        canonical order.
        """
        overlapping = sum(layer.conv.takes_overlap for layer in self.block.layers)
        return self.layers, overlapping, self.block.sort_key

    @property
    def replaces(self) -> tuple[Any, ...]:
        """What the design is made for: designs that replace the same can replace each other.

        Input and output width, bottleneck, repeats, kernel, stride, dimensions.
        """
        return (
            self.channels,
            self.out_channels,
            self.bottleneck,
            self.repeats,
            self.kernel,
            self.stride,
            self.dims,
        )

    @property
    def of_front(self) -> bool:
        """Whether the design is a row of a front, which may have several of one composition."""
        return self.stands_for is not None

    @property
    def costs(self) -> tuple[int, ...]:
        """What dominance compares, less is better: parameters, MACs, activations, layers.

        Of a row of a front also peak memory and -least fan-in, before the layers.
        """
        more = (self.peak_per_pixel, -self.least_fan_in) if self.of_front else ()
        return self.params, self.macs_per_pixel, self.activations_per_pixel, *more, self.layers


_COLUMNS_OF: Final[Mapping[str, tuple[Column, ...]]] = {
    attribute: tuple(
        replace(column, name=column.name or attribute) for column in annotation.__metadata__
    )
    for attribute, annotation in get_type_hints(Design, include_extras=True).items()
}
COLUMNS: Final[Mapping[str, Column]] = {
    column.name: column for columns in _COLUMNS_OF.values() for column in columns
}


# Fields that are text in files.
_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "bottleneck": Fraction,
    "block": Block.parse,
}


# Columns that files of the first schema lack: they are filled in for all designs together.
NETWORK_COLUMNS: Final = ("network", "representative")
# Columns that files of older schemas lack and that follow from the block and its stride.
COMPUTED_COLUMNS: Final[Mapping[str, Callable[[SizedBlock, int], Any]]] = {
    "least_fan_in": lambda sized, stride: sized.least_fan_in,
    "peak_per_pixel": SizedBlock.peak_per_pixel,
}
# Columns of a front, null in other catalogues, that files of older schemas lack.
FRONT_COLUMNS: Final = ("stands_for", "beats")


def to_columns(designs: Sequence[Design]) -> dict[str, list[Any]]:
    """Return the values of every column as files have them, one for each design.

    >>> list(to_columns(()))[:3]
    ['channels', 'out_channels', 'bottleneck']
    """
    values: dict[str, list[Any]] = {}
    for attribute, columns in _COLUMNS_OF.items():
        cells = [getattr(design, attribute) for design in designs]
        if attribute in _PARSERS:
            cells = [None if value is None else str(value) for value in cells]
        if len(columns) == 1:
            values[attribute] = cells
        else:
            for index, column in enumerate(columns):
                values[column.name] = [cell[index] for cell in cells]
    return values


def from_columns(values: Mapping[str, Sequence[Any]]) -> tuple[Design, ...]:
    """Return the designs that `to_columns` took apart; columns of later schemas may be missing.

    Raises: BlockError for text in the column `block` that is not the notation, ValueError for a
        bottleneck that is not a ratio.
    """
    cells: dict[str, Iterable[Any]] = {}
    for attribute, columns in _COLUMNS_OF.items():
        if attribute in NETWORK_COLUMNS and attribute not in values:
            continue
        parts = [values.get(column.name, ()) for column in columns]
        cells[attribute] = parts[0] if len(parts) == 1 else zip(*parts, strict=True)
    for attribute, parse in _PARSERS.items():
        texts = values[attribute]
        cells[attribute] = [None if text is None else parse(text) for text in texts]
    for attribute in FRONT_COLUMNS:
        if attribute not in values:
            cells[attribute] = [None] * len(values["block"])
    if missing := COMPUTED_COLUMNS.keys() - values.keys():
        widths = ("block", "channels", "out_channels", "bottleneck", "dims")
        blocks = [
            (block.at(*sizes), stride)
            for stride, block, *sizes in zip(
                values["stride"], *(cells[name] for name in widths), strict=True
            )
        ]
        for name in missing:
            cells[name] = [COMPUTED_COLUMNS[name](*pair) for pair in blocks]
    return tuple(Design(*row) for row in zip(*cells.values(), strict=True))


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many compositions were left after each step, in all and for each length from 1.

    `words_searched`: compositions whose parameters were looked into; the others fell to bounds
    that need none. `choices_covered`: parameter choices that the search decided, most of them
    many at a time; `choices_checked`: those that had to be looked at one by one.
    `distinct_networks`: the networks that the survivors are, each counted once, at the length of
    its shortest block; None where they have not been told apart. Of a front: `choices_passing`, the
    parameter choices that pass the rule, and `rows_by_length`, its rows, of which a composition can
    have several; None for a catalogue with one row a survivor.
    """

    compositions: int
    after_patterns: int
    survivors: int
    compositions_by_length: tuple[int, ...]
    after_patterns_by_length: tuple[int, ...]
    by_length: tuple[int, ...]
    words_searched: int = 0
    choices_covered: int = 0
    choices_checked: int = 0
    distinct_networks: int | None = None
    distinct_networks_by_length: tuple[int, ...] | None = None
    choices_passing: int | None = None
    rows_by_length: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        """How many designs the catalogue has."""
        return self.survivors if self.rows_by_length is None else sum(self.rows_by_length)

    @property
    def steps(self) -> tuple[tuple[str, tuple[int, ...], int], ...]:
        """The steps: name, compositions left of each length from 1, and in all."""
        steps: tuple[tuple[str, tuple[int, ...], int], ...] = (
            ("compositions", self.compositions_by_length, self.compositions),
            ("after repeated patterns", self.after_patterns_by_length, self.after_patterns),
            ("survivors", self.by_length, self.survivors),
        )
        if self.rows_by_length is not None:
            steps += (("trade-offs", self.rows_by_length, self.rows),)
        if self.distinct_networks is None or self.distinct_networks_by_length is None:
            return steps
        networks = self.distinct_networks_by_length, self.distinct_networks
        return (*steps, ("distinct networks", *networks))

    def plus(self, other: "Funnel") -> "Funnel":
        """Return the funnel of two parts of one setting, that of a part."""
        return replace(
            self,
            survivors=self.survivors + other.survivors,
            by_length=tuple(map(sum, zip(self.by_length, other.by_length, strict=True))),
            words_searched=self.words_searched + other.words_searched,
            choices_covered=self.choices_covered + other.choices_covered,
            choices_checked=self.choices_checked + other.choices_checked,
        )

    def with_networks(self, designs: Iterable["Design"]) -> "Funnel":
        """Return the funnel with the networks of its survivors counted."""
        lengths = {design.network: design.layers for design in designs if represents(design)}
        counts = Counter(lengths.values())
        by_length = tuple(counts[length] for length in range(1, len(self.by_length) + 1))
        return replace(self, distinct_networks=len(lengths), distinct_networks_by_length=by_length)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The designs of one or more settings: a funnel for each, and the designs in their order.

    Within a setting designs are in canonical order: length, then kinds in the order of the table.
    `rows`: how many there are, where the designs are only some of them.
    """

    settings: tuple[EnumerationSetting, ...]
    funnels: tuple[Funnel, ...]
    designs: tuple[Design, ...]
    rows: int | None = None

    def designs_of(self, setting: EnumerationSetting) -> tuple[Design, ...]:
        """Return the designs of one setting, in their order."""
        return tuple(design for design in self.designs if design.replaces == setting.replaced)


# The fields before and after `dominated_by`, for `mark_dominated`, and those before the last two.
# dataclasses.replace takes three times as long, seconds on a long catalogue.
_NAMES = [attribute.name for attribute in fields(Design)]
_MARK = _NAMES.index("dominated_by")
_design: Callable[..., Design] = Design
_before, _after = attrgetter(*_NAMES[:_MARK]), attrgetter(*_NAMES[_MARK + 1 :])
_without_network = attrgetter(*_NAMES[: -len(NETWORK_COLUMNS)])


class Dominators:
    """Which of many designs of one setting dominates each of them first.

    A dominator is no worse in all of `Design.costs` and better in one of them; the first is meant
    in canonical order: length, then kinds, then parameters. The designs may be added in any order.

    There are few distinct costs among many designs, and two designs of the same costs have the same
    dominators: only the costs are kept, with the first design of each.
    """

    def __init__(self) -> None:
        """Start with no design."""
        # Of each costs the kinds of the first design, and its name.
        self._first: dict[tuple[int, ...], tuple[tuple[int, ...], str]] = {}
        self._names: dict[tuple[int, ...], str | None] | None = None

    def add(self, design: Design) -> None:
        """Add a design, before any dominator is asked for."""
        key = design.kinds_key
        first = self._first.get(design.costs)
        if first is None or key < first[0]:
            self._first[design.costs] = key, _name(design)

    def of(self, design: Design) -> str | None:
        """Return the name of the first dominator of a design that was added, or None.

        Its composition, or for rows of a front its block.
        """
        if self._names is None:
            self._names = self._dominators()
        return self._names[design.costs]

    def _dominators(self) -> dict[tuple[int, ...], str | None]:
        # Layers are part of the costs, so all designs of the same costs have the same length.
        first = self._first
        distinct = sorted(first, key=lambda costs: (costs[-1], first[costs][0], costs))
        matrix = np.array(distinct, dtype=np.int64)
        names: dict[tuple[int, ...], str | None] = {}
        for index, costs in enumerate(distinct):
            no_worse = (matrix <= matrix[index]).all(axis=1)
            no_worse[index] = False  # the rest differ somewhere, so no worse is better in one
            best = int(no_worse.argmax())
            names[costs] = first[distinct[best]][1] if no_worse[best] else None
        return names


def dominators(designs: Sequence[Design]) -> list[str | None]:
    """Return for each design of one setting the name of its first dominator, or None."""
    among = Dominators()
    for design in designs:
        among.add(design)
    return [among.of(design) for design in designs]


def _name(design: Design) -> str:
    return str(design.block) if design.of_front else design.composition


def mark_dominated(designs: Iterable[Design]) -> tuple[Design, ...]:
    """Return the designs of one setting, in the order given, with `dominated_by` filled in."""
    unmarked = tuple(designs)
    return tuple(
        design if design.dominated_by == name else _design(*_before(design), name, *_after(design))
        for design, name in zip(unmarked, dominators(unmarked), strict=True)
    )


def represents(design: Design) -> bool:
    """Return whether a design represents its network, by itself or with none of it known."""
    return design.representative in (None, str(design.block))


def mark_networks(designs: Iterable[Design]) -> tuple[Design, ...]:
    """Return the designs of one setting, in the order given, with their networks filled in."""
    unmarked = tuple(designs)
    classes = [network_class(design.sized) for design in unmarked]
    firsts: dict[str, Design] = {}
    for network, design in zip(classes, unmarked, strict=True):
        first = firsts.setdefault(network, design)
        if design.representative_key < first.representative_key:
            firsts[network] = design
    texts = {network: str(first.block) for network, first in firsts.items()}
    return tuple(
        _design(*_without_network(design), network, texts[network])
        for network, design in zip(classes, unmarked, strict=True)
    )


def one_a_network(designs: Iterable[Design]) -> tuple[tuple[Design, tuple[Design, ...]], ...]:
    """Return of each network its representative and the other designs that are it.

    The representative is the first of those given, by `Design.representative_key`. Designs for
    other widths, or whose network is not known, are networks of their own. The networks are in the
    order of their representatives.
    """
    every = tuple(designs)
    networks: dict[int, list[Design]] = {}
    for number, design in zip(network_numbers(every), every, strict=True):
        networks.setdefault(number, []).append(design)
    others: dict[int, tuple[Design, ...]] = {}
    for members in networks.values():
        first = min(members, key=lambda design: design.representative_key)
        others[id(first)] = tuple(design for design in members if design is not first)
    return tuple((design, others[id(design)]) for design in every if id(design) in others)


def network_numbers(designs: Iterable[Design]) -> tuple[int, ...]:
    """Return a number for each design, equal for those that are one network.

    The numbers count from 1, in the order of the first designs of the networks. Designs for other
    widths, or whose network is not known, are networks of their own.

    >>> network_numbers(())
    ()
    """
    numbers: dict[Any, int] = {}
    return tuple(
        numbers.setdefault(
            index if design.network is None else (design.replaces, design.network),
            len(numbers) + 1,
        )
        for index, design in enumerate(designs)
    )


def other_ways(designs: Sequence[Design]) -> str:
    """Return that a network can be written as these designs too, and which of them have names.

    >>> other_ways(())
    ''
    """
    if not designs:
        return ""
    named = [
        f"{design.composition}: {design.published_as}" for design in designs if design.published_as
    ]
    ways = f"{len(designs):,} more {'way' if len(designs) == 1 else 'ways'} to write it"
    return f"{ways} ({', '.join(named)})" if named else ways


def permutation_notes(catalogue: Catalogue, designs: Iterable[Design]) -> tuple[str, ...]:
    """Return a note on how many designs of a catalogue need a permutation; none where none does.

    >>> permutation_notes(Catalogue((), (), ()), ())
    ()
    """
    if all(setting.permutation == "explicit" for setting in catalogue.settings):
        return ()
    short = [bool(design.permutation_note) for design in designs]
    if not any(short):
        return ()
    verb = "needs" if sum(short) == 1 else "need"
    return (
        f"{sum(short):,} of {counted(len(short), 'block')} {verb} a channel permutation "
        "between their layers to see all channels: put SH there, or enumerate with --permutation "
        "explicit",
    )


def with_networks(catalogue: Catalogue) -> Catalogue:
    """Return a catalogue of the first schema with its networks told apart and counted.

    Raises: ValueError when the funnels do not add up to the designs.
    """
    funnels: list[Funnel] = []
    designs: list[Design] = []
    ends = accumulate(funnel.rows for funnel in catalogue.funnels)
    for funnel, end in zip(catalogue.funnels, ends, strict=True):
        marked = mark_networks(catalogue.designs[end - funnel.rows : end])
        funnels.append(funnel.with_networks(marked))
        designs += marked
    if len(designs) != len(catalogue.designs):
        raise ValueError(f"{len(catalogue.designs)} designs, {len(designs)} in the funnels")
    return Catalogue(catalogue.settings, tuple(funnels), tuple(designs))


def wrong_cell(catalogue: Catalogue) -> str:
    """Return a cell that disagrees with its row's block, computed anew; "" if there is none.

    The costs, the layers and, unless the permutation was free, the field are recomputed from the
    notation of the block; every row must be of one of the settings, and no row be missing.
    """
    rows = sum(funnel.rows for funnel in catalogue.funnels)
    if len(catalogue.designs) != rows:
        return f"{len(catalogue.designs)} rows, {rows} in the funnels"
    return wrong_row(catalogue.designs, catalogue.settings)


def wrong_row(
    designs: Iterable[Design], settings: Iterable[EnumerationSetting], first: int = 1
) -> str:
    """Return the same of some rows alone, which are numbered from `first`.

    >>> wrong_row((), ())
    ''
    """
    of_widths = {setting.replaced: setting for setting in settings}
    for number, design in enumerate(designs, first):
        setting = of_widths.get(design.replaces)
        if setting is None:
            return f"row {number}: no setting of its widths"
        sized, field = design.sized, None
        if setting.permutation == "explicit":
            field = design.field_as_written
        for name, value in (
            ("composition", str(design.block.composition)),
            ("params", sized.params),
            ("macs_per_pixel", sized.macs_per_pixel(design.stride)),
            ("activations_per_pixel", sized.activations_per_pixel(design.stride)),
            *((name, value(sized, design.stride)) for name, value in COMPUTED_COLUMNS.items()),
            ("params_ratio", sized.params / setting.reference_params),
            ("layers", len(design.block.layers)),
            ("field", field or design.field),
        ):
            if getattr(design, name) != value:
                return f"row {number}: {name} {getattr(design, name)}, its block has {value}"
    return ""


@dataclass(frozen=True, slots=True)
class Published:
    """A published block: its composition, its number of copies, its name and source.

    `free_permutation`, `bottleneck`: the paper has it with a free permutation between layers, or
    with a bottleneck, and without that it does not have the field or is not compact.
    """

    composition: str
    repeats: int
    name: str
    reference: str
    free_permutation: bool = False
    bottleneck: bool = False


PUBLISHED: Final = (
    Published("DW+PW", 1, "MobileNet", "[3DRF] 4.2, block B"),
    Published("DW+PW", 1, "Xception (inside)", "[3DRF] 4.2, block A"),
    Published("DW+PW", 1, "Fog 3.2", "[Fog] 3.2"),
    Published("GC+SH+GPW", 2, "clcNet", "[3DRF] 4.2, block C; [IF]"),
    Published("GC+SH+GPW", 1, "Fog 3.2", "[Fog] 3.2: GC+PWG with a permutation between"),
    Published(
        "GC+GPW", 1, "Fog 3.2", "[Fog] 3.2, the permutation left free", free_permutation=True
    ),
    Published("PW+DW+PW", 1, "Fog 3.2", "[Fog] 3.2, with bottleneck 1/4", bottleneck=True),
    Published("GPW+SH+DW+GPW", 2, "ShuffleNet", "[3DRF] 4.2, block D; [IF]"),
    Published("GPW+SH+DW+GPW", 1, "Fog 3.2", "[Fog] 3.2: PWG+DW+PWG with a permutation"),
    Published(
        "GPW+DW+GPW", 1, "Fog 3.2", "[Fog] 3.2, the permutation left free", free_permutation=True
    ),
    Published("DW+RPW", 2, "3DRF 4.2", "[3DRF] 4.2, block F"),
    Published("DW+SH+GPW", 1, "3DRF 4.2", "[3DRF] 4.2, the first new block"),
)
_TIMES: Final = {1: "once", 2: "twice"}


def published_names(
    composition: str, repeats: int = 1, withheld: Collection[Published] = ()
) -> str | None:
    """Return the names of a composition, joined by "; ", or None for one without a name.

    A block that was published with another number of copies says with how many; names in `withheld`
    are left out.

    >>> published_names("DW+PW"), published_names("GC+SH+GPW")
    ('MobileNet; Xception (inside); Fog 3.2', 'clcNet (twice); Fog 3.2')
    >>> published_names("PW+PW") is None
    True
    """
    one_copy = composition.partition(")")[0].lstrip("(")
    names = []
    for entry in PUBLISHED:
        if entry.composition == one_copy and entry not in withheld:
            times = _TIMES.get(entry.repeats, f"{entry.repeats} times")
            names.append(entry.name if entry.repeats == repeats else f"{entry.name} ({times})")
    return "; ".join(names) or None
