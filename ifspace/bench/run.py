"""The runner: trials are prepared, called once or twice, then timed in turn, round by round."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

import torch

from ifspace.bench.case import CandidateT, Trial
from ifspace.bench.clock import SHORT_S, Call, Limits, captured, first_call, interleaved
from ifspace.bench.machine import choose_by_time

# Progress callback: seconds of work done, and in all.
OnSeconds = Callable[[float, float], None]
# About the seconds that preparing a trial takes, for the progress.
PREPARATION_S: Final = 0.1
# On CUDA a kernel takes some microseconds, less than its launches: it is replayed from a graph,
# unless it holds so much that a graph's own memory would crowd out the others.
MAX_CAPTURED: Final = 2**32


class NotRunError(Exception):
    """Raised by `prepare` for a trial that is not run, with the reason."""


def time_trials(
    trials: Sequence[Trial[CandidateT]],
    prepare: Callable[[Trial[CandidateT]], Call],
    limits: Limits,
    device: torch.device,
    *,
    warm_up: bool = True,
    check: Callable[[dict[int, Any]], None] | None = None,
    on_round: Callable[[], None] | None = None,
    on_seconds: OnSeconds | None = None,
) -> None:
    """Time trials in turn: fill in their seconds, or the reason why there are none.

    `prepare` returns what is called. What it or a call raises becomes the reason of the trial, and
    a trial that has a reason already is neither prepared nor called. `warm_up`: each is called
    twice before the rounds, for the first call may compile, or choose an algorithm; compiled trials
    always are. `check` is called once before the rounds with the outputs of the trials that are
    `checked`, by index, and may raise. `on_round` is called when all trials have one more time.
    """
    choose_by_time(device)
    calls: dict[int, Call] = {}
    first_s: dict[int, float] = {}
    outputs: dict[int, Any] = {}

    def report(done_s: float) -> None:
        if on_seconds is not None:
            preparation_s = PREPARATION_S * len(trials)
            on_seconds(done_s, preparation_s + _expected_s(first_s, limits))

    for index, trial in enumerate(trials):
        if not trial.reason:
            try:
                call = prepare(trial)
                seconds, output = first_call(call, device)
                if warm_up or trial.compiled:
                    seconds, output = first_call(call, device)
                # Launches can take longer than the work: on CUDA they are replayed from a graph.
                is_replayed = device.type == "cuda" and trial.replayed
                calls[index] = captured(call, device) if is_replayed else call
                first_s[index] = seconds
            except NotRunError as error:
                trial.reason = str(error)
            except (RuntimeError, MemoryError) as error:
                trial.reason = summary(error)
            else:
                if trial.checked:
                    outputs[index] = output
                del output
        report(PREPARATION_S * (index + 1))
    if check is not None:
        check(outputs)
    outputs.clear()

    def end_round(times: dict[int, list[float]]) -> None:
        for index, seconds in times.items():
            trials[index].seconds = seconds
        count = max(map(len, times.values()), default=0)
        rounds_s = _expected_s(first_s, limits) * count / limits.max_rounds
        report(PREPARATION_S * len(trials) + rounds_s)
        if on_round is not None:
            on_round()

    every_round = frozenset(index for index in calls if trials[index].every_round)
    times = interleaved(calls, first_s, limits, device, every_round, end_round)
    for index, trial_seconds in times.items():
        trials[index].seconds = trial_seconds


def rounds(count: int, budget_s: float = inf) -> Limits:
    """Return limits of so many rounds in which all take part, or fewer within a time."""
    return Limits(budget_s=budget_s, min_rounds=min(count, 5), max_rounds=count)


def summary(error: BaseException) -> str:
    r"""Return an error's type and the start of its first line.

    >>> summary(RuntimeError("no such engine\nand more"))
    'RuntimeError: no such engine'
    """
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.120}"


def _expected_s(first_s: dict[int, float], limits: Limits) -> float:
    round_s = sum(seconds * (2 if seconds < SHORT_S else 1) for seconds in first_s.values())
    return min(round_s * limits.max_rounds, max(limits.budget_s, round_s * limits.min_rounds))
