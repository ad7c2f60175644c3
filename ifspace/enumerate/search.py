"""The search: every composition, the rule decided for every parameter choice, the catalogue.

A composition survives when at least one choice of its group counts, shuffle groups and overlaps
passes the rule (existential over parameters, [Fog] footnote 1). The catalogue has a design for it,
with the cheapest choice that passes. The ideas that make this quick, and why none of them loses a
design, are in `compositions`, `alphabet`, `halves` (one copy, compact rule, explicit permutations)
and `forward` (everything else). Letter sequences are solved in shards, in this process or in
several.

The formulas of a composition are put together as text, without computer algebra: a catalogue has
thousands of rows and SymPy builds some hundred expressions a second, so the expression of a kind
between two widths is printed once and the texts are joined. Read back by SymPy they equal
`Composition.params_formula` and `infofield.full_field_condition`.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import count
from math import prod
from operator import itemgetter
from typing import Final

import sympy

from ifspace.block import Block, Composition, Layer, SizedBlock, place_widths
from ifspace.catalogue import (
    Catalogue,
    Design,
    Funnel,
    mark_dominated,
    mark_networks,
    published_names,
)
from ifspace.catalogue.choose import with_latency_dominators
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import (
    Alphabet,
    Choice,
    Kinds,
    Letter,
    Letters,
    Point,
    Solution,
)
from ifspace.enumerate.bits import is_cached
from ifspace.enumerate.compositions import candidates, count_kept, is_dropped
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch, FreeAlgebra
from ifspace.enumerate.front import Compared, beaten, unbeaten
from ifspace.enumerate.halves import HalfSearch
from ifspace.enumerate.named import withheld
from ifspace.enumerate.oracle import passes
from ifspace.enumerate.pairs import cheapest_pair
from ifspace.enumerate.satisfiable import check_floors
from ifspace.enumerate.timed import NS_IN_MS, UNKNOWN_NS, UNKNOWN_PS, LayerTimes
from ifspace.errors import ARGUMENT, SettingError
from ifspace.infofield import layer_coverage
from ifspace.kinds import C, C_in, C_out, ConvKind, F, K, P, d, find_kind, g, k, s, w
from ifspace.latency import Latency, LatencySource
from ifspace.parallel import Progress, over_shards, workers

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
    funnels: list[Funnel] = []
    designs: list[Design] = []
    for index, setting in enumerate(settings):
        part = None if progress is None else _part_of(progress, index, len(settings))
        timed = latency is not None and setting.objective == "latency"
        times = LayerTimes.of(latency, setting, side) if timed and latency is not None else None
        funnel, survivors = _Enumeration(setting, jobs, part, times).run()
        funnels.append(funnel)
        designs.extend(survivors)
    return Catalogue(tuple(settings), tuple(funnels), tuple(designs))


def _part_of(progress: Progress, index: int, settings: int) -> Progress:
    """Return the progress callback of one setting of several."""

    def report(done: int, total: int) -> None:
        progress(index * total + done, settings * total)

    return report


class _Enumeration:
    """The enumeration of one setting, with what has been solved of it so far."""

    def __init__(
        self,
        setting: EnumerationSetting,
        jobs: int | None,
        progress: Progress | None,
        times: LayerTimes | None,
    ) -> None:
        self.setting = setting
        self.jobs = jobs
        self.progress = progress
        self.times = times
        self.alphabet = Alphabet(setting, times)
        self.engine = engine_for(self.alphabet)
        self.verdicts: dict[Letters, Verdict] = {}
        self.checked = 0
        # How many choices pass, where they are counted.
        self.choices = 0
        self.conditions: dict[tuple[tuple[str, str | None], ...], str] = {}
        # The nanoseconds of the rows, where latency is an amount.
        self.latencies: dict[Block, int] = {}

    def run(self) -> tuple[Funnel, tuple[Design, ...]]:
        """Return the funnel and the designs."""
        setting = self.setting
        searched = [
            (kinds, letters)
            for length in range(1, setting.max_len + 1)
            for kinds, letters in self._candidates([setting.usable_kinds] * length)
            if not is_dropped(kinds, setting.patterns)
        ]
        self._solve(letters for _, letters in searched)
        covered = sum(self._count_choices(letters) for letters in self.verdicts)
        # A forward walk looks at choices while it lists the candidates.
        checked = self.checked or int(self.engine.tally[0])
        survivors = [kinds for kinds, letters in searched if self.verdicts[letters].shown]
        designs = self._marked(mark_networks(mark_dominated(self._designs(survivors))))
        funnel = self._funnel(survivors, len(searched), covered, checked)
        if setting.front:
            lengths = Counter(design.layers for design in designs)
            by_length = tuple(lengths[length] for length in range(1, setting.max_len + 1))
            funnel = replace(funnel, choices_passing=self.choices, rows_by_length=by_length)
        return funnel.with_networks(designs), designs

    def _candidates(self, choices: Sequence[Sequence[str]]) -> Iterator[tuple[Kinds, Letters]]:
        listed = candidates(self.alphabet, self.engine, choices)
        return (pair for pair in listed if self.setting.keeps_peak(pair[0]))

    def _count_choices(self, letters: Letters) -> int:
        return prod(len(self.alphabet.letters[letter].options) for letter in letters)

    def _solve(self, sequences: Iterable[Letters]) -> None:
        new = [letters for letters in dict.fromkeys(sequences) if letters not in self.verdicts]
        verdicts, checked = _solve_all(self.alphabet, self.engine, new, self.jobs, self.progress)
        self.verdicts |= verdicts
        self.checked += checked

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

    def _marked(self, designs: tuple[Design, ...]) -> tuple[Design, ...]:
        """Return the rows of a front of latencies, marked with what beats them in these too."""
        if not (self.setting.front and self.latencies):
            return designs

        def latency(block: SizedBlock, stride: int) -> Latency | None:
            ns = self.latencies[block.block]
            return None if ns == UNKNOWN_NS else Latency(Fraction(ns, NS_IN_MS))

        return with_latency_dominators(designs, latency)

    def _designs(self, survivors: Sequence[Kinds]) -> Iterator[Design]:
        setting = self.setting
        reference_params = setting.reference_params
        reference_macs = setting.reference_macs_per_pixel
        unnamed = withheld(setting, map("+".join, survivors))
        constants = {kinds: self._constants(kinds) for kinds in survivors}
        timed = self._timed(constants)
        rows = {kinds: self._rows(kinds, timed) for kinds in survivors}
        ranks = self._ranks(constants, timed, rows) if setting.front else {}
        simpler = {} if timed else self._simpler(survivors)
        for kinds, fixed in constants.items():
            composition = Composition(kinds, setting.repeats)
            formula = params_text(
                composition, setting.bottleneck is not None, setting.kernel, setting.dims
            )
            names = published_names(str(Composition(kinds)), setting.repeats, unnamed)
            for solution in rows[kinds]:
                block, least_fan_in = self._block(fixed.letters, solution.choice)
                if timed:
                    self.latencies[block] = timed[kinds][solution]
                params, macs = self.alphabet.measures(solution.cost + fixed.cost)
                stands_for, beats = ranks.get((kinds, solution), (None, None))
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
                    stands_for=stands_for,
                    beats=beats,
                )

    def _constants(self, kinds: Kinds) -> "_Constants":
        letters = self._all_letters(kinds)
        block, _ = self._block(letters, self._verdict(kinds).shown[0].choice)
        widths = self.setting.channels, self.setting.out_width, self.setting.bottleneck
        return _Constants(
            letters,
            sum(letter.fixed_cost for letter in letters),
            sum(letter.activations for letter in letters),
            block.at(*widths, self.setting.dims).peak_per_pixel(self.setting.stride),
        )

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
            known = {solution.choice for solution in timed}
            timed |= {x: UNKNOWN_NS for x in verdict.shown if x.choice not in known}
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

    def _ranks(
        self,
        constants: Mapping[Kinds, "_Constants"],
        timed: Mapping[Kinds, Mapping[Solution, int]],
        shown: Mapping[Kinds, Sequence[Solution]],
    ) -> dict[tuple[Kinds, Solution], tuple[int, int]]:
        """Return of each row how many choices have its amounts, and how many it beats."""
        counts: Counter[Compared] = Counter()
        rows: dict[tuple[Kinds, Solution], Compared] = {}
        for kinds, fixed in constants.items():
            own = set(shown[kinds])
            latencies = timed.get(kinds, {})
            for point in latencies or self._verdict(kinds).points:
                assert isinstance(point, Point)
                measures = self.alphabet.measures(point.cost + fixed.cost)
                less_is_better = fixed.activations, fixed.peak, -point.least_fan_in, len(kinds)
                amounts = (*measures, *less_is_better, *([latencies[point]] if latencies else ()))
                counts[amounts] += point.count
                if point in own:
                    rows[kinds, point] = amounts
        self.choices = counts.total()
        beats = beaten(rows.values(), counts)
        return {row: (counts[amounts], beats[amounts]) for row, amounts in rows.items()}

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
            kernel = self.setting.kernel if find_kind(letter.kind).spatial else None
            option = letter.options[0 if letter.neutral else next(numbers)]
            layers.append(Layer(letter.kind, option.groups, option.overlap, kernel, option.order))
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
            choices = [(letter.kind, *letter.plain) for letter in self._all_letters(kinds)]
            if any(len(names) > 1 for names in choices):
                others[kinds] = [pair for pair in self._candidates(choices) if pair[0] != kinds]
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
    if setting.rule == "early-stop" or setting.repeats > 1:
        return ForwardSearch(alphabet, ExactAlgebra(alphabet))
    return HalfSearch(alphabet)


# Work below this is done sooner in one process than others can be started, in seconds.
WORTH_WORKERS_S = 10.0
SHARD_S = 1.0
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


@dataclass(frozen=True, slots=True)
class _Shard:
    """Sequences to solve. Shards of one `run` in the same process share its engine."""

    run: tuple[int, int]
    alphabet: Alphabet
    sequences: tuple[Letters, ...]


_engines: dict[tuple[int, int], Engine] = {}
_runs = count(1)


def _solve_shard(shard: _Shard) -> tuple[dict[Letters, Verdict], int]:
    """Return the verdict for each sequence, and how many choices were looked at one by one."""
    engine = _engines.get(shard.run)
    if engine is None:
        _engines.clear()
        engine = _engines[shard.run] = engine_for(shard.alphabet)
    before = int(engine.tally[0])
    verdicts = {
        letters: Verdict(
            shown, tuple(engine.irreducible(letters, solution.choice) for solution in shown), points
        )
        for letters, (shown, points) in _solved(shard, engine)
    }
    return verdicts, int(engine.tally[0]) - before


def _solved(
    shard: _Shard, engine: Engine
) -> Iterator[tuple[Letters, tuple[tuple[Solution, ...], tuple[Point, ...]]]]:
    """Yield for each sequence the choices to show and, for the front, all points."""
    if not shard.alphabet.of_points:
        for letters, solution in engine.cheapest(shard.sequences).items():
            yield letters, (() if solution is None else (solution,), ())
        return
    for letters, points in engine.points(shard.sequences).items():
        front, is_timed = shard.alphabet.setting.front, shard.alphabet.times is not None
        if is_timed and front:
            # What is shown is decided for each composition, whose latencies are known there.
            yield letters, (points[:1], points)
            continue
        amounts = {
            point: (*shard.alphabet.measures(point.cost), -point.least_fan_in * front, *point.times)
            for point in points
        }
        best = unbeaten(amounts.values())
        shown = tuple(point for point in points if amounts[point] in best)
        yield letters, (shown[:1], shown) if is_timed else (shown, points)


def _solve_all(
    alphabet: Alphabet,
    engine: Engine,
    sequences: Sequence[Letters],
    jobs: int | None,
    progress: Progress | None,
) -> tuple[dict[Letters, Verdict], int]:
    """Return the verdict for each sequence, and how many choices were looked at one by one.

    Both are the same however the sequences are sharded and wherever they are solved. `engine` is
    the one of this process. `jobs` None: as many processes as are of use and fit into memory.
    """
    # A forward walk has the answers since it listed the candidates.
    halves = isinstance(engine, HalfSearch)
    seconds = expected_seconds(alphabet.setting, len(sequences)) if halves else 0.0
    run = (os.getpid(), next(_runs))
    _engines.clear()
    _engines[run] = engine
    parts = min(MOST_SHARDS, max(1, round(seconds / SHARD_S)))
    shards = [_Shard(run, alphabet, part) for part in _in_parts(sequences, parts)]
    verdicts: dict[Letters, Verdict] = {}
    checked = 0
    processes = _processes(jobs, seconds)
    for shard_verdicts, shard_checked in over_shards(_solve_shard, shards, processes, progress):
        verdicts |= shard_verdicts
        checked += shard_checked
    _engines.clear()
    return verdicts, checked


def _processes(jobs: int | None, seconds: float) -> int:
    """Return how many processes are worth it for work of a duration.

    Every one builds the upper halves for itself, and memory grows with the work as time does: by
    default there are no more than fit together.
    """
    if seconds <= WORTH_WORKERS_S:
        return 1
    if jobs is not None:
        return jobs
    process_mib = 180 + 28 * seconds
    return max(1, min(workers(None), int((MEMORY_MIB - 250) / process_mib)))


def _in_parts(sequences: Sequence[Letters], parts: int) -> list[tuple[Letters, ...]]:
    """Return the sequences in about equal parts; those with the same lower half stay together."""
    groups: dict[Letters, list[Letters]] = {}
    for letters in sequences:
        groups.setdefault(letters[: len(letters) // 2], []).append(letters)
    shards: list[list[Letters]] = [[] for _ in range(parts)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(shards, key=len).extend(group)
    return [tuple(shard) for shard in shards if shard]


# From this rough estimate on the first lengths are timed, up to one that takes so long.
MEASURED_FROM_S: Final = 5.0
MEASURED_S: Final = 0.25


def expected_seconds(setting: EnumerationSetting, sequences: int) -> float:
    """Return at most about how long a number of letter sequences takes by halves on one core.

    In seconds, for how many processes it is worth.
    """
    cheapest_s = 6e-4 * sequences * _options(setting) ** 3 * (setting.channels / 64) ** 0.85
    return float(cheapest_s * _front_factor(setting))


def _front_factor(setting: EnumerationSetting) -> float:
    """Return about how many times as long the search takes for all passing choices."""
    if not (setting.front or setting.objective == "latency"):
        return 1.0
    return float(max(1.2, 2 * _options(setting) ** 2 * (setting.channels / 64) ** 0.5))


def estimate_seconds(setting: EnumerationSetting) -> float:
    """Return about how many seconds a setting takes on one core, within a factor of two.

    Of long work the first lengths are enumerated, for about a second, and tell how fast this
    machine is on this setting; `rough_seconds` tells how the lengths grow.

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
        return float(3.0 * 4.0 ** (length - 6))
    if setting.rule == "early-stop":
        return float(9.0 * 4.0 ** (length - 6) * _options(setting) ** 2 * setting.channels / 64)
    if setting.repeats > 1:
        growth = 4.0 * setting.channels**0.4
        return float(5.0 * growth ** (length - 4) * _options(setting) ** 3)
    # Letter sequences and designs grow by these factors with each layer.
    sequences, designs = 1660 * 3.15 ** (length - 6), 1100 * 3.25 ** (length - 6)
    of_sequence_s = 3e-4 * _options(setting) ** 1.3 * (setting.channels / 64) ** 0.85
    of_sequence_s *= _front_factor(setting)
    of_design_s = (6.5e-4 + 5.8e-6 * setting.channels) * (2 if setting.front else 1)
    return float(sequences * of_sequence_s + designs * of_design_s)


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
