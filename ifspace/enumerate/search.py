"""The search: every composition, the rule decided for every parameter choice, the catalogue.

A composition survives when at least one choice of its group counts, shuffle groups and overlaps
passes the rule (existential over parameters, [Fog] footnote 1). The catalogue has a design for it,
with the cheapest choice that passes. The ideas that make this quick, and why none of them loses a
design, are in `compositions`, `alphabet`, `halves` (one copy, compact rule, explicit permutations),
`repeated` (several equal copies) and `forward` (everything else). Compositions are solved in
shards, in this process or in several: those whose letter sequences begin alike are in one, so that
what they have in common is done once.

The formulas of a composition are put together as text, without computer algebra: a catalogue has
thousands of rows and SymPy builds some hundred expressions a second, so the expression of a kind
between two widths is printed once and the texts are joined. Read back by SymPy they equal
`Composition.params_formula` and `infofield.full_field_condition`.
"""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from itertools import count
from math import prod
from operator import itemgetter
from typing import Final

import sympy

from ifspace.block import Block, Composition, SizedBlock, place_widths
from ifspace.canonical import forget_classes, network_class
from ifspace.catalogue import Catalogue, Design, Funnel, published_names
from ifspace.catalogue.choose import with_latency_dominators
from ifspace.catalogue.parts import Compared, Part, joined
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.compiled import is_cached
from ifspace.enumerate.alphabet import (
    Alphabet,
    Choice,
    Kinds,
    Letter,
    Letters,
    Point,
    Solution,
)
from ifspace.enumerate.compositions import Pruner, candidates, count_kept, is_dropped
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch, FreeAlgebra
from ifspace.enumerate.front import unbeaten
from ifspace.enumerate.halves import HalfSearch
from ifspace.enumerate.named import withheld
from ifspace.enumerate.oracle import passes
from ifspace.enumerate.pairs import cheapest_pair
from ifspace.enumerate.repeated import RepeatedSearch
from ifspace.enumerate.satisfiable import check_floors
from ifspace.enumerate.timed import NS_IN_MS, UNKNOWN_NS, UNKNOWN_PS, LayerTimes
from ifspace.errors import ARGUMENT, SettingError
from ifspace.infofield import layer_coverage
from ifspace.kinds import C, C_in, C_out, ConvKind, F, K, P, d, find_kind, g, k, s, w
from ifspace.latency import Latency, LatencySource
from ifspace.parallel import Progress, configured_workers, over_shards, workers

__all__ = [
    "condition_text",
    "engine_for",
    "enumerate_designs",
    "estimate_seconds",
    "is_compiled",
    "params_text",
    "rough_seconds",
]

Engine = HalfSearch | ForwardSearch


def enumerate_designs(
    settings: Sequence[EnumerationSetting],
    jobs: int | None = None,
    progress: Progress | None = None,
    latency: LatencySource | None = None,
    side: int | None = None,
) -> Catalogue:
    """Return the catalogue of the designs that survive in each setting.

    jobs: worker processes where the work is worth them, by default one to a usable core as long as
    they fit into 2 GiB together; the catalogue is the same for any number.
    `progress(done, total)` is called as parts of the work are finished. `latency`: what knows the
    times of blocks whose output has a `side` in pixels (None: at which it was measured). They are
    the objective "latency", and with it an amount of a front; the module `timed` says in which
    forms of a block they are searched.

    >>> catalogue = enumerate_designs([EnumerationSetting(channels=16, max_len=2)], jobs=1)
    >>> [str(design.block) for design in catalogue.designs]
    ['PW+GC(8)', 'PW+DW', 'GC(8)+PW', 'DW+PW', 'RPW(2,0)+GC(8)']
    >>> catalogue.funnels[0].by_length
    (0, 5)

    Raises: SettingError when `jobs` is less than 1, when floors leave no block, and for the
        objective "latency" without latencies.

    Reference: [IF] and [3DRF] section 4.2 (rule of kernel replacement); [Fog] section 3.1.
    """
    workers(jobs)  # raises for a number below 1
    for setting in settings:
        check_floors(setting)
        if setting.objective == "latency" and latency is None:
            raise SettingError.because(
                f"{ARGUMENT} latency without latencies",
                got="none",
                allowed="a model or a table",
                remedy="give them as `latency`",
                argument="objective",
            )
    shards, seconds = shards_of(settings)
    if latency is not None:
        shards = [shard.timed(latency, side) for shard in shards]
    parts: dict[int, list[Part]] = {}
    answers = over_shards(solve, shards, processes_for(jobs, seconds), progress)
    forget_engines()
    for shard, part in zip(shards, answers, strict=True):
        parts.setdefault(shard.place, []).append(part)
    funnels: list[Funnel] = []
    designs: list[Design] = []
    for place, setting in enumerate(settings):
        funnel, survivors = joined(parts[place], setting.max_len, setting.front)
        funnels.append(funnel)
        designs.extend(_marked(setting, parts[place], survivors))
    return Catalogue(tuple(settings), tuple(funnels), tuple(designs))


def _marked(
    setting: EnumerationSetting, parts: Sequence[Part], designs: tuple[Design, ...]
) -> tuple[Design, ...]:
    """Return the rows of a front of latencies, marked with what beats them in these too."""
    latencies = {
        design.block: ns
        for part in parts
        for design, ns in zip(part.designs, part.latencies, strict=bool(part.latencies))
    }
    if not (setting.front and latencies):
        return designs

    def latency(block: SizedBlock, stride: int) -> Latency | None:
        ns = latencies[block.block]
        return None if ns == UNKNOWN_NS else Latency(Fraction(ns, NS_IN_MS))

    return with_latency_dominators(designs, latency)


# With 128 the longer of two parts of length 8 takes 55% of the time, with 4 it took 80%; each part
# lists all beginnings.
BEGINNINGS: Final = 128


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the compositions of a setting: number `index` of `count`.

    Those whose channel letters begin with the same kinds are in one part, and of such beginnings
    there are at least `beginnings` for each part: their searches are of very unequal length, and
    the more of them a part has, the more parts take alike. `place`: that of the setting among those
    of a run. `run`: shards of one run that are solved in one thread share their engine. `times`:
    where latency is an amount.
    """

    setting: EnumerationSetting
    index: int = 0
    count: int = 1
    place: int = 0
    run: tuple[int, int] = (0, 0)
    times: LayerTimes | None = None
    beginnings: int = BEGINNINGS

    def timed(self, latency: LatencySource, side: int | None) -> "Shard":
        """Return the shard with latencies where they are its setting's objective."""
        if self.setting.objective != "latency":
            return self
        return replace(self, times=LayerTimes.of(latency, self.setting, side))

    @property
    def depth(self) -> int:
        """How many layers decide the part.

        >>> [Shard(EnumerationSetting(), count=count).depth for count in (1, 2, 8, 64)]
        [3, 4, 4, 6]
        """
        kinds, depth = len(self.setting.usable_kinds), 1
        while kinds**depth < self.beginnings * self.count and depth < self.setting.max_len:
            depth += 1
        return depth

    def has(self, kinds: Kinds) -> bool:
        """Return whether the part has the sequences whose letters are of these kinds."""
        if self.count == 1:
            return True
        start = "+".join(kinds[: self.depth]).encode()
        return int.from_bytes(sha256(start).digest()[:8]) % self.count == self.index


def shards_of(
    settings: Sequence[EnumerationSetting], shard_s: float | None = None, most: int | None = None
) -> tuple[list[Shard], float]:
    """Return all shards of a run, and about how many seconds they take together on one core.

    About one to `shard_s` seconds of each setting, no more than `most` of it: the same on every
    machine.
    """
    run = next_run()
    shards, seconds = [], 0.0
    for place, setting in enumerate(settings):
        rough_s = rough_seconds(setting)
        seconds += rough_s
        share = min(rough_s / (SHARD_S if shard_s is None else shard_s), most or MOST_SHARDS)
        parts = max(1, round(share))
        shards += [Shard(setting, index, parts, place, run) for index in range(parts)]
    return shards, seconds


def solve(shard: Shard) -> Part:
    """Return the designs of a shard, and what its part of the funnel counts."""
    engines = _here.__dict__.setdefault("engines", {})
    key = shard.run, shard.place
    if key not in engines:
        engines.clear()
        forget_classes()
        engines[key] = _Enumeration(shard.setting, shard.times)
    enumeration: _Enumeration = engines[key]
    return enumeration.part(shard)


def next_run() -> tuple[int, int]:
    """Return what no other run has, of this process or of another."""
    return os.getpid(), next(_runs)


def forget_engines() -> None:
    """Drop what the shards of a run shared in this thread."""
    _here.__dict__.clear()


_here = threading.local()
_runs = count(1)


class _OfShard:
    """Rules out what is not in a shard, and what an engine rules out."""

    def __init__(self, engine: Engine, alphabet: Alphabet, shard: Shard) -> None:
        self.engine, self.alphabet, self.shard = engine, alphabet, shard
        self.depth = shard.depth
        self._is_in: dict[Letters, bool] = {}

    def may_begin(self, prefix: Letters) -> bool:
        """Return False where no sequence of the shard that survives begins so."""
        return (len(prefix) != self.depth or self._has(prefix)) and self.engine.may_begin(prefix)

    def may_survive(self, letters: Letters) -> bool:
        """Return False where a sequence is not in the shard or cannot survive."""
        return self._has(letters) and self.engine.may_survive(letters)

    def _has(self, letters: Letters) -> bool:
        start = letters[: self.depth]
        answer = self._is_in.get(start)
        if answer is None:
            kinds = tuple(self.alphabet.letters[index].kind for index in start)
            answer = self._is_in[start] = self.shard.has(kinds)
        return answer


class _Enumeration:
    """The enumeration of one setting: what its parts share."""

    def __init__(self, setting: EnumerationSetting, times: LayerTimes | None) -> None:
        self.setting = setting
        self.times = times
        self.alphabet = Alphabet(setting, times)
        self.engine = engine_for(self.alphabet)
        self.verdicts: dict[Letters, Verdict] = {}
        self.conditions: dict[tuple[tuple[str, str | None], ...], str] = {}
        self.peaks: dict[tuple[tuple[bool, bool, bool], ...], int] = {}

    def part(self, shard: Shard) -> Part:
        """Return the designs of a part, and what it counts."""
        setting = self.setting
        self.verdicts.clear()
        self.engine.forget_answers()
        before = int(self.engine.tally[0])
        searched = [
            (kinds, letters)
            for kinds, letters in self._searched(shard)
            if not is_dropped(kinds, setting.patterns)
        ]
        self._solve(letters for _, letters in searched)
        covered = sum(self._count_choices(letters) for letters in self.verdicts)
        # A forward walk looks at choices while it lists the candidates.
        checked = int(self.engine.tally[0]) - before
        survivors = [kinds for kinds, letters in searched if self.verdicts[letters].shown]
        constants = {kinds: self._constants(kinds) for kinds in survivors}
        timed = self._timed(constants)
        rows = {kinds: self._rows(kinds, timed) for kinds in survivors}
        latencies = (timed[kinds][x] for kinds in timed for x in rows[kinds])
        return Part(
            tuple(self._designs(constants, rows, {} if timed else self._simpler(survivors))),
            self._funnel(survivors, len(searched), covered, checked),
            self._counted(constants, timed) if setting.front else (),
            tuple(latencies),
        )

    def _searched(self, shard: Shard) -> Iterator[tuple[Kinds, Letters]]:
        """Yield the candidates of a shard."""
        kinds = self.setting.usable_kinds
        lengths = range(1, self.setting.max_len + 1)
        pruner: Pruner = self.engine
        if shard.count > 1:
            if isinstance(self.engine, HalfSearch):
                # Its first limit depends on the letters that there are: all, in every process.
                _ = self._all_letters_listed
            pruner = _OfShard(self.engine, self.alphabet, shard)
        for length in lengths:
            yield from self._candidates([kinds] * length, pruner)

    @cached_property
    def _all_letters_listed(self) -> int:
        """How many short candidates there are in all parts: to list them builds every letter."""
        kinds = self.setting.usable_kinds
        lengths = range(1, min(self.setting.max_len, LENGTH_OF_LETTERS) + 1)
        return sum(1 for n in lengths for _ in self._candidates([kinds] * n, self.engine))

    def _candidates(
        self, choices: Sequence[Sequence[str]], pruner: Pruner
    ) -> Iterator[tuple[Kinds, Letters]]:
        listed = candidates(self.alphabet, pruner, choices)
        return (pair for pair in listed if self.setting.keeps_peak(pair[0]))

    def _count_choices(self, letters: Letters) -> int:
        return prod(len(self.alphabet.letters[letter].options) for letter in letters)

    def _solve(self, sequences: Iterable[Letters]) -> None:
        new = [letters for letters in dict.fromkeys(sequences) if letters not in self.verdicts]
        for letters, (shown, points) in self._solved(new):
            irreducible = (self.engine.irreducible(letters, x.choice) for x in shown)
            self.verdicts[letters] = Verdict(shown, tuple(irreducible), points)

    def _solved(
        self, sequences: Sequence[Letters]
    ) -> Iterator[tuple[Letters, tuple[tuple[Solution, ...], tuple[Point, ...]]]]:
        """Yield for each sequence the choices to show and, for the front, all points."""
        if not self.alphabet.of_points:
            for letters, solution in self.engine.cheapest(sequences).items():
                yield letters, (() if solution is None else (solution,), ())
            return
        for letters, points in self.engine.points(sequences).items():
            front, is_timed = self.alphabet.setting.front, self.alphabet.times is not None
            if is_timed and front:
                # What is shown is decided for each composition, whose latencies are known there.
                yield letters, (points[:1], points)
                continue
            amounts = {
                point: (
                    *self.alphabet.measures(point.cost),
                    -point.least_fan_in * front,
                    *point.times,
                )
                for point in points
            }
            best = unbeaten(amounts.values())
            shown = tuple(point for point in points if amounts[point] in best)
            yield letters, (shown[:1], shown) if is_timed else (shown, points)

    def _funnel(
        self, survivors: Sequence[Kinds], searched: int, covered: int, checked: int
    ) -> Funnel:
        lengths = range(1, self.setting.max_len + 1)
        kinds = len(self.setting.kinds)
        after_patterns = [count_kept(kinds, length, self.setting.patterns) for length in lengths]
        by_length = [sum(len(names) == length for names in survivors) for length in lengths]
        return Funnel(
            compositions=sum(kinds**length for length in lengths),
            after_patterns=sum(after_patterns),
            survivors=len(survivors),
            compositions_by_length=tuple(kinds**length for length in lengths),
            after_patterns_by_length=tuple(after_patterns),
            by_length=tuple(by_length),
            words_searched=searched,
            choices_covered=covered,
            choices_checked=checked,
        )

    def _designs(
        self,
        constants: Mapping[Kinds, "_Constants"],
        rows: Mapping[Kinds, Sequence[Solution]],
        simpler: Mapping[tuple[Kinds, Solution], str],
    ) -> Iterator[Design]:
        """Yield the rows without what depends on other parts."""
        setting = self.setting
        reference_params = setting.reference_params
        reference_macs = setting.reference_macs_per_pixel
        unnamed = withheld(setting, map("+".join, constants))
        of_front = (0, 0) if setting.front else (None, None)
        for kinds, fixed in constants.items():
            composition = Composition(kinds, setting.repeats)
            formula = params_text(
                composition, setting.bottleneck is not None, setting.kernel, setting.dims
            )
            names = published_names(str(Composition(kinds)), setting.repeats, unnamed)
            for solution in rows[kinds]:
                block, least_fan_in = self._block(fixed.letters, solution.choice)
                params, macs = self.alphabet.measures(solution.cost + fixed.cost)
                yield Design(
                    channels=setting.channels,
                    out_channels=setting.out_width,
                    bottleneck=setting.bottleneck,
                    repeats=setting.repeats,
                    kernel=setting.kernel,
                    stride=setting.stride,
                    dims=setting.dims,
                    composition=str(composition),
                    block=block,
                    params=params,
                    macs_per_pixel=macs,
                    activations_per_pixel=fixed.activations,
                    peak_per_pixel=fixed.peak,
                    params_ratio=params / reference_params,
                    macs_ratio=macs / reference_macs,
                    field=(setting.reference_field.side, setting.channels),
                    layers=len(kinds),
                    least_fan_in=least_fan_in,
                    params_formula=formula,
                    field_condition=self._condition(fixed.letters, block),
                    irreducible=self._is_irreducible(kinds, solution),
                    same_as=simpler.get((kinds, solution)),
                    published_as=names,
                    network=network_class(self._sized(block)),
                    stands_for=of_front[0],
                    beats=of_front[1],
                )

    def _constants(self, kinds: Kinds) -> "_Constants":
        letters = self._all_letters(kinds)
        return _Constants(
            letters,
            sum(letter.fixed_cost for letter in letters),
            sum(letter.activations for letter in letters),
            self._peak(kinds, letters),
        )

    def _peak(self, kinds: Kinds, letters: Sequence[Letter]) -> int:
        """Return the peak memory per output pixel, the same for all choices."""
        # All that it depends on: which layers write, which can change the width or hold the stride.
        rows = map(find_kind, kinds)
        key = tuple((row.writes, row.mixing, row.spatial) for row in rows)
        peak = self.peaks.get(key)
        if peak is None:
            block, _ = self._block(letters, self._verdict(kinds).shown[0].choice)
            peak = self.peaks[key] = self._sized(block).peak_per_pixel(self.setting.stride)
        return peak

    def _timed(
        self, constants: Mapping[Kinds, "_Constants"]
    ) -> Mapping[Kinds, Mapping[Solution, int]]:
        """Return the nanoseconds of the choices of each composition; {} where they are no amount.

        All choices where the times of layers add up; else the blocks of a table that pass, and
        choices whose latency is not known.
        """
        times = self.times
        if times is None:
            return {}
        if times.forms:
            return {
                kinds: self._summed(times, fixed, self._verdict(kinds).points)
                for kinds, fixed in constants.items()
            }
        timed: dict[Kinds, dict[Solution, int]] = {kinds: {} for kinds in constants}
        for block, ns in times.blocks():
            kinds = tuple(layer.kind for layer in block.layers)
            letters = self.alphabet.all_letters(kinds)
            if letters is None or kinds not in timed or block.repeats != self.setting.repeats:
                continue
            choice = self.alphabet.choice_of(letters, block)
            if choice is not None and passes(block, self.setting):
                cost, fan_in = self._measured(kinds, choice)
                timed[kinds][Point(cost, choice, fan_in, 1)] = ns
        for kinds, known in timed.items():
            self._add_untimed(kinds, known)
        return timed

    def _summed(
        self, times: LayerTimes, fixed: "_Constants", points: Sequence[Point]
    ) -> Mapping[Solution, int]:
        offsets: list[int | None] = []
        for index, form in enumerate(times.forms):
            timed = (point for point in points if point.times[index] < UNKNOWN_PS)
            point = next(timed, None)
            if point is None:
                offsets.append(None)
                continue
            block, _ = self._block(fixed.letters, point.choice)
            offsets.append(times.offset(form, self._sized(block), point.times[index]))
        return {point: times.nanoseconds(point.times, offsets) for point in points}

    def _add_untimed(self, kinds: Kinds, timed: dict[Solution, int]) -> None:
        """Add the choices whose latency is not known: beside those of a table, by their amounts."""
        verdict = self._verdict(kinds)
        if not self.setting.front:
            timed_choices = {solution.choice for solution in timed}
            timed |= {x: UNKNOWN_NS for x in verdict.shown if x.choice not in timed_choices}
            return
        # Of the same amounts one whose latency is known beats the others.
        counts = Counter(
            (self.alphabet.amount(x.cost)[0], x.least_fan_in) for x in timed if isinstance(x, Point)
        )
        for point in verdict.points:
            count = point.count - counts[self.alphabet.amount(point.cost)[0], point.least_fan_in]
            if count:
                timed[replace(point, count=count)] = UNKNOWN_NS

    def _measured(self, kinds: Kinds, choice: Choice) -> tuple[int, int]:
        """Return the cost and the least fan-in of a choice of a composition."""
        letters = self.alphabet.channel_letters(kinds) or ()
        options = [
            self.alphabet.letters[letter].options[number]
            for letter, number in zip(letters, choice, strict=True)
        ]
        fan_ins = (x.least_fan_in for x in options if x.least_fan_in is not None)
        return sum(option.cost for option in options), min(fan_ins)

    def _rows(
        self, kinds: Kinds, timed: Mapping[Kinds, Mapping[Solution, int]]
    ) -> tuple[Solution, ...]:
        """Return the choices of a composition that are rows of the catalogue."""
        if not timed:
            return self._verdict(kinds).shown
        latencies = timed[kinds]
        if not self.setting.front:
            return (min(latencies, key=lambda x: (latencies[x], x.cost, x.choice)),)
        amounts = {
            point: (*self.alphabet.measures(point.cost), -point.least_fan_in, ns)
            for point, ns in latencies.items()
            if isinstance(point, Point)
        }
        front = unbeaten(amounts.values())
        first: dict[Compared, Solution] = {}
        for point, entry in sorted(amounts.items(), key=lambda x: (x[1], x[0].cost, x[0].choice)):
            if entry in front:
                first.setdefault(entry, point)
        return tuple(first.values())

    def _is_irreducible(self, kinds: Kinds, solution: Solution) -> bool:
        verdict = self._verdict(kinds)
        if solution in verdict.shown:
            return verdict.irreducible[verdict.shown.index(solution)]
        letters = self.alphabet.channel_letters(kinds) or ()
        return self.engine.irreducible(letters, solution.choice)

    def _sized(self, block: Block) -> SizedBlock:
        setting = self.setting
        return block.at(setting.channels, setting.out_width, setting.bottleneck, setting.dims)

    def _counted(
        self,
        constants: Mapping[Kinds, "_Constants"],
        timed: Mapping[Kinds, Mapping[Solution, int]],
    ) -> tuple[tuple[Compared, int], ...]:
        """Return how many choices pass by their amounts."""
        counts: Counter[Compared] = Counter()
        for kinds, fixed in constants.items():
            latencies = timed.get(kinds, {})
            for point in latencies or self._verdict(kinds).points:
                assert isinstance(point, Point)
                measures = self.alphabet.measures(point.cost + fixed.cost)
                less_is_better = fixed.activations, fixed.peak, -point.least_fan_in, len(kinds)
                amounts = (*measures, *less_is_better, *([latencies[point]] if latencies else ()))
                counts[amounts] += point.count
        return tuple(sorted(counts.items()))

    def _all_letters(self, kinds: Kinds) -> list[Letter]:
        letters = self.alphabet.all_letters(kinds)
        return [self.alphabet.letters[letter] for letter in letters or ()]

    def _verdict(self, kinds: Kinds) -> "Verdict":
        return self.verdicts[self.alphabet.channel_letters(kinds) or ()]

    def _block(self, letters: Sequence[Letter], choice: Choice) -> tuple[Block, int]:
        """Return the block of a choice, and its least fan-in."""
        numbers = iter(choice)
        layers, fan_ins = [], []
        for letter in letters:
            option = letter.options[0 if letter.neutral else next(numbers)]
            layers.append(option.layer)
            fan_ins += [option.least_fan_in] if option.least_fan_in is not None else []
        return Block(tuple(layers), self.setting.repeats), min(fan_ins)

    def _condition(self, letters: Sequence[Letter], block: Block) -> str:
        """Return the full-field condition; layers that leave channels alone do not change it."""
        layers = [layer for layer, x in zip(block.layers, letters, strict=True) if not x.neutral]
        key = tuple((layer.kind, layer.order) for layer in layers)
        if key not in self.conditions:
            mixed = Block(tuple(layers), block.repeats) if layers else block
            bottleneck = self.setting.bottleneck is not None
            self.conditions[key] = condition_text(mixed, bottleneck)
        return self.conditions[key]

    def _simpler(self, survivors: Sequence[Kinds]) -> dict[tuple[Kinds, Solution], str]:
        """Return what each row that is cheapest at a trivial group count is then.

        A layer at a trivial group count is a layer of a kind without groups, so the choices with
        one somewhere are the choices of other compositions: cheaper than all choices without, when
        one of those compositions is cheaper. Of those of equal cost the one with the fewest
        overlapping windows is named, then with the fewest windows, then the first. For a row of the
        front only choices of at least its fan-in count.
        """
        others: dict[Kinds, list[tuple[Kinds, Letters]]] = {}
        for kinds in survivors:
            choices = self._cheap_enough(kinds)
            if any(len(names) > 1 for names in choices):
                others[kinds] = [
                    pair for pair in self._candidates(choices, self.engine) if pair[0] != kinds
                ]
        self._solve(letters for pairs in others.values() for _, letters in pairs)
        names: dict[tuple[Kinds, Solution], str] = {}
        for kinds, pairs in others.items():
            for row in self._verdict(kinds).shown:
                own = self._preference(kinds, row)
                candidates = [
                    (self._preference(other, solution), other)
                    for other, letters in pairs
                    for solution in self.verdicts[letters].no_narrower(row)
                ]
                cheaper = [pair for pair in candidates if pair[0][0] < own[0]]
                if cheaper:
                    _, other = min(cheaper, key=itemgetter(0))
                    names[kinds, row] = str(Composition(other, self.setting.repeats))
        return names

    def _cheap_enough(self, kinds: Kinds) -> list[tuple[str, ...]]:
        """Return for each layer its kind, and those that it becomes at trivial group counts.

        Left out are those that make every choice, whatever the other layers are, cost at least what
        the rows of the composition do.
        """
        choices = [(letter.kind, *letter.plain) for letter in self._all_letters(kinds)]
        if not self.alphabet.has_one_width or all(len(names) == 1 for names in choices):
            return choices
        least = [[self.alphabet.least_cost(name) for name in names] for names in choices]
        floor = sum(map(min, least))
        most = max(self._preference(kinds, row)[0] for row in self._verdict(kinds).shown)
        return [
            tuple(
                name
                for name, cost in zip(names, costs, strict=True)
                if name == names[0] or self.alphabet.amount(floor - min(costs) + cost)[0] < most
            )
            for names, costs in zip(choices, least, strict=True)
        ]

    def _preference(self, kinds: Kinds, solution: Solution) -> tuple[int, int, int]:
        """Return what makes one choice better than another of other compositions.

        Its amounts, folded; its layers with overlapping windows; its layers with windows.
        """
        fixed_cost = sum(letter.fixed_cost for letter in self._all_letters(kinds))
        amounts, overlapping = self.alphabet.amount(solution.cost + fixed_cost)
        return amounts, overlapping, sum(find_kind(kind).takes_overlap for kind in kinds)


@dataclass(frozen=True, slots=True)
class _Constants:
    """What all choices of a composition have alike.

    Its letters, the cost of the neutral ones, activations and peak memory per output pixel.
    """

    letters: list[Letter]
    cost: int
    activations: int
    peak: int


def engine_for(alphabet: Alphabet) -> Engine:
    """Return the search that decides a setting: by halves where it can be split, else forward."""
    setting = alphabet.setting
    if setting.permutation == "free":
        return ForwardSearch(alphabet, FreeAlgebra(alphabet))
    if RepeatedSearch.decides(setting):
        return RepeatedSearch(alphabet)
    if setting.rule == "early-stop" or setting.repeats > 1:
        return ForwardSearch(alphabet, ExactAlgebra(alphabet))
    return HalfSearch(alphabet)


# Work below this is done sooner in one process than others can be started, in seconds.
WORTH_WORKERS_S = 10.0
SHARD_S = 1.0
# Every letter is one of a candidate of so many layers: it stands with its own kind before or behind
# the spatial layer, and before, at, between or behind two that mix channels.
LENGTH_OF_LETTERS: Final = 5
MOST_SHARDS: Final = 64
# What all processes together should stay below when no number of them is given, in MiB.
MEMORY_MIB: Final = 2048


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for a sequence of letters.

    `shown`: the cheapest choice that passes, if any does, or the points of the front, fewest
    parameters first; `irreducible`: whether none of their layers, one or more, can be left out.
    `points`: for the front, all passing choices by their amounts. Where latency is an amount what
    is shown is one of the points, and the points are those that can be the fastest.
    """

    shown: tuple[Solution, ...]
    irreducible: tuple[bool, ...]
    points: tuple[Point, ...] = ()

    def no_narrower(self, other: Solution) -> Iterator[Solution]:
        """Yield what is shown and, where `other` is a point, reads at least as many channels."""
        for solution in self.shown:
            if not (
                isinstance(solution, Point)
                and isinstance(other, Point)
                and solution.least_fan_in < other.least_fan_in
            ):
                yield solution


def processes_for(jobs: int | None, seconds: float) -> int:
    """Return how many processes are worth it for work of a duration.

    Without a number as many as the caller's `joblib.parallel_config` has; on this machine no more
    than fit together, for every one builds the upper halves for itself, and memory grows with the
    work as time does.
    """
    if seconds <= WORTH_WORKERS_S:
        return 1
    if jobs is not None:
        return jobs
    if (configured := configured_workers()) is not None:
        return configured
    return max(1, min(workers(None), int((MEMORY_MIB - 250) / process_mib(seconds))))


def process_mib(seconds: float) -> float:
    """Return about how much memory a process takes for work of a duration, in MiB.

    It grows with the work up to about 9 layers at 64 channels; 12 layers, which take thirty times
    as long, have the states of six layers at most in memory, and a part of the designs.
    """
    return 180 + 28 * min(seconds, 25.0)


# From this rough estimate on the first lengths are timed, up to one that takes so long.
MEASURED_FROM_S: Final = 5.0
MEASURED_S: Final = 0.25


def _front_factor(setting: EnumerationSetting) -> float:
    """Return about how many times as long the search takes for all passing choices."""
    if not (setting.front or setting.objective == "latency"):
        return 1.0
    return float(max(1.2, 2 * _options(setting) ** 2 * (setting.channels / 64) ** 0.5))


def estimate_seconds(setting: EnumerationSetting) -> float:
    """Return about how many seconds a setting takes on one core.

    Of long work the first lengths are enumerated, for about a second, and tell how fast this
    machine is on this setting; `rough_seconds` tells how the lengths grow. How near the estimates
    are: results/enumerate-estimates.md.

    >>> estimate_seconds(EnumerationSetting(channels=16)) < 2
    True
    """
    rough_s = rough_seconds(setting)
    if rough_s < MEASURED_FROM_S or setting.max_len == 1:
        return rough_s
    for length in range(1, setting.max_len):
        shorter = replace(setting, max_len=length)
        # The first time has what is computed once for all settings.
        spent_s = min(_cpu_seconds(shorter) for _ in range(2))
        if spent_s >= MEASURED_S:
            break
    return spent_s * rough_s / rough_seconds(shorter)


def _cpu_seconds(setting: EnumerationSetting) -> float:
    begin_s = time.process_time()
    if setting.objective == "latency":
        # All choices are looked at by their amounts, as for a front.
        setting = replace(setting, objective="params", front=True)
    enumerate_designs([setting], jobs=1)
    return time.process_time() - begin_s


@lru_cache(maxsize=1 << 12)
def rough_seconds(setting: EnumerationSetting) -> float:
    """Return about how many seconds a setting takes on one core: an order of magnitude.

    The search of compositions, and then the formulas and the network of each design, which take
    longer at most widths.
    """
    # Beyond this the answer is "never" in any case, and powers of floats overflow.
    length = min(setting.max_len, 200)
    grouped = [kind for kind in setting.usable_kinds if find_kind(kind).takes_groups]
    if not grouped:
        return 1e-3 * length
    if setting.permutation == "free":
        return float(3.0 ** (length - 5))
    if setting.rule == "early-stop":
        return float(9.0 * 5.0 ** (length - 6) * _options(setting) ** 2 * setting.channels / 64)
    if RepeatedSearch.decides(setting):
        growth = 2.5 * setting.channels**0.4
        return float(0.7 * growth ** (length - 4) * _options(setting) ** 3)
    if setting.repeats > 1:
        growth = 4.0 * setting.channels**0.4
        return float(5.0 * growth ** (length - 4) * _options(setting) ** 3)
    # Letter sequences grow by this factor with each layer.
    sequences, designs = 1660 * 3.15 ** (length - 6), rough_rows(setting)
    of_sequence_s = 3e-4 * _options(setting) ** 1.3 * (setting.channels / 64) ** 0.85
    of_sequence_s *= _front_factor(setting)
    of_design_s = (6.5e-4 + 5.8e-6 * setting.channels) * (2 if setting.front else 1)
    return float(sequences * of_sequence_s + designs * of_design_s)


def rough_rows(setting: EnumerationSetting) -> float:
    """Return about how many designs a setting has: an order of magnitude.

    They grow by this factor with each layer.
    """
    rows = 1100 * 3.25 ** (min(setting.max_len, 200) - 6)
    return rows * (4 if setting.front else 1)


def _options(setting: EnumerationSetting) -> float:
    """Return the largest number of choices of a kind, relative to the 14 of RPW at 64 channels."""
    largest = max(
        len(
            setting.floors.of(
                conv,
                conv.choices(
                    c_in,
                    c_out,
                    setting.overlaps,
                    orders=setting.orders,
                    may_copy=setting.bottleneck is None,
                ),
                [(c_in, c_out)],
            )
        )
        for conv in map(find_kind, setting.usable_kinds)
        for c_in, c_out in setting.width_pairs
        if c_in == c_out or conv.mixing
    )
    return largest / 14


def is_compiled() -> bool:
    """Return whether the compiled search is on disk: the first run has to compile it."""
    return is_cached(cheapest_pair)


# Stand-ins for the numbered symbols of a layer and for the count of outputs.
_NAMES = {
    symbol: sympy.Symbol(f"{symbol}_N", integer=True, positive=True) for symbol in (g, w, s, P)
}
_COUNT = sympy.Symbol("COUNT", integer=True, positive=True)
_WIDTHS = {"C": C, "F": F, "K": K}

# A kind, its widths as text, and the number that its symbols carry.
_Layer = tuple[ConvKind, str, str, int]


def params_text(composition: Composition, bottleneck: bool, kernel: int, dims: int) -> str:
    """Return the number of parameters in the symbols C, F, K and g_i.

    >>> params_text(Composition.parse("DW+RPW+PW"), False, 3, 2)
    '9*C + C**2/g_1 + C*F'
    """
    terms: dict[str, int] = {}
    for conv, c_in, c_out, number in _chain(composition, bottleneck):
        term = _params(conv, c_in, c_out, kernel, dims).replace("_N", f"_{number}")
        if term != "0":
            terms[term] = terms.get(term, 0) + 1
    return " + ".join(f"{n}*{term}" if n > 1 else term for term, n in terms.items()) or "0"


def condition_text(block: Composition | Block, bottleneck: bool) -> str:
    """Return the full-field condition; "always" where every choice meets it.

    As `infofield.full_field_condition`: with a shuffle only the necessary half, the product of the
    fan-ins, and with a repeated block the condition of all its copies in a row. The orders of RPW
    are those of a block; in a composition they are rolling.

    >>> condition_text(Composition.parse("DW+RPW+RPW"), False)
    'C <= s_1*(w_2 - 1) + w_1'
    >>> condition_text(Composition.parse("GC+SH+GPW"), False)
    'C <= w_1*w_3'
    """
    chain = list(_chain(block, bottleneck))
    if not bottleneck:
        chain = [(conv, "C", "C", number) for conv, _, _, number in chain]
    if any(conv.scatters for conv, *_ in chain):
        fan_ins = [_fan_in(conv, c_in).replace("_N", f"_{n}") for conv, c_in, _, n in chain]
        if "C" in fan_ins:
            return "always"
        return "C <= " + ("*".join(text for text in fan_ins if text != "1") or "1")
    outputs = "1"
    for conv, c_in, c_out, number in reversed(chain):
        amount = "one" if outputs == "1" else "all" if outputs == c_out else "some"
        inner = outputs if re.fullmatch(r"\w+", outputs) else f"({outputs})"
        text = _coverage(conv, c_in, c_out, amount).replace("_N", f"_{number}")
        outputs = outputs if text == "COUNT" else text.replace("COUNT", inner)
    return "always" if outputs == "C" else f"C <= {outputs}"


def _chain(block: Composition | Block, bottleneck: bool) -> Iterator[_Layer]:
    if isinstance(block, Block):
        convs = [layer.conv for layer in block.layers]
    else:
        convs = [find_kind(kind) for kind in block.kinds]
    mixing = [conv.mixing for conv in convs]
    out = "F" if any(mixing) else "C"
    for copy in range(block.repeats):
        number = 0
        widths = place_widths(mixing, out if copy else "C", out, "K" if bottleneck else None)
        for conv, (c_in, c_out) in zip(convs, widths, strict=True):
            number += conv.takes_groups
            yield conv, c_in, c_out, number


@cache
def _params(conv: ConvKind, c_in: str, c_out: str, kernel: int, dims: int) -> str:
    widths = {C_in: _WIDTHS[c_in], C_out: _WIDTHS[c_out]}
    sizes = {k: sympy.Integer(kernel), d: sympy.Integer(dims)}
    return str(conv.params.xreplace(widths | sizes | _NAMES))


@cache
def _fan_in(conv: ConvKind, c_in: str) -> str:
    names = _NAMES | {C_in: _WIDTHS[c_in]}
    return str(names[w] if conv.windowed else conv.fan_in.xreplace(names))


@cache
def _coverage(conv: ConvKind, c_in: str, c_out: str, outputs: str) -> str:
    count = {"one": sympy.Integer(1), "all": _WIDTHS[c_out], "some": _COUNT}[outputs]
    names = _NAMES | {C_in: _WIDTHS[c_in], C_out: _WIDTHS[c_out]}
    # A minimum with C may go: m outputs of a layer see at least m channels of the layer below, so
    # that a count that has reached C stays at C or above.
    return str(layer_coverage((conv, names), count, uncapped=c_in == "C").args[0])
