"""A run: blocks are chosen, checked, timed, weighed; a model is fitted and predicts the others."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Final

import torch

from ifspace.bench.blocks.ahead import Ahead, Progress, Tell
from ifspace.bench.blocks.asked import Asked
from ifspace.bench.blocks.baselines import find_baselines
from ifspace.bench.blocks.book import COMPILED, PEAK, RED, Book
from ifspace.bench.blocks.calibrate import Calibration, calibration, neighbours
from ifspace.bench.blocks.cases import Candidate, Conditions, Key
from ifspace.bench.blocks.features import features
from ifspace.bench.blocks.gate import fault
from ifspace.bench.blocks.measure import Timed, measure, rounds
from ifspace.bench.blocks.memory import peaks
from ifspace.bench.blocks.model import LEAST_JUDGED, Fitted, fitted
from ifspace.bench.blocks.refusals import none_right, none_timed
from ifspace.bench.blocks.rows import count_rows, peak_row, predicted_row, time_rows
from ifspace.bench.blocks.selection import (
    Place,
    at_place,
    beside,
    designs_for,
    moved,
    select,
)
from ifspace.bench.clock import Limits
from ifspace.bench.device import keep_memory
from ifspace.bench.rates import Rates, measured_rates
from ifspace.bench.tidy import BOTH_WAYS, FORWARD, LEAST, MODES, ROUNDS, TIME, Machine
from ifspace.catalogue.design import Catalogue
from ifspace.errors import IfspaceError

# Rounds of a calibration, fewer where they would take longer than this.
CALIBRATION_ROUNDS: Final = 30
CALIBRATION_S: Final = {FORWARD: 15.0, BOTH_WAYS: 30.0}
# What the parts of a run take before it is known, in seconds a block.
GUESSES: Final = {"check": 0.2, "time": 2.0, "memory": 0.5, FORWARD: 0.3, BOTH_WAYS: 0.6}


@dataclass(slots=True)
class Run:
    """A run and what came of it so far.

    `chosen`: designs, best first; `beside`: baselines; `left_out`: what of them does not exist at
    the widths, with the reason. `green`: what was found right; `red`: what is wrong, and why.
    `save` is told to keep the rows; `timed`: whether there are any of this run. `unfit` counts
    what has no groups at another place.
    """

    catalogue: Catalogue
    asked: Asked
    machine: Machine
    book: Book
    save: Callable[[], None]
    progress: Progress
    chosen: tuple[Candidate, ...] = ()
    beside: tuple[Candidate, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    solved: int = 0
    reused: int = 0
    red: dict[Key, str] = field(default_factory=dict)
    green: set[Key] = field(default_factory=set)
    calibration: Calibration = field(default_factory=lambda: Calibration((), ()))
    models: dict[str, Fitted] = field(default_factory=dict)
    unfit: dict[Place, int] = field(default_factory=dict)
    timed: bool = False

    @property
    def shown(self) -> tuple[Candidate, ...]:
        """What the run is about: designs, then baselines."""
        return (*self.chosen, *self.beside)

    @property
    def measured(self) -> tuple[Candidate, ...]:
        """All that there may be times of."""
        return (*self.shown, *self.calibration.sample, *self.calibration.fit)

    @property
    def checked(self) -> tuple[Candidate, ...]:
        """What was found right and is at the place asked for."""
        found: dict[Key, Candidate] = {}
        for each in self.measured:
            if each.shapes == self.asked.place.shapes and each.key in self.green:
                found.setdefault(each.key, each)
        return tuple(found.values())

    def execute(self) -> None:
        """Do it all; what was timed is kept round by round.

        Raises: SettingError when nothing is left to time, or the catalogue has nothing.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self.asked.conditions.threads)
        keep_memory()
        try:
            self._execute()
        finally:
            torch.set_num_threads(threads)

    def _execute(self) -> None:
        asked, conditions = self.asked, self.asked.conditions
        self._choose()
        sampled = (*self.calibration.fit, *self.calibration.sample)
        ways = len(conditions.modes)
        ahead = Ahead(
            self.progress,
            {
                "check": GUESSES["check"] * len(self.shown + sampled),
                "time": GUESSES["time"] * len(self.shown) * ways,
                "memory": GUESSES["memory"] * len(self.shown) * ways,
            }
            | {mode: GUESSES[mode] * len(sampled) for mode in conditions.modes},
        )
        green = self._check(self.shown, sampled, ahead.part("check"))
        scale = 1.0 if conditions.device.type == "cuda" else 0.5
        rates = measured_rates(conditions.device, [conditions.dtype], scale)
        self._time(green, rounds(asked.repeats), rates, ahead.part("time"))
        ahead.over("time")
        if not self.least_ms(green, conditions.modes[0]):
            raise none_timed(green[0].name, self.book)
        if sampled:
            right = [each for each in sampled if each.key in self.green]
            for mode in conditions.modes:
                quick = replace(conditions, compiled=False, modes=(mode,))
                limits = rounds(CALIBRATION_ROUNDS, CALIBRATION_S[mode])
                self._time(right, limits, rates, ahead.part(mode), quick)
                ahead.over(mode)
            self._fit()
            self.book.put(self._predicted())
        self._weigh(green, ahead.part("memory"))
        ahead.over("memory")
        self.save()

    def _choose(self) -> None:
        asked, place = self.asked, self.asked.place
        chosen = select(self.catalogue, asked.top, asked.by, place)
        beside_ = beside(find_baselines(asked.baselines), place)
        known = {each.sized: each for each in beside_.candidates}
        self.chosen = tuple(
            replace(x, provider=f"{x.provider}, {known.pop(x.sized).provider}")
            if x.sized in known
            else x
            for x in chosen.candidates
        )
        self.beside = tuple(known.values())
        self.left_out = chosen.left_out + beside_.left_out
        self.solved = chosen.solved
        if asked.calibrate:
            others = asked.predict or neighbours(place)
            but = frozenset(each.name for each in self.shown)
            self.calibration = calibration(self.catalogue, place, others, self.shown, but)

    def _check(
        self, shown: Sequence[Candidate], sampled: Sequence[Candidate], tell: Tell
    ) -> list[Candidate]:
        """Return which of those shown are right; the others have a row that says why not."""
        conditions = self.asked.conditions
        every = (*shown, *sampled)
        for number, each in enumerate(every, start=1):
            why = fault(each, conditions)
            if why is None:
                self.green.add(each.key)
            else:
                # Nothing stands beside it that was said before.
                self.red[each.key] = why
                for mode in MODES:
                    self.book.forget(each.row(conditions, mode, self.machine))
                for mode in conditions.modes:
                    wrong = Timed(each, mode, reason=RED + why)
                    self.book.put(time_rows(wrong, conditions, self.machine, Rates(1, {})))
            tell(GUESSES["check"] * number, GUESSES["check"] * len(every))
        # The same block may be here twice, with and without the claims of a catalogue.
        self.green -= self.red.keys()
        green = [each for each in shown if each.key in self.green]
        if not green:
            raise none_right(shown, self.red)
        return green

    def _begin(self, timed: Timed) -> None:
        suffix = COMPILED * timed.compiled
        start = timed.candidate.row(self.asked.conditions, timed.mode, self.machine)
        self.book.drop(start, [metric + suffix for metric in (TIME, LEAST, ROUNDS)])

    def _time(
        self,
        candidates: Sequence[Candidate],
        limits: Limits,
        rates: Rates,
        tell: Tell,
        conditions: Conditions | None = None,
    ) -> None:
        """Time what is not in the book yet, in turn, and keep the rows of every round."""
        conditions = conditions or self.asked.conditions
        every = []
        for each, mode, compiled in product(
            candidates, conditions.modes, (False, True)[: 1 + conditions.compiled]
        ):
            start = each.row(conditions, mode, self.machine)
            wanted = limits.least if each.calibrates else -(-limits.most // 2)
            if self.asked.resume and self.book.is_measured(start, wanted, compiled):
                self.reused += 1
            else:
                every.append(Timed(each, mode, compiled))
        for timed in every:
            self._begin(timed)
        for each in candidates:
            self.book.put(count_rows(each, conditions, self.machine))

        def keep() -> None:
            self.timed = True
            for timed in every:
                self.book.put(time_rows(timed, conditions, self.machine, rates))
            self.save()

        if every:
            measure(every, conditions, limits, keep, tell)
            keep()

    def _weigh(self, candidates: Sequence[Candidate], tell: Tell) -> None:
        """Measure the memory of what was timed, unless it is in the book."""
        conditions = self.asked.conditions
        cases = []
        for each, mode in product(candidates, conditions.modes):
            start = each.row(conditions, mode, self.machine)
            timed = self.book.number(start, TIME) is not None
            if timed and not (self.asked.resume and self.book.number(start, PEAK) is not None):
                cases.append((each, mode))
        done = iter(range(1, len(cases) + 1))
        unit = GUESSES["memory"]
        found = peaks(cases, conditions, lambda: tell(unit * next(done), unit * len(cases)))
        for (each, mode), peak in zip(cases, found, strict=True):
            if peak is not None:
                self.book.put([peak_row(each, mode, conditions, self.machine, peak)])
        if cases:
            self.save()

    def _fit(self) -> None:
        conditions = self.asked.conditions
        for mode in conditions.modes:
            fit = self.least_ms(self.calibration.fit, mode)
            sample = self.least_ms(self.calibration.sample, mode)
            if len(fit) + len(sample) >= LEAST_JUDGED:
                measured = partial(features, conditions=conditions)
                self.models[mode] = fitted(mode, fit, sample, measured)

    def least_ms(
        self, candidates: Iterable[Candidate], mode: str = FORWARD
    ) -> list[tuple[Candidate, float]]:
        """Return the least time of those that were timed and are right."""
        found = []
        for each in candidates:
            start = each.row(self.asked.conditions, mode, self.machine)
            time = self.book.least_ms(start) if each.key in self.green else None
            found += [] if time is None else [(each, time)]
        return found

    def predict(self, candidate: Candidate, mode: str = FORWARD) -> float | None:
        """Return the milliseconds that the model says, if there is one and it can."""
        if mode not in self.models:
            return None
        return self.models[mode].model.predict(features(candidate, self.asked.conditions))

    def others(self) -> Iterator[Candidate]:
        """Yield all that can be predicted: the catalogue where it stands, or what was chosen."""
        place = self.asked.place
        every = {each.key: each for each in self.shown}
        for design in designs_for(self.catalogue, place):
            if (design.channels, design.out_channels, design.stride) == (
                place.channels,
                place.out_channels,
                place.stride,
            ):
                each = at_place(design, place, self.asked.by)
                every.setdefault(each.key, each)
        yield from (each for key, each in every.items() if key not in self.red)

    def elsewhere(self) -> Iterator[Candidate]:
        """Yield what was chosen at the other places asked for, groups solved anew.

        `unfit` counts what does not fit there.
        """
        asked = self.asked
        for place in asked.predict:
            named = beside(find_baselines(asked.baselines), place)
            yield from named.candidates
            self.unfit[place] = len(named.left_out)
            for each in self.chosen:
                try:
                    yield moved(each, self.catalogue, place, asked.by)
                except IfspaceError:
                    self.unfit[place] += 1

    def _predicted(self) -> Iterator[dict[str, Any]]:
        conditions = self.asked.conditions
        for each, mode in product(self.others(), conditions.modes):
            milliseconds = self.predict(each, mode)
            if milliseconds is not None:
                yield predicted_row(each, mode, conditions, self.machine, milliseconds)
