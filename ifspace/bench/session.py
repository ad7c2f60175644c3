"""A run of `ifspace bench`: blocks are chosen, checked, timed, and their memory is measured.

A latency model is fitted to a sample of the catalogue and predicts the rest of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice, product
from math import inf
from typing import Final

import torch

from ifspace.bench.blocks import (
    BlockShape,
    Calibration,
    baselines_at,
    calibration,
    design_at,
    designs_for,
    find_baselines,
    is_at,
    neighbours,
    reshaped,
    select,
)
from ifspace.bench.case import (
    BlockCandidate,
    BlockInputs,
    BlockKey,
    Conditions,
    Trial,
    block_call,
    run_block,
)
from ifspace.bench.clock import Call, Limits
from ifspace.bench.forms import fusion_fault, is_changed
from ifspace.bench.gate import block_fault, check_compiled
from ifspace.bench.latency import MIN_JUDGED, MODEL, FittedModel, features
from ifspace.bench.machine import (
    Machine,
    Rates,
    available_bytes,
    bound_s,
    keep_memory,
    measured_rates,
    set_precision,
)
from ifspace.bench.memory import peak_bytes
from ifspace.bench.rows import Measurements, Row, start_row, time_rows, with_numbers
from ifspace.bench.run import NotRunError, OnSeconds, rounds, time_trials
from ifspace.block import SizedBlock
from ifspace.catalogue.design import Catalogue
from ifspace.errors import IfspaceError, SettingError
from ifspace.measurements import (
    AS_IS,
    BOTH_WAYS,
    CHANNELS_SEEN,
    COMPILED,
    FAILED,
    FORWARD,
    LEAST,
    MODES,
    NOT_RUN,
    PEAK,
    PIXELS_SEEN,
    PREDICTED,
    ROUNDS,
    TIME,
)
from ifspace.nn.block import block_style
from ifspace.reach import Reference, field_after
from ifspace.values import MAX_ROUNDS, whole_number

# Rounds of a calibration, fewer where they would take longer than this.
CALIBRATION_ROUNDS: Final = 30
CALIBRATION_S: Final = {FORWARD: 15.0, BOTH_WAYS: 30.0}
# Seconds a block that the parts of a run take, until their length is known.
GUESSES_S: Final = {"check": 0.2, "time": 2.0, "memory": 0.5, FORWARD: 0.3, BOTH_WAYS: 0.6}
# Until the rates of this device are measured: bytes and operations a second of a slow one of its
# kind, how many times the least work a block takes, and the least seconds of a call.
SLOW: Final = {"cpu": (4e9, 1e10), "cuda": (5e11, 1e13)}
TIMES_BOUND: Final = 3
CALL_S: Final = 1e-3
# The blocks that the model predicts to be the fastest.
FASTEST: Final = 3

OnProgress = Callable[[int, int], None]


@cache
def field_of(sized: SizedBlock) -> tuple[int, int]:
    """Return what a block sees: pixels along a side, and input channels.

    >>> from ifspace.block import Block
    >>> field_of(Block.parse("GC(12)+GPW(8)").at(96))
    (3, 16)
    """
    return field_after(sized)[-1]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """The settings of a run; `predict` are more shapes, for the latency table.

    `resume`: candidates that were timed in half of the `repeats` rounds or more are not timed
    again. `every_row`: designs that are the same network are all timed. `accept_model`: the
    latencies of the model go into the table even if it misses its goal. `forms`: names of the forms
    that each block is timed in.

    Raises: SettingError for a number out of its range.
    """

    shape: BlockShape
    conditions: Conditions
    top: int = 10
    by: str = "params"
    baselines: tuple[str, ...] = ()
    repeats: int = 25
    calibrate: bool = True
    predict: tuple[BlockShape, ...] = ()
    resume: bool = False
    every_row: bool = False
    accept_model: bool = False
    forms: tuple[str, ...] = (AS_IS,)

    def __post_init__(self) -> None:
        whole_number(self.top, "top")
        whole_number(self.repeats, "repeats", 3, MAX_ROUNDS)


class ProgressEstimate:
    """The progress of a run of several parts, whose seconds are guessed until they are known.

    The progress callback is called with the milliseconds done and in all.

    >>> estimate = ProgressEstimate(print, {"check": 1.0, "time": 8.0})
    >>> estimate.part("check")(0.5, 2.0)
    500 10000
    """

    def __init__(self, on_progress: OnProgress, guesses_s: Mapping[str, float]) -> None:
        self._on_progress = on_progress
        self._totals_s = dict(guesses_s)
        self._done_s = dict.fromkeys(guesses_s, 0.0)

    @property
    def total_s(self) -> float:
        """The seconds of all parts, as far as they are known."""
        return sum(self._totals_s.values())

    def part(self, name: str) -> OnSeconds:
        """Return the progress callback of a part, in seconds."""

        def on_seconds(done_s: float, total_s: float) -> None:
            self._totals_s[name] = total_s
            self._done_s[name] = min(done_s, total_s)
            done = sum(self._done_s.values())
            self._on_progress(round(1e3 * done), round(1e3 * self.total_s))

        return on_seconds

    def end(self, name: str) -> None:
        """End a part, where it is."""
        self.part(name)(self._done_s[name], self._done_s[name])


@dataclass(slots=True)
class BlockBench:
    """A run and its results so far.

    `designs`: the chosen ones, best first, and `baselines`; `left_out`: those that do not exist at
    the widths, with the reason. `passed`: blocks that passed the gate; `failed`: blocks that did
    not, and why. `on_start` is called with the number of blocks, of those for the model, and about
    how many seconds they take. `save` is called to write the rows; `has_times`: whether this run
    has added some. `unfit`: how many blocks have no group counts at another shape. `solved`,
    `same`: as in `Selection`.
    """

    catalogue: Catalogue
    settings: BenchSettings
    machine: Machine
    measurements: Measurements
    save: Callable[[], None]
    on_progress: OnProgress
    on_start: Callable[[int, int, float], None] = lambda shown, sampled, seconds: None
    designs: tuple[BlockCandidate, ...] = ()
    baselines: tuple[BlockCandidate, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    solved: int = 0
    same: int = 0
    reused: int = 0
    passed: set[BlockKey] = field(default_factory=set)
    failed: dict[BlockKey, str] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    models: dict[str, FittedModel] = field(default_factory=dict)
    unfit: dict[BlockShape, int] = field(default_factory=dict)
    has_times: bool = False

    @property
    def shown(self) -> tuple[BlockCandidate, ...]:
        """The blocks that the run is about: designs, baselines, then those short of the field.

        Each is there in all of its forms.
        """
        blocks = sorted((*self.designs, *self.baselines), key=self.is_short)
        return tuple(form for block in blocks for form in self.in_forms(block))

    def in_forms(self, candidate: BlockCandidate) -> Iterator[BlockCandidate]:
        """Yield a block in the forms of the run in which it differs from the block as it is."""
        conditions = self.settings.conditions
        how = candidate.stride, block_style(conditions.style), conditions.device.type
        for form in self.settings.forms:
            if form == AS_IS or is_changed(form, candidate.sized, *how):
                yield replace(candidate, form=form)

    @property
    def reference(self) -> Reference:
        """The field of the convolutions that a design of the catalogue replaces."""
        first = designs_for(self.catalogue, self.settings.shape)[0]
        return Reference(first.kernel, first.repeats)

    def is_short(self, candidate: BlockCandidate) -> bool:
        """Return whether a block sees less than the convolutions that the designs replace."""
        pixels, channels = field_of(candidate.sized)
        return pixels < self.reference.side or channels < candidate.sized.channels

    @property
    def uses_model(self) -> bool:
        """Whether the model's latencies go into the table: it ranks blocks as its goal asks."""
        model = self.models.get(FORWARD)
        return model is not None and (self.settings.accept_model or model.errors[MODEL].ranks)

    @property
    def measured(self) -> tuple[BlockCandidate, ...]:
        """All blocks that there may be times of."""
        return (*self.shown, *self.calibration.sample, *self.calibration.fit)

    @property
    def passed_here(self) -> tuple[BlockCandidate, ...]:
        """The blocks at the shape of the run that passed the gate, each once."""
        candidates: dict[BlockKey, BlockCandidate] = {}
        for candidate in self.measured:
            is_here = candidate.shapes == self.settings.shape.shapes
            if is_here and candidate.key in self.passed:
                candidates.setdefault(candidate.key, candidate)
        return tuple(candidates.values())

    def execute(self) -> None:
        """Run all parts; times are saved round by round.

        Raises: SettingError when nothing is left to time, or the catalogue has nothing.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self.settings.conditions.threads)
        keep_memory()
        try:
            self._execute()
        finally:
            torch.set_num_threads(threads)

    def _execute(self) -> None:
        settings, conditions = self.settings, self.settings.conditions
        self._choose()
        too_large = [memory_fault(candidate, conditions) for candidate in self.shown]
        if too_large and all(too_large):
            raise self._none_timed(self.shown[0], NOT_RUN + too_large[0])
        sampled = self.calibration.candidates
        timed = [(x, mode) for x in self.shown for mode in x.modes(conditions)]
        timing_s = sum(self._guess_s(*pair) for pair in timed)
        estimate = ProgressEstimate(
            self.on_progress,
            {
                "check": GUESSES_S["check"] * len(self.shown + sampled),
                "time": timing_s,
                "memory": GUESSES_S["memory"] * len(timed),
            }
            | {mode: GUESSES_S[mode] * len(sampled) for mode in conditions.modes},
        )
        self.on_start(len(self.shown), len(sampled), estimate.total_s)
        right = self._check(sampled, estimate.part("check"))
        scale = 1.0 if conditions.device.type == "cuda" else 0.5
        rates = measured_rates(conditions.device, [conditions.dtype], scale)
        self._time(right, conditions, rounds(settings.repeats), rates, estimate.part("time"))
        estimate.end("time")
        if not self.least_ms(right, conditions.modes[0]):
            raise self._none_timed(right[0], self._reason(right[0]))
        if sampled:
            right_sampled = [x for x in sampled if x.key in self.passed]
            for mode in conditions.modes:
                plain = replace(conditions, compiled=False, modes=(mode,))
                limits = rounds(CALIBRATION_ROUNDS, CALIBRATION_S[mode])
                self._time(right_sampled, plain, limits, rates, estimate.part(mode))
                estimate.end(mode)
            self._fit()
            self.measurements.put(self._predicted_rows())
        self._measure_memory(right, estimate.part("memory"))
        estimate.end("memory")
        self.save()

    def _guess_s(self, candidate: BlockCandidate, mode: str) -> float:
        """Return about how many seconds timing a block takes, before anything is measured."""
        conditions = self.settings.conditions
        copy, matrix = SLOW[conditions.device.type]
        bound = bound_s(
            candidate.passes(conditions, mode),
            Rates(copy, {conditions.dtype: matrix}),
            conditions.dtype,
        )
        calls_s = self.settings.repeats * max(CALL_S, TIMES_BOUND * bound)
        return max(GUESSES_S["time"], calls_s)

    def _choose(self) -> None:
        settings, shape = self.settings, self.settings.shape
        chosen = select(self.catalogue, settings.top, settings.by, shape, settings.every_row)
        named = baselines_at(find_baselines(settings.baselines), shape)
        # A design that is a baseline too is measured once, with both providers.
        by_block = {baseline.sized: baseline for baseline in named.candidates}
        self.designs = tuple(
            replace(x, provider=f"{x.provider}, {by_block.pop(x.sized).provider}")
            if x.sized in by_block
            else x
            for x in chosen.candidates
        )
        self.baselines = tuple(by_block.values())
        self.left_out = chosen.left_out + named.left_out
        self.solved = chosen.solved
        self.same = chosen.same
        if settings.calibrate:
            shapes = settings.predict or neighbours(shape)
            names = frozenset(candidate.name for candidate in self.shown)
            self.calibration = calibration(self.catalogue, shape, shapes, self.shown, names)

    def _check(
        self, sampled: Sequence[BlockCandidate], on_seconds: OnSeconds
    ) -> list[BlockCandidate]:
        """Return the blocks shown that pass the gate; the others get a row that says why not.

        Raises: SettingError when none of those shown passes.
        """
        conditions = self.settings.conditions
        candidates = (*self.shown, *sampled)
        for number, candidate in enumerate(candidates, start=1):
            # What does not fit into memory is not timed: that is said, and needs no check.
            fits = not memory_fault(candidate, conditions)
            fault = block_fault(candidate, conditions) if fits else None
            if fault is None:
                self.passed.add(candidate.key)
            else:
                self.failed[candidate.key] = fault
                # What earlier runs measured of it is wrong too.
                for mode in MODES:
                    self.measurements.drop_all(self.start(candidate, mode))
                for mode in candidate.modes(conditions):
                    start = self.start(candidate, mode)
                    self.measurements.put([with_numbers(start, FAILED + fault, "")])
            on_seconds(GUESSES_S["check"] * number, GUESSES_S["check"] * len(candidates))
        # The same block may be here twice, with and without the claims of a catalogue.
        self.passed -= self.failed.keys()
        right = [candidate for candidate in self.shown if candidate.key in self.passed]
        if not right:
            raise self._none_right()
        return right

    def _time(
        self,
        candidates: Sequence[BlockCandidate],
        conditions: Conditions,
        limits: Limits,
        rates: Rates,
        on_seconds: OnSeconds,
    ) -> None:
        """Time in turn what is to be timed, and save the rows of every round."""
        trials = []
        for candidate, mode, compiled in product(
            candidates, conditions.modes, (False, True)[: 1 + conditions.compiled]
        ):
            # What torch.compile makes of a block is a form of its own.
            if mode not in candidate.modes(conditions) or (compiled and candidate.form != AS_IS):
                continue
            start = self.start(candidate, mode)
            enough = limits.min_rounds if candidate.calibrates else -(-limits.max_rounds // 2)
            if self.settings.resume and self.measurements.is_timed(start, enough, compiled):
                self.reused += 1
            else:
                trials.append(Trial(candidate, mode, compiled))
        for trial in trials:
            suffix = COMPILED * trial.compiled
            metrics = [metric + suffix for metric in (TIME, LEAST, ROUNDS)]
            self.measurements.drop(self.start(trial.candidate, trial.mode), metrics)
        for candidate in candidates:
            start = self.start(candidate, FORWARD)
            params, macs = candidate.params(conditions), candidate.macs_per_pixel(conditions)
            side, channels = field_of(candidate.sized)
            whole = candidate.sized.channels
            self.measurements.put(
                [
                    with_numbers(start, PIXELS_SEEN, "pixels", [side], self.reference.side),
                    with_numbers(start, CHANNELS_SEEN, "channels", [channels], whole),
                    with_numbers(start, "params", "count", [params]),
                    with_numbers(start, "macs", "count/pixel", [macs]),
                ]
            )

        def keep() -> None:
            self.has_times = True
            for trial in trials:
                start = self.start(trial.candidate, trial.mode)
                work = trial.candidate.passes(conditions, trial.mode)
                bound = bound_s(work, rates, conditions.dtype)
                self.measurements.put(trial_rows(trial, start, bound))
            self.save()

        if trials:
            time_blocks(trials, conditions, limits, keep, on_seconds)
            keep()

    def _measure_memory(self, candidates: Sequence[BlockCandidate], on_seconds: OnSeconds) -> None:
        """Measure the peak memory of what was timed, unless it is there already."""
        conditions = self.settings.conditions
        starts, calls = [], []
        for candidate, mode in product(candidates, conditions.modes):
            start = self.start(candidate, mode)
            is_timed = self.measurements.number(start, TIME) is not None
            is_timed = is_timed and mode in candidate.modes(conditions)
            is_there = self.measurements.number(start, PEAK) is not None
            if is_timed and not (self.settings.resume and is_there):
                starts.append(start)
                calls.append(partial(run_block, candidate, mode, conditions))
        counter = iter(range(1, len(calls) + 1))
        unit_s = GUESSES_S["memory"]
        peaks = peak_bytes(
            calls,
            conditions.device,
            conditions.dtype,
            conditions.threads,
            lambda: on_seconds(unit_s * next(counter), unit_s * len(calls)),
        )
        for start, peak in zip(starts, peaks, strict=True):
            if peak is not None:
                self.measurements.put([with_numbers(start, PEAK, "MiB", [peak / 2**20])])
        if calls:
            self.save()

    def _fit(self) -> None:
        for mode in self.settings.conditions.modes:
            fit = self.least_ms(self.calibration.fit, mode)
            sample = self.least_ms(self.calibration.sample, mode)
            if len(fit) + len(sample) >= MIN_JUDGED:
                block_features = partial(features, conditions=self.settings.conditions)
                self.models[mode] = FittedModel.fit(mode, fit, sample, block_features)

    def start(self, candidate: BlockCandidate, mode: str) -> Row:
        """Return the row of a candidate in a mode, without a number."""
        return start_row(self.machine, candidate.columns(self.settings.conditions, mode))

    def number(self, candidate: BlockCandidate, mode: str, metric: str) -> float | None:
        """Return the median of a metric, or None where it was not measured."""
        return self.measurements.number(self.start(candidate, mode), metric)

    def least_ms(
        self, candidates: Iterable[BlockCandidate], mode: str = FORWARD
    ) -> list[tuple[BlockCandidate, float]]:
        """Return the least time of those that passed the gate and were timed."""
        times = []
        for candidate in candidates:
            least_ms = self.number(candidate, mode, LEAST)
            if candidate.key in self.passed and least_ms is not None:
                times.append((candidate, least_ms))
        return times

    def predict(self, candidate: BlockCandidate, mode: str = FORWARD) -> float | None:
        """Return the milliseconds that the model predicts; None without a model that can."""
        if mode not in self.models:
            return None
        return self.models[mode].model.predict(features(candidate, self.settings.conditions))

    def predictable(self) -> Iterator[BlockCandidate]:
        """Yield what can be predicted: the blocks shown, and the catalogue at their shape.

        Each is there in all of its forms.
        """
        shape = self.settings.shape
        candidates = {candidate.key: candidate for candidate in self.shown}
        for design in designs_for(self.catalogue, shape):
            if is_at(design, shape):
                for candidate in self.in_forms(design_at(design, shape, self.settings.by)):
                    candidates.setdefault(candidate.key, candidate)
        yield from (x for key, x in candidates.items() if key not in self.failed)

    def elsewhere(self) -> Iterator[BlockCandidate]:
        """Yield designs and baselines at the shapes to predict, groups solved again.

        Each is there in all of its forms. `unfit` counts those that do not fit there.
        """
        settings = self.settings
        for shape in settings.predict:
            named = baselines_at(find_baselines(settings.baselines), shape)
            for candidate in named.candidates:
                yield from self.in_forms(candidate)
            self.unfit[shape] = len(named.left_out)
            for design in self.designs:
                try:
                    candidate = reshaped(design, self.catalogue, shape, settings.by)
                    yield from self.in_forms(candidate)
                except IfspaceError:
                    self.unfit[shape] += 1

    def _predicted_rows(self) -> Iterator[Row]:
        conditions = self.settings.conditions
        for candidate, mode in product(self.predictable(), conditions.modes):
            predicted_ms = self.predict(candidate, mode)
            if predicted_ms is not None and mode in candidate.modes(conditions):
                yield with_numbers(self.start(candidate, mode), PREDICTED, "ms", [predicted_ms])

    def pareto(self) -> list[tuple[BlockCandidate, float]]:
        """Return the blocks that no other one shown beats in parameters and least time.

        The parameters are those of its form. A block that sees less than the convolution is none of
        them, and beats none.
        """
        times = self.least_ms(x for x in self.shown if not self.is_short(x))
        conditions = self.settings.conditions
        return [times[n] for n in front([(x.params(conditions), ms) for x, ms in times])]

    def fastest(self) -> list[tuple[BlockCandidate, float]]:
        """Return the blocks of the full field that the model predicts to be the fastest.

        Those that were measured come first, by the time measured.
        """
        if not self.models:
            return []
        candidates = {candidate.key: candidate for candidate in self.predictable()}.values()
        predicted = [(x, ms) for x in candidates if (ms := self.predict(x)) is not None]
        predicted.sort(key=lambda pair: pair[1])
        first = list(islice((x for x in predicted if not self.is_short(x[0])), FASTEST))
        measured = {x.key: ms for x, ms in self.least_ms(candidate for candidate, _ in first)}
        return sorted(first, key=lambda pair: measured.get(pair[0].key, inf))

    def worst_slowdown(self) -> float:
        """Return the largest ratio of a median to the least time: that of a busy machine."""
        worst = 1.0
        for candidate, mode in product(self.shown, self.settings.conditions.modes):
            median, least_ms = (self.number(candidate, mode, metric) for metric in (TIME, LEAST))
            if median is not None and least_ms:
                worst = max(worst, median / least_ms)
        return worst

    def _none_right(self) -> SettingError:
        first = self.shown[0] if self.shown else None
        return SettingError.because(
            "no block is right, none is timed",
            got=f"{first.name}: {self.failed[first.key]}" if first else "none chosen",
            allowed="blocks that pass the checks",
            remedy="enumerate the catalogue anew",
        )

    def _reason(self, candidate: BlockCandidate) -> str:
        """Return why a block has no time."""
        metrics = [str(x["metric"]) for x in self.measurements if x["candidate"] == candidate.name]
        return next((metric for metric in metrics if metric.startswith(NOT_RUN)), "it has no time")

    def _none_timed(self, candidate: BlockCandidate, reason: str) -> SettingError:
        return SettingError.because(
            "no block could be timed",
            got=f"{candidate.name}, {reason}",
            allowed="feature maps that fit into memory",
            remedy="ask for a smaller batch or side",
        )


def memory_fault(candidate: BlockCandidate, conditions: Conditions) -> str:
    """Return why a block does not fit into the memory that is free, "" if it does."""
    needed = candidate.bytes_needed(conditions)
    available = available_bytes(conditions.device)
    if needed <= available:
        return ""
    return f"it needs {needed / 2**30:,.1f} GiB of {available / 2**30:.1f}"


def time_blocks(
    trials: Sequence[Trial[BlockCandidate]],
    conditions: Conditions,
    limits: Limits,
    on_round: Callable[[], None] | None = None,
    on_seconds: OnSeconds | None = None,
) -> None:
    """Time blocks in turn, forward and both ways, compiled or not: see `time_trials`."""
    set_precision(conditions.dtype)
    inputs = BlockInputs(conditions)

    def prepare(trial: Trial[BlockCandidate]) -> Call:
        if too_large := memory_fault(trial.candidate, conditions):
            raise NotRunError(too_large)
        module, run = block_call(trial.candidate, trial.mode, conditions, inputs)
        if reason := fusion_fault(module, inputs.draw(trial.candidate, trial.mode)[0]):
            raise NotRunError(reason)
        if not trial.compiled:
            return partial(run, module)
        expected = run(module)
        torch.compiler.reset()
        compiled = torch.compile(module, dynamic=False, fullgraph=True)
        assert isinstance(compiled, torch.nn.Module)
        check_compiled(run(compiled), expected, conditions.dtype)
        return partial(run, compiled)

    time_trials(
        trials, prepare, limits, conditions.device, on_round=on_round, on_seconds=on_seconds
    )


def trial_rows(trial: Trial[BlockCandidate], start: Row, bound: float) -> tuple[Row, ...]:
    """Return the rows of a block's times, or the one that says why there are none."""
    suffix = COMPILED * trial.compiled
    if trial.reason:
        return (with_numbers(start, NOT_RUN + trial.reason + suffix, ""),)
    return time_rows(start, trial.seconds, bound, suffix) if trial.seconds else ()


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto-optimal points, by the first amount and then the second.

    A point beats another that is no less in either amount and more in one; equal ones all stay.

    >>> front([(3, 1.0), (1, 4.0), (2, 4.0), (2, 2.0), (3, 1.0)])
    [1, 3, 0, 4]
    """
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))
    indices: list[int] = []
    for index in order:
        last = points[indices[-1]] if indices else None
        if last is None or points[index][1] < last[1] or points[index] == last:
            indices.append(index)
    return indices
