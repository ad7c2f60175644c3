"""The main job: every composition, the rule decided for every parameter choice, the catalogue.

A composition survives when at least one choice of its group counts, shuffle groups and overlaps
passes the rule (existential over parameters, [Fog] footnote 1). The catalogue has a row for it,
with the cheapest choice that passes. The ideas that make this quick, and why none of them loses a
design, are in `candidates`, `letters`, `halves` (one copy, compact rule, explicit permutations)
and `forward` (everything else).
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

from ifspace.block import Block, Composition, Layer
from ifspace.catalogue import Catalogue, Design, Funnel, mark_dominated, published_names
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate import words
from ifspace.enumerate.alphabet import (
    Alphabet,
    Letter,
    LetterWord,
)
from ifspace.enumerate.candidates import candidates
from ifspace.enumerate.formulas import condition_text, params_text
from ifspace.enumerate.halves import Found
from ifspace.enumerate.sides import Choice
from ifspace.enumerate.solve import Solved, engine_for, estimate_seconds, solve
from ifspace.enumerate.words import Word
from ifspace.kinds import find_kind
from ifspace.parallel import Progress, workers

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
    >>> [design.block for design in catalogue.designs]
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
                block=str(self._block(word, found.choice)),
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
