"""The rows of what was measured, counted and predicted, one number each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Final

import torch

from ifspace.bench.blocks import (
    Calibration,
    Candidate,
    Conditions,
    Key,
    Place,
    at_place,
    beside,
    calibration,
    designs_for,
    find_baselines,
    moved,
    neighbours,
    select,
)
from ifspace.bench.clock import Limits
from ifspace.bench.gate import fault
from ifspace.bench.latency import (
    LEAST_JUDGED,
    Fitted,
    features,
    fitted,
)
from ifspace.bench.machine import (
    Rates,
    Work,
    keep_memory,
    measured_rates,
)
from ifspace.bench.memory import peaks
from ifspace.bench.rows import (
    BOTH_WAYS,
    COMPILED,
    FORWARD,
    LEAST,
    MODES,
    NOT_RUN,
    PEAK,
    PREDICTED,
    RED,
    ROUNDS,
    TIME,
    Book,
    Machine,
    Row,
    rounded,
    spread,
)
from ifspace.bench.run import (
    Timed,
    measure,
    rounds,
)
from ifspace.catalogue.design import Catalogue
from ifspace.errors import IfspaceError, SettingError


def filled(
    start: Row, metric: str, unit: str, numbers: Sequence[float], bound: float | None = None
) -> Row:
    """Return a row with a metric: median, p20 and p80 of numbers, or of none."""
    low, middle, high = spread(numbers) if numbers else ("", "", "")
    found = {"median": middle, "p20": low, "p80": high, "bound": "" if bound is None else bound}
    return start | {"metric": metric, "unit": unit} | {k: rounded(v) for k, v in found.items()}


def time_rows(
    timed: Timed, conditions: Conditions, machine: Machine, rates: Rates
) -> Iterator[Row]:
    """Yield the rows of a candidate's times, or the one that says why there are none."""
    start = timed.candidate.row(conditions, timed.mode, machine)
    suffix = COMPILED * timed.compiled
    if timed.reason:
        red = timed.reason.startswith(RED)
        yield filled(start, timed.reason if red else NOT_RUN + timed.reason + suffix, "", ())
    elif timed.seconds:
        bound = 1e3 * bound_s(timed.candidate, conditions, timed.mode, rates)
        times = [1e3 * each for each in timed.seconds]
        yield filled(start, TIME + suffix, "ms", times, bound)
        yield filled(start, LEAST + suffix, "ms", [min(times)], bound)
        yield filled(start, ROUNDS + suffix, "count", [len(times)])


def count_rows(candidate: Candidate, conditions: Conditions, machine: Machine) -> Iterator[Row]:
    """Yield parameters and multiply-accumulates per output pixel."""
    start = candidate.row(conditions, FORWARD, machine)
    yield filled(start, "params", "count", [candidate.sized.params])
    yield filled(start, "macs", "count/pixel", [candidate.sized.macs_per_pixel(candidate.stride)])


def peak_row(
    candidate: Candidate, mode: str, conditions: Conditions, machine: Machine, peak: int
) -> Row:
    """Return the row of the most memory held at once."""
    return filled(candidate.row(conditions, mode, machine), PEAK, "MiB", [peak / 2**20])


def predicted_row(
    candidate: Candidate, mode: str, conditions: Conditions, machine: Machine, milliseconds: float
) -> Row:
    """Return the row of a time that the model says."""
    return filled(candidate.row(conditions, mode, machine), PREDICTED, "ms", [milliseconds])


def bound_s(candidate: Candidate, conditions: Conditions, mode: str, rates: Rates) -> float:
    """Return the seconds of a block whose layers are one, at the rates of large tensors.

    What stays in a cache may be a little quicker.
    Forward: x and the weights read, y written. Backward: the gradient of y, x and the weights
    read, the gradients of x and weights written, twice the operations.
    """
    n, c_in, *sides = candidate.in_shape
    pixels = candidate.batch * candidate.side**2
    x, y = n * c_in * sides[0] * sides[1], candidate.sized.out_channels * pixels
    params, size = candidate.sized.params, conditions.torch_dtype.itemsize
    forward = Work((x + y + params) * size, 2 * candidate.macs)
    found = forward.seconds(rates, conditions.dtype)
    if mode == BOTH_WAYS:
        backward = Work((2 * x + y + 2 * params) * size, 4 * candidate.macs)
        found += backward.seconds(rates, conditions.dtype)
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is asked for; `predict` are more places, for the latency table.

    `resume`: what the book has of `repeats` rounds, or of half of them, is not timed again.
    """

    place: Place
    conditions: Conditions
    top: int = 10
    by: str = "params"
    baselines: tuple[str, ...] = ()
    repeats: int = 25
    calibrate: bool = True
    predict: tuple[Place, ...] = ()
    resume: bool = False


Progress = Callable[[int, int], None]
Tell = Callable[[float, float], None]


class Ahead:
    """The seconds of each part, done and in all; a teller of milliseconds is told of the sum.

    >>> ahead = Ahead(lambda done, total: print(done, total), {"check": 1.0, "time": 8.0})
    >>> ahead.part("check")(0.5, 2.0)
    500 10000
    """

    def __init__(self, progress: Progress, guesses: Mapping[str, float]) -> None:
        self._progress = progress
        self._totals = dict(guesses)
        self._done = dict.fromkeys(guesses, 0.0)

    def part(self, name: str) -> Tell:
        """Return what a part tells how many of its seconds are done, of how many."""

        def tell(done: float, total: float) -> None:
            self._totals[name] = total
            self._done[name] = min(done, total)
            self._progress(
                round(1e3 * sum(self._done.values())), round(1e3 * sum(self._totals.values()))
            )

        return tell

    def over(self, name: str) -> None:
        """Say that a part is done, or has nothing to do."""
        self.part(name)(self._done[name], self._done[name])


def none_right(shown: Sequence[Candidate], red: Mapping[Key, str]) -> SettingError:
    """Return the refusal of candidates that are all red."""
    return SettingError.because(
        "no block is right, none is timed",
        got=f"{shown[0].name}: {red[shown[0].key]}" if shown else "none chosen",
        allowed="blocks that are what they are said to be",
        remedy="enumerate the catalogue anew",
    )


def none_timed(name: str, rows: Iterable[Row]) -> SettingError:
    """Return the refusal of candidates that could not be run; `name`: one of them."""
    said = [str(row["metric"]) for row in rows if row["candidate"] == name]
    why = next((each for each in said if each.startswith(NOT_RUN)), "it has no time")
    return SettingError.because(
        "no block could be timed",
        got=f"{name}, {why}",
        allowed="maps that fit into memory",
        remedy="ask for a smaller batch or side",
    )


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
