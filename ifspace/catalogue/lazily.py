"""What an answer needs of catalogues that are too long to hold: few rows, and the same answer.

Rows are read some at a time with pyarrow.dataset: the columns that are compared, and of these the
rows within the bounds. Kept are the best ranks, the least of each amount, the first rows that
dominate those and, where it is asked for, the running Pareto front; then all rows of the same
networks. Of these rows `best` and `next_better` say what they would say of all. Which row stands
for a network is known when all rows of the network are there: rows that turn out to stand for none
are passed over, and the catalogue is read again without them.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import reduce
from math import inf
from operator import and_, or_
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from ifspace.block import Block, SizedBlock
from ifspace.catalogue import dataset
from ifspace.catalogue.choose import (
    AMOUNTS,
    DESIGN_AMOUNTS,
    LATENCY,
    LEAST_FAN_IN,
    PEAK_MEMORY,
    PeakMemory,
    amount_of,
    check_answers,
    usable,
    within_bounds,
)
from ifspace.catalogue.design import (
    COLUMNS,
    Catalogue,
    Design,
    Funnel,
    from_columns,
    one_a_network,
    wrong_row,
)
from ifspace.catalogue.parts import Whole, in_order
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.catalogue.shards import Shards
from ifspace.errors import CatalogueError, IfspaceError
from ifspace.floors import NO_FLOORS, Floors
from ifspace.kinds import KINDS, canonical_kinds
from ifspace.latency import BlockLatency

# Catalogues of more rows are read some rows at a time.
LONG: Final = dataset.CHECKED_ROWS
# Rows that are read at a time.
BATCH: Final = 1 << 15
# So many rows are tried where one is asked for: some may stand for no network.
TRIED: Final = 8
# Networks whose names are held at a time when they are counted.
COUNTED: Final = 1 << 18
_WIDTHS: Final = ("channels", "out_channels", "bottleneck", "repeats", "kernel", "stride", "dims")
_AMOUNTS: Final = tuple(DESIGN_AMOUNTS)
_TEXTS: Final = ("composition", "block", "network")
_LAYERS: Final = _AMOUNTS.index("layers")


@dataclass(frozen=True, slots=True)
class Row:
    """A row that an answer may be about.

    `place`: key of the order of the catalogue; `replaced`: what it replaces.
    """

    source: int
    place: tuple[Any, ...]
    replaced: tuple[Any, ...]
    block: str
    composition: str
    network: str | None

    @property
    def key(self) -> tuple[Any, ...]:
        """What no other row has, but the same row of another catalogue."""
        return self.replaced, self.block


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows that are read together; all of them replace the same.

    `amounts` [rows, amounts]: in the order of DESIGN_AMOUNTS, less is better. `place`: of the
    setting, where rows of several files are in one order. `start`: of the first in its file.
    `name`: of the catalogue, for messages.
    """

    name: str
    source: int
    file: int
    setting: int | None
    start: int
    replaced: tuple[Any, ...]
    batch: Any
    amounts: Any

    def row(self, index: int) -> Row:
        """Return one of the rows."""
        block, composition, network = (
            self.batch.column(name)[index].as_py() for name in ("block", "composition", "network")
        )
        place: tuple[Any, ...] = (self.source, 0, 0, (), self.file, self.start + index)
        if self.setting is not None:
            layers = int(self.amounts[index, _LAYERS])
            with _parsing(self.name):
                kinds = _kinds_key(composition)
            place = (self.source, self.setting, layers, kinds, self.file, self.start + index)
        return Row(self.source, place, self.replaced, block, composition, network)

    def sized(self) -> Iterator[SizedBlock]:
        """Yield the blocks at their widths."""
        channels, out, bottleneck, *_, dims = self.replaced
        for text in self.batch.column("block").to_pylist():
            with _parsing(self.name):
                sized = Block.parse(text).at(channels, out, bottleneck, dims)
            yield sized


@contextmanager
def _parsing(name: str) -> Iterator[None]:
    """Raise CatalogueError, with the name of the catalogue, where cells cannot be parsed."""
    try:
        yield
    except (IfspaceError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise dataset.senseless(name, "rows that make no sense", error) from None


def _kinds_key(composition: str) -> tuple[int, ...]:
    places = {symbol: place for place, symbol in enumerate(KINDS)}
    return tuple(places[kind] for kind in composition.partition(")")[0].lstrip("(").split("+"))


class LongCatalogue:
    """A catalogue whose rows are read some at a time: a file, or the folder of a run."""

    def __init__(
        self,
        place: str,
        settings: Sequence[EnumerationSetting],
        funnels: Sequence[Funnel],
        rows: int,
        fragments: Sequence[tuple[Any, int | None]],
        shards: Shards | None = None,
    ) -> None:
        """Take its fragments, each with the place of its setting where that is known."""
        self.place = place
        self.settings = tuple(settings)
        self.funnels = tuple(funnels)
        self.rows = rows
        self._fragments = tuple(fragments)
        self._shards = shards

    @classmethod
    def open(cls, place: str | Path) -> Self | None:
        """Return a catalogue; None for a file of an older schema, which lacks columns.

        Raises: CatalogueError as `load`.
        """
        import pyarrow.dataset

        # Without a buffer of the whole file ahead of what is read.
        options = pyarrow.dataset.ParquetFragmentScanOptions(
            page_checksum_verification=True, pre_buffer=False, use_buffered_stream=True
        )
        form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=options)
        if not dataset.is_folder(place):
            about = dataset.read_about(place)
            if about.schema != dataset.SCHEMA_VERSION:
                return None
            fragment = form.make_fragment(str(place), pyarrow.fs.LocalFileSystem())
            return cls(str(place), about.settings, about.funnels, about.rows, [(fragment, None)])
        shards = Shards.read(place)
        files, folder = shards.folder.arrow()
        fragments = [
            (form.make_fragment(f"{folder}/{shards.name(number)}", files), setting)
            for number, (setting, _) in enumerate(shards.manifest.places())
        ]
        settings, funnels = shards.manifest.settings, shards.part_funnels()
        return cls(str(place), settings, funnels, shards.rows, fragments, shards)

    def scan(self, source: int, texts: Sequence[str], condition: Any = None) -> Iterator[Rows]:
        """Yield the rows that meet a condition on columns, with some columns of texts.

        Raises: CatalogueError where the catalogue is damaged.
        """
        several = self._shards is None and len(self.settings) > 1
        amounts = [DESIGN_AMOUNTS[name][0] for name in _AMOUNTS]
        columns = [*amounts, *texts, *(_WIDTHS if several else ())]
        for file, (fragment, setting) in enumerate(self._fragments):
            start = 0
            for batch in self._batches(fragment, columns, condition):
                matrix = np.column_stack(
                    [
                        (-1 if name == LEAST_FAN_IN else 1)
                        * batch.column(column).to_numpy(zero_copy_only=False).astype(np.int64)
                        for name, column in zip(_AMOUNTS, amounts, strict=True)
                    ]
                )
                for begin, end, replaced in self._runs(batch, setting, several):
                    some = batch.slice(begin, end - begin)
                    yield Rows(
                        self.place,
                        source,
                        file,
                        setting,
                        start + begin,
                        replaced,
                        some,
                        matrix[begin:end],
                    )
                start += len(batch)

    def _batches(self, fragment: Any, columns: Sequence[str], condition: Any) -> Iterator[Any]:
        import pyarrow

        try:
            for batch in fragment.to_batches(
                columns=list(columns),
                filter=condition,
                batch_size=BATCH,
                batch_readahead=1,
                fragment_readahead=1,
                use_threads=False,
            ):
                if len(batch):
                    yield batch
        except (pyarrow.ArrowException, OSError) as error:
            raise CatalogueError.because(
                f"{self.place} is not a catalogue that can be read",
                got=" ".join(str(error).split())[:80],
                allowed="a whole file or folder written by ifspace",
                remedy="`ifspace merge FOLDER` finds what is damaged in a folder; write a file "
                "anew",
            ) from None

    def _designs(self, batch: Any) -> tuple[Design, ...]:
        with _parsing(self.place):
            return from_columns(batch.to_pydict())

    def _runs(
        self, batch: Any, setting: int | None, several: bool
    ) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
        """Yield the rows that follow each other and replace the same: from, to, and what."""
        if not several:
            yield 0, len(batch), self.settings[setting or 0].replaced
            return
        replaced = {_as_texts(one.replaced): one.replaced for one in self.settings}
        cells = list(zip(*(batch.column(name).to_pylist() for name in _WIDTHS), strict=True))
        begin = 0
        for index in range(1, len(cells) + 1):
            if index == len(cells) or cells[index] != cells[begin]:
                with _parsing(self.place):
                    own = replaced[_as_texts(cells[begin])]
                yield begin, index, own
                begin = index

    def designs(self) -> Iterator[Design]:
        """Yield all rows, whole, in the order of the catalogue, few of them in memory.

        Raises: CatalogueError where the catalogue is damaged.
        """
        if self._shards is not None:
            yield from self._shards.designs()
            return
        for fragment, _ in self._fragments:
            for batch in self._batches(fragment, list(COLUMNS), None):
                for start in range(0, len(batch), dataset.PART_ROWS):
                    yield from self._designs(batch.slice(start, dataset.PART_ROWS))

    def fetch(self, condition: Any) -> list[Design]:
        """Return the rows that meet a condition, whole, in the order of the catalogue.

        Those of a folder have no more than their part knew; `completed` adds the rest.
        """
        columns = list(COLUMNS)
        parts: dict[int | None, list[list[Design]]] = {}
        for fragment, setting in self._fragments:
            designs: list[Design] = []
            for batch in self._batches(fragment, columns, condition):
                designs += self._designs(batch)
            parts.setdefault(setting, []).append(designs)
        return [design for lists in parts.values() for design in in_order(lists)]

    def completed(self, designs: Iterable[Design]) -> tuple[Design, ...]:
        """Return fetched rows with what the rest of the catalogue says of them.

        All rows of the same networks are among them.
        """
        every = tuple(designs)
        if self._shards is None:
            return every
        wholes = [Whole(setting.max_len, setting.front) for setting in self.settings]
        places = {setting.replaced: n for n, setting in enumerate(self.settings)}
        shards = self._shards
        for (setting, _), part in zip(shards.manifest.places(), shards.counted, strict=True):
            wholes[setting].see(part.funnel, part.amounts)
        firsts = self._first_of_each_costs()
        for design in self.fetch(_one_of("block", [row.block for row in firsts])):
            wholes[places[design.replaces]].see_designs((design,))
        for design in every:
            wholes[places[design.replaces]].see_designs((design,))
        return tuple(wholes[places[design.replaces]].completed(design) for design in every)

    def check(self) -> None:
        """Compare every row with its block, computed anew.

        Raises: CatalogueError for the first that disagrees.
        """
        for fragment, _ in self._fragments:
            number = 1
            for batch in self._batches(fragment, list(COLUMNS), None):
                designs = self._designs(batch)
                if wrong := wrong_row(designs, self.settings, number):
                    raise dataset.unreadable(self.place, wrong)
                number += len(designs)

    def _first_of_each_costs(self) -> list[Row]:
        """Return of each costs of each setting the first row: dominance compares no others."""
        firsts: dict[tuple[Any, ...], Row] = {}
        for rows in self.scan(0, _TEXTS):
            costs, indices = np.unique(rows.amounts, axis=0, return_index=True)
            for amounts, index in zip(costs, indices, strict=True):
                key = rows.setting, *amounts.tolist()
                row = rows.row(int(index))
                if key not in firsts or row.place < firsts[key].place:
                    firsts[key] = row
        return list(firsts.values())


def long_catalogues(
    places: Sequence[str | Path], check: bool | None = None
) -> list[LongCatalogue] | None:
    """Return catalogues that are too long together to be read whole; None for short ones.

    `check`: as of `load`; where it is asked for, every row is compared with its block here.

    Raises: CatalogueError as `load`.
    """
    catalogues = []
    for place in places:
        catalogue = LongCatalogue.open(place)
        if catalogue is None:
            return None
        catalogues.append(catalogue)
    if sum(catalogue.rows for catalogue in catalogues) <= LONG:
        return None
    for catalogue in catalogues if check else ():
        catalogue.check()
    return catalogues


def _as_texts(replaced: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(None if value is None else str(value) for value in replaced)


def _one_of(column: str, values: Iterable[str]) -> Any:
    from pyarrow import array, compute, string

    return compute.field(column).isin(array(sorted(set(values)), string()))


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of catalogues: the arguments of `best`, which explains them.

    `bounds`: on the amounts of AMOUNTS, by their names. `rows`: how many of the best are shown;
    with `each_width` of each width, and with the Pareto front of each for `next_better`; with
    `each_length` of each width and length.
    """

    rows: int
    each_width: bool = False
    each_length: bool = False
    by: str = "params"
    every_row: bool = False
    kinds: tuple[str, ...] | None = None
    channels: int | None = None
    bounds: Mapping[str, int | None] = field(default_factory=dict)
    floors: Floors = NO_FLOORS
    peak_memory: PeakMemory | None = None
    latency: BlockLatency | None = None
    latency_ms: Fraction | float | None = None


@dataclass(frozen=True, slots=True)
class _Bound:
    """The most that a row may have of a value, as `choose` has it of a design.

    `values`: of rows; `condition`: the same on columns, None where it is not about one.
    """

    values: Callable[[Rows], Any]
    most: float
    condition: Any = None


class _Criteria:
    """A question in terms of rows: which are usable, which are within the bounds."""

    def __init__(self, question: Question) -> None:
        from pyarrow import compute

        self.question = question
        self._bounds = tuple(self._all_bounds())
        self._pattern = ""
        conditions = []
        if question.channels is not None:
            conditions.append(compute.field("channels") == question.channels)
        if question.kinds is not None:
            others = "|".join(sorted(set(KINDS) - set(canonical_kinds(question.kinds))))
            self._pattern = rf"(^|[+(])({others})($|[+)])" if others else ""
        if self._pattern:
            composition = compute.field("composition")
            conditions.append(~compute.match_substring_regex(composition, pattern=self._pattern))
        # What is read at all: the rows that are usable, and those within the bounds.
        self.usable = reduce(and_, conditions) if conditions else None
        conditions += [bound.condition for bound in self._bounds if bound.condition is not None]
        self.within = reduce(and_, conditions) if conditions else None
        self.asks = bool(self._pattern or self._bounds)

    def _all_bounds(self) -> Iterator[_Bound]:
        from pyarrow import compute

        question = self.question
        for name, most in question.bounds.items():
            if most is not None:
                column = compute.field(AMOUNTS[name][0])
                yield _Bound(_values(name), most, column <= most)
        yield from self._floors()
        if (peak := question.peak_memory) is not None:
            bytes_of = _values(PEAK_MEMORY)
            yield _Bound(lambda rows: bytes_of(rows) * peak.unit(rows.replaced[-1]), peak.most)
        if question.latency_ms is not None:
            yield _Bound(self.ms, float(question.latency_ms))

    def _floors(self) -> Iterator[_Bound]:
        from pyarrow import compute

        floors = self.question.floors
        if floors.asks("least_fan_in"):
            least = floors.least_fan_in
            column = compute.field(DESIGN_AMOUNTS[LEAST_FAN_IN][0])
            yield _Bound(_values(LEAST_FAN_IN), -least, column >= least)
        others = floors.without("least_fan_in")
        if others:
            yield _Bound(lambda rows: np.array([not x.meets(others) for x in rows.sized()]), 0)

    def has_floors(self, rows: Rows) -> Any:
        """Return which rows have the floors."""
        kept = np.ones(len(rows.amounts), bool)
        for bound in self._floors():
            kept &= bound.values(rows) <= bound.most
        return kept

    def ms(self, rows: Rows) -> Any:
        """Return the latencies of rows, in ms; infinite where they are not known."""
        latency = self.question.latency
        assert latency is not None
        stride = rows.replaced[_WIDTHS.index("stride")]
        times = (latency(sized, stride) for sized in rows.sized())
        return np.array([inf if time is None else float(time.ms) for time in times])

    def values(self, rows: Rows) -> Any:
        """Return all amounts of rows [rows, amounts], the latency last where it is one."""
        if self.question.latency is None:
            return rows.amounts
        return np.column_stack([rows.amounts, self.ms(rows)])

    def is_usable(self, rows: Rows) -> Any:
        """Return which rows are for the width, and of the kinds."""
        from pyarrow import compute

        usable = np.full(len(rows.amounts), self.question.channels in (None, rows.replaced[0]))
        if self._pattern:
            column = rows.batch.column("composition")
            others = compute.match_substring_regex(column, self._pattern)
            usable &= ~others.to_numpy(zero_copy_only=False)
        return usable

    def is_within(self, rows: Rows, but: int | None = None) -> Any:
        """Return which rows are within all bounds, or within all but one."""
        within = np.ones(len(rows.amounts), bool)
        for index, bound in enumerate(self._bounds):
            if index != but:
                within &= bound.values(rows) <= bound.most
        return within

    def compared(self, is_front: bool) -> list[int]:
        """Return which amounts dominance compares, as `best` says of its reasons."""
        question = self.question
        names = set(_AMOUNTS) if is_front else set(AMOUNTS)
        names |= {PEAK_MEMORY} if question.peak_memory is not None else set()
        names |= {LEAST_FAN_IN} if question.floors else set()
        names |= {question.by} - {LATENCY}
        indices = [index for index, name in enumerate(_AMOUNTS) if name in names]
        return indices + [len(_AMOUNTS)] * (question.latency is not None)

    def ranks(self) -> list[int]:
        """Return which amounts `best` ranks by, one after the other."""
        by = self.question.by
        names = [name for name in AMOUNTS if name != by]
        first = len(_AMOUNTS) if by == LATENCY else _AMOUNTS.index(by)
        return [first, *map(_AMOUNTS.index, names)]

    def witnesses(self, rows: Rows) -> Iterator[tuple[Any, float, int]]:
        """Yield rows that say which bounds are too tight: what for, a value, and its row.

        Of each bound the least value of the rows within all others, and of all rows.
        """
        for number, bound in enumerate(self._bounds):
            values = bound.values(rows)
            for all_rows in (True, False):
                some = (
                    np.arange(len(values))
                    if all_rows
                    else np.flatnonzero(self.is_within(rows, number))
                )
                if len(some):
                    index = some[values[some].argmin()]
                    yield (number, all_rows), float(values[index]), int(index)


def _values(name: str) -> Callable[[Rows], Any]:
    place = _AMOUNTS.index(name)
    return lambda rows: rows.amounts[:, place]


Excluded = dict[tuple[Any, ...], set[str]]


class _Survey:
    """What reading the rows of all catalogues once finds: rows that an answer may be about.

    `excluded`: blocks of rows that stand for no network, by what they replace.
    """

    def __init__(self, catalogues: Sequence[LongCatalogue], criteria: _Criteria) -> None:
        self._catalogues = catalogues
        self._criteria = criteria
        self.excluded: Excluded = {}

    def rows(self, condition: Any) -> Iterator[tuple[Rows, Any]]:
        """Yield rows with the mask of those that are not excluded."""
        from pyarrow import array, compute, string

        for source, catalogue in enumerate(self._catalogues):
            for rows in catalogue.scan(source, _TEXTS, condition):
                blocks = self.excluded.get(rows.replaced)
                mask = np.ones(len(rows.amounts), bool)
                if blocks:
                    column = rows.batch.column("block")
                    in_blocks = compute.is_in(column, value_set=array(sorted(blocks), string()))
                    mask &= ~in_blocks.to_numpy(zero_copy_only=False)
                yield rows, mask

    def exclude(self, rows: Iterable[Row]) -> None:
        """Pass over rows from now on."""
        for row in rows:
            self.excluded.setdefault(row.replaced, set()).add(row.block)

    def best(self, size: int) -> tuple[dict[Any, list[Row]], dict[Any, list[Row]]]:
        """Return the first rows in rank, `size` of each group, and those with the least amounts.

        The groups are the widths, with their lengths where these are asked for, or all together.
        """
        question = self._criteria.question
        order = self._criteria.ranks()
        ranked: dict[Any, list[tuple[tuple[Any, ...], Row]]] = {}
        least: dict[Any, tuple[float, list[Row]]] = {}
        for rows, mask in self.rows(self._criteria.within):
            indices = np.flatnonzero(mask & self._criteria.is_within(rows))
            if not len(indices):
                continue
            values = self._criteria.values(rows)[indices]
            lengths = values[:, _LAYERS] * question.each_length
            for length in np.unique(lengths).tolist():
                group = (rows.replaced if question.each_width else None), length
                some = np.flatnonzero(lengths == length)
                window = ranked.setdefault(group, [])
                _rank(window, rows, indices[some], values[some][:, order], size)
            for name, column in enumerate(values.T):
                value, witnesses = least.get((rows.replaced, name), (inf, []))
                least_here = column.min()
                if least_here < value:
                    value, witnesses = least_here, []
                if least_here == value < inf:
                    some = indices[column == value][: TRIED - len(witnesses)]
                    witnesses = [*witnesses, *(rows.row(int(index)) for index in some)]
                least[rows.replaced, name] = value, witnesses
        return (
            {group: [row for _, row in window] for group, window in ranked.items()},
            {key: witnesses for key, (_, witnesses) in least.items()},
        )

    def dominators(self, targets: Mapping[Any, Any], fronts: set[Any]) -> dict[Any, list[Row]]:
        """Return of targets, what they replace and their amounts, the first rows that beat them."""
        dominators: dict[Any, list[Row]] = {target: [] for target in targets}
        full: set[tuple[Any, ...]] = set()
        for rows, mask in self.rows(self._criteria.within):
            own = [target for target in targets if target[0] == rows.replaced]
            own = [target for target in own if (rows.source, rows.file, target) not in full]
            indices = np.flatnonzero(mask & self._criteria.is_within(rows)) if own else ()
            if not len(indices):
                continue
            compared = self._criteria.compared(rows.replaced in fronts)
            values = self._criteria.values(rows)[indices][:, compared]
            distinct, inverse = np.unique(values, axis=0, return_inverse=True)
            for target in own:
                amounts = np.array(target[1])[compared]
                better = np.flatnonzero(_beats(distinct, amounts))
                some = indices[np.isin(inverse.reshape(-1), better)][:TRIED]
                dominators[target] += [rows.row(int(index)) for index in some]
                dominators[target] = sorted(dominators[target], key=lambda row: row.place)[:TRIED]
                if len(some) == TRIED:
                    full.add((rows.source, rows.file, target))
        return dominators

    def fronts(self) -> dict[Any, dict[tuple[float, ...], list[Row]]]:
        """Return what no usable row beats in all amounts: the first rows of each such amounts."""
        fronts: dict[Any, dict[tuple[float, ...], list[Row]]] = {}
        for rows, mask in self.rows(self._criteria.usable):
            indices = np.flatnonzero(mask)
            if len(indices):
                values = self._criteria.values(rows)[indices]
                _unbeaten(fronts.setdefault(rows.replaced, {}), rows, indices, values)
        return fronts

    def networks(self, first: str) -> set[Any]:
        """Return the networks within the bounds whose names begin so."""
        from pyarrow import array, compute

        begins = compute.starts_with(compute.field("network"), first)
        condition = begins if self._criteria.within is None else begins & self._criteria.within
        names: set[Any] = set()
        for rows, _ in self.rows(condition):
            within = self._criteria.is_within(rows)
            texts = rows.batch.column("network").filter(array(within))
            names.update((rows.replaced, name) for name in texts.unique().to_pylist())
        return names

    def tight(self) -> list[Row]:
        """Return the rows that say which bounds are too tight, where none is within all."""
        least: dict[Any, tuple[float, Row]] = {}
        for rows, mask in self.rows(self._criteria.usable):
            if not mask.any():
                continue
            for key, value, index in self._criteria.witnesses(rows):
                if key not in least or value < least[key][0]:
                    least[key] = value, rows.row(index)
        return [row for _, row in least.values()]

    def examples(self) -> list[Row]:
        """Return a row for each of the widths, and one that is not within the bounds."""
        first_rows: dict[Any, Row] = {}
        widths = {setting.replaced for one in self._catalogues for setting in one.settings}
        asks = self._criteria.asks
        channels = self._criteria.question.channels
        for rows, _ in self.rows(None):
            first_rows.setdefault(rows.replaced, rows.row(0))
            if asks and None not in first_rows and channels in (None, rows.replaced[0]):
                outside = ~(self._criteria.is_usable(rows) & self._criteria.is_within(rows))
                if outside.any():
                    first_rows[None] = rows.row(int(outside.argmax()))
            if len(first_rows) == len(widths) + asks:
                break
        return list(first_rows.values())


def _rank(
    window: list[tuple[tuple[Any, ...], Row]], rows: Rows, indices: Any, ranks: Any, size: int
) -> None:
    """Put the best of some rows, with their amounts in the order of ranking, into a window."""
    order = np.lexsort(ranks.T[::-1])
    for position in order:
        amounts = tuple(ranks[position].tolist())
        if len(window) >= size:
            last = window[-1][0]
            # What stands behind the last of a window without windows stays behind it.
            stays_behind = amounts == last[0] and last[1] == (0, 0) and rows.setting is None
            if amounts > last[0] or stays_behind:
                return
        index = int(indices[position])
        row = rows.row(index)
        with _parsing(rows.name):
            windows = Block.parse(row.block).window_counts
        insort(window, ((amounts, windows, row.place), row))
        del window[size:]


def _unbeaten(
    front: dict[tuple[float, ...], list[Row]], rows: Rows, indices: Any, values: Any
) -> None:
    """Add rows to a front, and take out what they beat."""
    distinct, inverse = np.unique(values, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    present = np.array(list(front)).reshape(-1, distinct.shape[1])
    every = np.unique(np.concatenate([present, distinct]), axis=0)
    left = {
        tuple(amounts)
        for index, amounts in enumerate(every.tolist())
        if not _beats(every, every[index]).any()
    }
    for amounts in [amounts for amounts in front if amounts not in left]:
        del front[amounts]
    for number, amounts in enumerate(map(tuple, distinct.tolist())):
        if amounts in left:
            some = indices[inverse == number][:TRIED]
            alike = [*front.get(amounts, ()), *(rows.row(int(index)) for index in some)]
            front[amounts] = sorted(alike, key=lambda row: row.place)[:TRIED]


def _beats(others: Any, amounts: Any) -> Any:
    """Return which of others [rows, amounts] are no worse in all amounts and better in one."""
    return (others <= amounts).all(axis=1) & (others < amounts).any(axis=1)


def needed(
    catalogues: Sequence[LongCatalogue], question: Question, others: Any = None
) -> list[Catalogue]:
    """Return of catalogues the rows that an answer is about, which are the same as of all rows.

    That is what `best` answers with the arguments of the question, down to its first `rows`, and
    what `next_better` and `tight_bounds` then say. `others`: a condition on columns of rows that
    are there too.

    Raises: CatalogueError where one is damaged; SettingError as `best` for floors that they were
        not made for.
    """
    criteria = _Criteria(question)
    survey = _Survey(catalogues, criteria)
    for source, catalogue in enumerate(catalogues):

        def counts(
            setting: EnumerationSetting, source: int = source, catalogue: Any = catalogue
        ) -> tuple[int, int]:
            rows = (x for x in catalogue.scan(source, _TEXTS) if x.replaced == setting.replaced)
            lacks = [(~criteria.has_floors(some)) for some in rows]
            return sum(int(some.sum()) for some in lacks), sum(map(len, lacks))

        check_answers(catalogue.settings, question.floors, question.channels, counts)
    kept = _Kept(catalogues, criteria)
    kept.add(survey.examples())
    for source, catalogue in enumerate(catalogues if others is not None else ()):
        for some in catalogue.scan(source, _TEXTS, others):
            kept.add(map(some.row, range(len(some.amounts))))
    fronts = {setting.replaced: setting.front for one in catalogues for setting in one.settings}
    of_front = {replaced for replaced, is_front in fronts.items() if is_front}
    size = 4 * question.rows + 2 * TRIED
    while True:
        ranked, least = survey.best(size)
        if not ranked:
            kept.add(survey.tight())
            break
        kept.add(row for rows in (*ranked.values(), *least.values()) for row in rows)
        wrong = [row for rows in ranked.values() for row in rows if not kept.stands(row)]
        standing = [
            {row.key for row in rows if kept.stands(row)}
            for rows in ranked.values()
            if len(rows) == size
        ]
        lacking = any(len(rows) < question.rows for rows in standing)
        unknown = [rows for rows in least.values() if rows and not any(map(kept.stands, rows))]
        if not (lacking or unknown):
            break
        survey.exclude([*wrong, *(row for rows in unknown for row in rows)])
    targets: dict[Any, None] = {}
    # Of rows by length only their own columns are shown, no reasons.
    for rows in ranked.values() if not question.each_length else ():
        shown = [row for row in rows if kept.stands(row)][: question.rows]
        targets |= dict.fromkeys((row.replaced, kept.amounts(row)) for row in shown)
    compositions: set[str] = set()
    while targets:
        dominators = survey.dominators(targets, of_front)
        kept.add(row for rows in dominators.values() for row in rows)
        compositions |= {row.composition for rows in dominators.values() for row in rows}
        undecided = {
            target: rows
            for target, rows in dominators.items()
            if rows and not any(map(kept.stands, rows)) and len(rows) == TRIED
        }
        survey.exclude(row for rows in undecided.values() for row in rows)
        targets = dict.fromkeys(undecided)
    if of_front:
        # Of several rows of a composition the one that dominates is named by its block.
        kept.add_compositions(compositions)
    while question.each_width:
        alike = [rows for front in survey.fronts().values() for rows in front.values()]
        kept.add(row for rows in alike for row in rows)
        unknown = [rows for rows in alike if not any(map(kept.is_usable, rows))]
        if not unknown:
            break
        survey.exclude(row for rows in unknown for row in rows)
    return kept.catalogues()


# Of each length so many networks are shown of a long catalogue.
SHOWN: Final = 100


def load_shown(place: str | Path) -> Catalogue:
    """Return a catalogue to show: of a long one some rows, and how many it has.

    Those are of each length the SHOWN networks of the fewest parameters, the published blocks, and
    what nothing beats.

    Raises: CatalogueError as `load`.
    """
    long = long_catalogues([place])
    if long is None:
        return dataset.load(place)
    from pyarrow import compute

    question = Question(SHOWN, each_width=True, each_length=True)
    named = compute.is_valid(compute.field("published_as"))
    (catalogue,) = needed(long, question, named)
    return replace(catalogue, rows=long[0].rows)


class _Kept:
    """The rows that an answer is about, with all rows of the same networks."""

    def __init__(self, catalogues: Sequence[LongCatalogue], criteria: _Criteria) -> None:
        self._catalogues = catalogues
        self._criteria = criteria
        # All that were asked for, and of them those that were not read yet.
        self._networks: set[str] = set()
        self._blocks: set[str] = set()
        self._new: tuple[set[str], set[str]] = (set(), set())
        self._designs: list[Design] = []
        self._standing: dict[tuple[Any, ...], Design] = {}
        self._usable: set[tuple[Any, ...]] = set()

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows, and with them their networks."""
        for row in rows:
            texts, new, text = (self._networks, self._new[0], row.network)
            if text is None:
                texts, new, text = (self._blocks, self._new[1], row.block)
            if text not in texts:
                texts.add(text)
                new.add(text)

    def add_compositions(self, compositions: Iterable[str]) -> None:
        """Keep all rows of compositions."""
        for catalogue in self._catalogues:
            designs = catalogue.fetch(_one_of("composition", compositions))
            for design in designs:
                about = design.replaces, str(design.block), design.composition, design.network
                self.add([Row(0, (), *about)])

    def _read(self) -> None:
        """Read the networks that were not read yet, and find out which rows stand for them."""
        networks, blocks = self._new
        if not (networks or blocks):
            return
        condition = _alike(networks, blocks)
        for catalogue in self._catalogues:
            self._designs += catalogue.fetch(condition)
        networks.clear()
        blocks.clear()
        question = self._criteria.question
        at_width = [x for x in self._designs if question.channels in (None, x.channels)]
        allowed = usable(at_width, question.kinds)
        within = within_bounds(
            allowed,
            question.bounds,
            question.floors,
            question.peak_memory,
            question.latency,
            question.latency_ms,
        )
        standing = within if question.every_row else [x for x, _ in one_a_network(within)]
        self._standing = {(x.replaces, str(x.block)): x for x in standing}
        self._usable = {(x.replaces, str(x.block)) for x, _ in one_a_network(allowed)}

    def stands(self, row: Row) -> bool:
        """Return whether a row is one of the answer's: among those within the bounds."""
        self._read()
        return row.key in self._standing

    def is_usable(self, row: Row) -> bool:
        """Return whether a row stands for its network among all usable rows."""
        self._read()
        return row.key in self._usable

    def amounts(self, row: Row) -> tuple[float, ...]:
        """Return the amounts of a row that stands, as `_Criteria.values` has them."""
        design = self._standing[row.key]
        amounts: list[float] = [amount_of(design, name) for name in _AMOUNTS]
        if (latency := self._criteria.question.latency) is not None:
            time = latency(design.sized, design.stride)
            amounts.append(inf if time is None else float(time.ms))
        return tuple(amounts)

    def catalogues(self) -> list[Catalogue]:
        """Return the catalogues with these rows alone, each in its order."""
        condition = _alike(self._networks, self._blocks)
        return [
            Catalogue(one.settings, one.funnels, one.completed(one.fetch(condition)))
            for one in self._catalogues
        ]


def _alike(networks: Iterable[str], blocks: Iterable[str]) -> Any:
    """Return the condition of some networks, and of some blocks without one."""
    from pyarrow import compute

    without = compute.field("network").is_null()
    return or_(_one_of("network", networks), and_(without, _one_of("block", blocks)))


def count_entries(catalogues: Sequence[LongCatalogue], question: Question) -> int:
    """Return how many networks there are within the bounds, or rows where every one counts."""
    criteria = _Criteria(question)
    survey = _Survey(catalogues, criteria)
    total = without = 0
    for rows, _ in survey.rows(criteria.within):
        within = criteria.is_within(rows)
        unnamed = rows.batch.column("network").is_null().to_numpy(zero_copy_only=False)
        total += int(within.sum())
        without += int((within & unnamed).sum())
    if question.every_row:
        return total
    # As many times as their names have to be shared out to be held.
    digits = "0123456789abcdef" if total > COUNTED else ("",)
    return without + sum(len(survey.networks(first)) for first in digits)
