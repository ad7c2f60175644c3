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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from math import prod

import sympy

from ifspace.block import Block, Composition, Layer, place_widths
from ifspace.catalogue import Catalogue, Design, Funnel, mark_dominated, published_names
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate import compositions as words
from ifspace.enumerate.alphabet import (
    Alphabet,
    Letter,
    LetterWord,
    Word,
)
from ifspace.enumerate.bits import is_kept
from ifspace.enumerate.compositions import candidates
from ifspace.enumerate.forward import (
    ExactAlgebra,
    ForwardSearch,
    FreeAlgebra,
)
from ifspace.enumerate.halves import (
    Choice,
    Found,
    HalfSearch,
    cheapest_pair,
)
from ifspace.infofield import layer_coverage
from ifspace.kinds import C, C_in, C_out, ConvKind, F, K, d, find_kind, g, k, s, w
from ifspace.parallel import Progress, over_shards, workers

# Stand-ins for the numbered symbols of a layer and for the count of outputs.
_NAMES = {each: sympy.Symbol(f"{each}_N", integer=True, positive=True) for each in (g, w, s)}
_COUNT = sympy.Symbol("COUNT", integer=True, positive=True)
_WIDTHS = {"C": C, "F": F, "K": K}

# A row of the table, its widths as text, and the number that its symbols carry.
_Layer = tuple[ConvKind, str, str, int]


def _chain(composition: Composition, bottleneck: bool) -> Iterator[_Layer]:
    rows = [find_kind(kind) for kind in composition.kinds]
    mixing = [row.mixing for row in rows]
    out = "F" if any(mixing) else "C"
    for copy in range(composition.repeats):
        number = 0
        widths = place_widths(mixing, out if copy else "C", out, "K" if bottleneck else None)
        for row, (c_in, c_out) in zip(rows, widths, strict=True):
            number += row.takes_groups
            yield row, c_in, c_out, number


def params_text(composition: Composition, bottleneck: bool, kernel: int, dims: int) -> str:
    """Return the number of parameters in the symbols C, F, K and g_i.

    >>> params_text(Composition.parse("DW+RPW+PW"), False, 3, 2)
    '9*C + C**2/g_1 + C*F'
    """
    terms: dict[str, int] = {}
    for row, c_in, c_out, number in _chain(composition, bottleneck):
        term = _params(row, c_in, c_out, kernel, dims).replace("_N", f"_{number}")
        if term != "0":
            terms[term] = terms.get(term, 0) + 1
    return " + ".join(f"{n}*{term}" if n > 1 else term for term, n in terms.items()) or "0"


def condition_text(composition: Composition, bottleneck: bool) -> str:
    """Return the full-field condition; "always" where every choice meets it.

    As `infofield.full_field_condition`: with a shuffle only the necessary half, the product of the
    fan-ins, and with a repeated block the condition of all its copies in a row.

    >>> condition_text(Composition.parse("DW+RPW+RPW"), False)
    'C <= s_1*(w_2 - 1) + w_1'
    >>> condition_text(Composition.parse("GC+SH+GPW"), False)
    'C <= w_1*w_3'
    """
    chain = list(_chain(composition, bottleneck))
    if not bottleneck:
        chain = [(row, "C", "C", number) for row, _, _, number in chain]
    if any(row.scatters for row, *_ in chain):
        fan_ins = [_fan_in(row, c_in).replace("_N", f"_{n}") for row, c_in, _, n in chain]
        if "C" in fan_ins:
            return "always"
        return "C <= " + ("*".join(text for text in fan_ins if text != "1") or "1")
    count = "1"
    for row, c_in, c_out, number in reversed(chain):
        sort = "one" if count == "1" else "all" if count == c_out else "some"
        inner = count if re.fullmatch(r"\w+", count) else f"({count})"
        text = _counted(row, c_in, c_out, sort).replace("_N", f"_{number}")
        count = count if text == "COUNT" else text.replace("COUNT", inner)
    return "always" if count == "C" else f"C <= {count}"


@cache
def _params(row: ConvKind, c_in: str, c_out: str, kernel: int, dims: int) -> str:
    widths = {C_in: _WIDTHS[c_in], C_out: _WIDTHS[c_out]}
    sizes = {k: sympy.Integer(kernel), d: sympy.Integer(dims)}
    return str(row.params.xreplace(widths | sizes | _NAMES))


@cache
def _fan_in(row: ConvKind, c_in: str) -> str:
    names = _NAMES | {C_in: _WIDTHS[c_in]}
    return str(names[w] if row.windowed else row.fan_in.xreplace(names))


@cache
def _counted(row: ConvKind, c_in: str, c_out: str, sort: str) -> str:
    count = {"one": sympy.Integer(1), "all": _WIDTHS[c_out], "some": _COUNT}[sort]
    names = _NAMES | {C_in: _WIDTHS[c_in], C_out: _WIDTHS[c_out]}
    # A minimum with C may go: every layer sees at least as many channels as are asked for.
    return str(layer_coverage((row, names), count, uncapped=c_in == "C").args[0])


Engine = HalfSearch | ForwardSearch

# Work below this is done sooner in one process than others can be started, in seconds.
WORTH_WORKERS_S = 10.0
SHARD_S = 1.0
MOST_SHARDS = 64
# What all processes together should stay below when nobody says how many there are, in MiB.
MEMORY_MIB = 2048


def engine_for(alphabet: Alphabet) -> Engine:
    """Return the search that decides a setting: halves where a word can be cut, else forward."""
    setting = alphabet.setting
    if setting.permutation == "free":
        return ForwardSearch(alphabet, FreeAlgebra(alphabet))
    if setting.rule == "early-stop" or setting.repeats > 1:
        return ForwardSearch(alphabet, ExactAlgebra(alphabet))
    return HalfSearch(alphabet)


@dataclass(frozen=True, slots=True)
class Solved:
    """The answer for a channel word; `irreducible` says nothing where there is no block."""

    found: Found | None
    irreducible: bool


@dataclass(frozen=True, slots=True)
class _Shard:
    """Words to solve. Shards of one `run` that meet in a process share what it has learnt."""

    run: tuple[int, int]
    alphabet: Alphabet
    words: tuple[LetterWord, ...]


_engines: dict[tuple[int, int], Engine] = {}
_runs = count(1)


def _solve(shard: _Shard) -> tuple[dict[LetterWord, Solved], int]:
    """Return the answers for a shard's words and how many choices were looked at one by one."""
    engine = _engines.get(shard.run)
    if engine is None:
        _engines.clear()
        engine = _engines[shard.run] = engine_for(shard.alphabet)
    before = int(engine.tally[0])
    answers = {
        word: Solved(found, found is not None and engine.irreducible(word, found.choice))
        for word, found in engine.cheapest(shard.words).items()
    }
    return answers, int(engine.tally[0]) - before


def solve(
    alphabet: Alphabet,
    engine: Engine,
    wanted: Sequence[LetterWord],
    jobs: int | None,
    progress: Progress | None,
) -> tuple[dict[LetterWord, Solved], int]:
    """Return the answer for every word, and how many choices were looked at one by one.

    Both are the same however the words are cut and wherever they are solved. `engine` is the one
    of this process. `jobs` None: as many processes as are of use and fit into memory.
    """
    # A forward walk has the answers since it listed the words.
    halves = isinstance(engine, HalfSearch)
    seconds = expected_seconds(alphabet.setting, len(wanted)) if halves else 0.0
    run = (os.getpid(), next(_runs))
    _engines.clear()
    _engines[run] = engine
    parts = min(MOST_SHARDS, max(1, round(seconds / SHARD_S)))
    shards = [_Shard(run, alphabet, part) for part in _cut(wanted, parts)]
    solved: dict[LetterWord, Solved] = {}
    looked_at = 0
    for answers, checked in over_shards(_solve, shards, _processes(jobs, seconds), progress):
        solved |= answers
        looked_at += checked
    _engines.clear()
    return solved, looked_at


def _processes(jobs: int | None, seconds: float) -> int:
    """Return how many processes work of so many seconds is worth.

    Every one builds the upper halves for itself, and memory grows with the work as time does: by
    default there are no more than fit together.
    """
    if seconds <= WORTH_WORKERS_S:
        return 1
    if jobs is not None:
        return jobs
    each_mib = 180 + 28 * seconds
    return max(1, min(workers(None), int((MEMORY_MIB - 250) / each_mib)))


def _cut(wanted: Sequence[LetterWord], parts: int) -> list[tuple[LetterWord, ...]]:
    """Return the words in about equal parts; words of one beginning stay together."""
    groups: dict[LetterWord, list[LetterWord]] = {}
    for word in wanted:
        groups.setdefault(word[: len(word) // 2], []).append(word)
    shards: list[list[LetterWord]] = [[] for _ in range(parts)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(shards, key=len).extend(group)
    return [tuple(shard) for shard in shards if shard]


def expected_seconds(setting: EnumerationSetting, words: int) -> float:
    """Return about how long so many channel words take by halves on one core, in seconds.

    Fitted to `results/enumerate.md`; right within a factor of about three.
    """
    return float(6e-4 * words * _options(setting) ** 3 * (setting.channels / 64) ** 0.85)


def estimate_seconds(setting: EnumerationSetting) -> float:
    """Return about how many seconds a setting takes on one core: an order of magnitude.

    >>> estimate_seconds(EnumerationSetting(channels=16)) < 2
    True
    """
    # Beyond this the answer is "never" in any case, and powers of floats overflow.
    length = min(setting.max_len, 200)
    grouped = [kind for kind in setting.usable_kinds if find_kind(kind).takes_groups]
    if not grouped:
        return 1e-3 * length
    if setting.permutation == "free":
        return float(2.0 * 4.0 ** (length - 6))
    if setting.rule == "early-stop":
        return float(9.0 * 4.0 ** (length - 6) * _options(setting) ** 2 * setting.channels / 64)
    if setting.repeats > 1:
        growth = 4.0 * setting.channels**0.4
        return float(5.0 * growth ** (length - 4) * _options(setting) ** 3)
    # Channel words grow by a factor of 3.3 to 3.4 with each layer.
    return expected_seconds(setting, 1) * 800 * 3.35 ** (length - 6)


def _options(setting: EnumerationSetting) -> float:
    """Return the most choices that a kind has, against the 14 of RPW at 64 channels."""
    most = max(
        len(find_kind(kind).choices(c_in, c_out, setting.overlaps))
        for kind in setting.usable_kinds
        for c_in, c_out in setting.width_pairs
        if c_in == c_out or find_kind(kind).mixing
    )
    return most / 14


def is_compiled() -> bool:
    """Return whether the compiled search is on disk: the first run has to compile it."""
    return is_kept(cheapest_pair)


__all__ = ["enumerate_designs", "estimate_seconds"]


def enumerate_designs(
    settings: Sequence[EnumerationSetting],
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Catalogue:
    """Return the catalogue of the designs that survive in each setting.

    jobs: worker processes where the work is worth them, by default one to a usable core as long as
    they fit into 2 GiB together; the catalogue is the same for any number.
    `progress(done, total)` is called as parts of the work are finished.

    >>> catalogue = enumerate_designs([EnumerationSetting(channels=16, max_len=2)], jobs=1)
    >>> [str(design.block) for design in catalogue.designs]
    ['PW+GC(8)', 'PW+DW', 'GC(8)+PW', 'DW+PW', 'RPW(2,0)+GC(8)']
    >>> catalogue.funnels[0].by_length
    (0, 5)

    Raises: SettingError when `jobs` is less than 1.

    Reference: [IF] and [3DRF] section 4.2 (rule of kernel replacement); [Fog] section 3.1.
    """
    workers(jobs)  # refuses a number below 1
    funnels: list[Funnel] = []
    designs: list[Design] = []
    for place, setting in enumerate(settings):
        tell = None if progress is None else _part(progress, place, len(settings))
        funnel, rows = _Run(setting, jobs, tell).finish()
        funnels.append(funnel)
        designs.extend(rows)
    return Catalogue(tuple(settings), tuple(funnels), tuple(designs))


def _part(progress: Progress, place: int, settings: int) -> Progress:
    def tell(done: int, total: int) -> None:
        progress(place * total + done, settings * total)

    return tell


class _Run:
    """The enumeration of one setting."""

    def __init__(
        self, setting: EnumerationSetting, jobs: int | None, progress: Progress | None
    ) -> None:
        self.setting = setting
        self.jobs = jobs
        self.progress = progress
        self.alphabet = Alphabet(setting)
        self.engine = engine_for(self.alphabet)
        self.solved: dict[LetterWord, Solved] = {}
        self.checked = 0
        self.conditions: dict[Word, str] = {}

    def finish(self) -> tuple[Funnel, tuple[Design, ...]]:
        """Return the funnel and the rows of the catalogue."""
        lengths = range(1, self.setting.max_len + 1)
        searched = [
            (word, letters)
            for length in lengths
            for word, letters in self._candidates([self.setting.usable_kinds] * length)
            if not words.rejects(word, self.setting.patterns)
        ]
        self._solve(letters for _, letters in searched)
        covered = sum(self._choices(letters) for letters in self.solved)
        # A forward walk looks at choices while it lists the words.
        checked = self.checked or int(self.engine.tally[0])
        alive = [(word, self._found(letters)) for word, letters in searched]
        survivors = [(word, found) for word, found in alive if found is not None]
        rows = mark_dominated(self._rows(survivors))
        size = len(self.setting.kinds)
        kept = [words.count(size, length, self.setting.patterns) for length in lengths]
        by_length = [sum(len(word) == length for word, _ in survivors) for length in lengths]
        return Funnel(
            compositions=sum(size**length for length in lengths),
            after_patterns=sum(kept),
            survivors=len(survivors),
            compositions_by_length=tuple(size**length for length in lengths),
            after_patterns_by_length=tuple(kept),
            by_length=tuple(by_length),
            words_searched=len(searched),
            choices_covered=covered,
            choices_checked=checked,
        ), rows

    def _candidates(self, kinds: Sequence[Sequence[str]]) -> Iterator[tuple[Word, LetterWord]]:
        return candidates(self.alphabet, self.engine, kinds)

    def _choices(self, letters: LetterWord) -> int:
        return prod(len(self.alphabet.letters[letter].options) for letter in letters)

    def _found(self, letters: LetterWord) -> Found | None:
        return self.solved[letters].found

    def _solve(self, wanted: Iterable[LetterWord]) -> None:
        new = [word for word in dict.fromkeys(wanted) if word not in self.solved]
        answers, checked = solve(self.alphabet, self.engine, new, self.jobs, self.progress)
        self.solved |= answers
        self.checked += checked

    def _rows(self, survivors: Sequence[tuple[Word, Found]]) -> Iterator[Design]:
        simpler = self._simpler([word for word, _ in survivors])
        reference = self.setting.reference_params, self.setting.reference_macs_per_pixel
        for word, found in survivors:
            composition = Composition(word, self.setting.repeats)
            params, macs = self.alphabet.measures(found.cost + self._fixed(word))
            yield Design(
                channels=self.setting.channels,
                out_channels=self.setting.out_width,
                bottleneck=self.setting.arguments()["bottleneck"],
                repeats=self.setting.repeats,
                kernel=self.setting.kernel,
                stride=self.setting.stride,
                dims=self.setting.dims,
                composition=str(composition),
                block=self._block(word, found.choice),
                params=params,
                macs_per_pixel=macs,
                activations_per_pixel=sum(letter.activations for letter in self._letters(word)),
                params_ratio=params / reference[0],
                macs_ratio=macs / reference[1],
                field=(self.setting.reference_field.side, self.setting.channels),
                layers=len(word),
                params_formula=params_text(
                    composition,
                    self.setting.bottleneck is not None,
                    self.setting.kernel,
                    self.setting.dims,
                ),
                field_condition=self._condition(word),
                irreducible=self._solved(word).irreducible,
                same_as=simpler.get(word),
                published_as=published_names(str(Composition(word)), self.setting.repeats),
            )

    def _letters(self, word: Word) -> list[Letter]:
        placed = self.alphabet.place(word)
        return [self.alphabet.letters[letter] for letter in placed or ()]

    def _fixed(self, word: Word) -> int:
        return sum(letter.fixed_cost for letter in self._letters(word))

    def _solved(self, word: Word) -> Solved:
        return self.solved[self.alphabet.word(word) or ()]

    def _block(self, word: Word, choice: Choice) -> Block:
        options = iter(choice)
        layers = []
        for letter in self._letters(word):
            kernel = self.setting.kernel if find_kind(letter.kind).spatial else None
            option = letter.options[0 if letter.neutral else next(options)]
            layers.append(Layer(letter.kind, option.groups, option.overlap, kernel))
        return Block(tuple(layers), self.setting.repeats)

    def _condition(self, word: Word) -> str:
        """Return the full-field condition; layers that leave channels alone do not change it."""
        mixed = tuple(letter.kind for letter in self._letters(word) if not letter.neutral)
        known = self.conditions.get(mixed)
        if known is None:
            composition = Composition(mixed or word, self.setting.repeats)
            known = condition_text(composition, self.setting.bottleneck is not None)
            self.conditions[mixed] = known
        return known

    def _simpler(self, survivors: Sequence[Word]) -> dict[Word, str]:
        """Return, for each word that is cheapest at a trivial group count, what it is then.

        A layer at a trivial group count is a layer of a kind without groups, so the choices with
        one somewhere are the choices of other compositions: cheaper than all choices without, when
        one of those compositions is cheaper.
        """
        others: dict[Word, list[tuple[Word, LetterWord]]] = {}
        for word in survivors:
            kinds = [(letter.kind, *letter.plain) for letter in self._letters(word)]
            if any(len(each) > 1 for each in kinds):
                others[word] = [each for each in self._candidates(kinds) if each[0] != word]
        self._solve(letters for found in others.values() for _, letters in found)
        names: dict[Word, str] = {}
        for word, found in others.items():
            best = self._cost(word, self.alphabet.word(word) or ())
            for other, letters in found:
                cost = self._cost(other, letters)
                if cost is not None and best is not None and cost < best:
                    best = cost
                    names[word] = str(Composition(other, self.setting.repeats))
        return names

    def _cost(self, word: Word, letters: LetterWord) -> int | None:
        found = self.solved[letters].found
        return None if found is None else found.cost + self._fixed(word)
