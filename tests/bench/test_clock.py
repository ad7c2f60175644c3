"""Functions are timed in turn, the slow ones less often."""

import time

import pytest
import torch

from ifspace.bench.clock import Limits, first_call, interleaved

CPU = torch.device("cpu")


def test_functions_are_called_in_turn_and_slow_ones_less_often() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in ("a", "slow", "b", "once")}
    limits = Limits(budget_s=0.0, min_rounds=4, slow_rounds=2, slow_s=0.5, once_s=1.0)
    first_s = {"a": 0.01, "slow": 0.6, "b": 0.01, "once": 3.0}
    times = interleaved(runs, first_s, limits, CPU)
    assert calls == ["a", "slow", "b"] * 2 + ["a", "b"] * 2
    assert {name: len(seconds) for name, seconds in times.items()} == {
        "a": 4,
        "slow": 2,
        "b": 4,
        "once": 1,
    }
    assert times["once"] == [3.0]


def test_a_function_of_every_round_is_never_too_slow() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    limits = Limits(budget_s=0.0, min_rounds=3, slow_rounds=1, slow_s=0.5, once_s=1.0)
    times = interleaved(runs, {"a": 9.0, "b": 9.0}, limits, CPU, every_round=frozenset("a"))
    assert calls == ["a"] * 3
    assert times["b"] == [9.0]


def test_a_short_call_follows_an_untimed_one() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    interleaved(runs, {"a": 1e-5, "b": 1e-5}, Limits(budget_s=0.0, min_rounds=1, max_rounds=2), CPU)
    assert calls == ["a", "a", "b", "b"]


def test_rounds_end_with_the_budget_or_their_number() -> None:
    def run() -> None:
        time.sleep(0.01)

    some = interleaved(
        {"a": run}, {"a": 0.01}, Limits(budget_s=0.05, min_rounds=2, max_rounds=100), CPU
    )
    assert 2 <= len(some["a"]) <= 6
    most = interleaved(
        {"a": run}, {"a": 0.01}, Limits(budget_s=9.0, min_rounds=2, max_rounds=3), CPU
    )
    assert len(most["a"]) == 3


def test_of_one_thread_the_time_of_other_programs_is_not_counted() -> None:
    """Other programs have the processor while this one sleeps."""
    before = torch.get_num_threads()
    limits = Limits(budget_s=0.0, min_rounds=2)
    try:
        for threads, counted in ((1, False), (2, True)):
            torch.set_num_threads(threads)
            times = interleaved({"a": lambda: time.sleep(0.02)}, {"a": 0.02}, limits, CPU)
            assert (min(times["a"]) >= 0.02) is counted
    finally:
        torch.set_num_threads(before)


def test_the_first_call_is_timed_and_its_result_returned() -> None:
    seconds, result = first_call(lambda: time.sleep(0.01) or 7, CPU)
    assert (seconds >= 0.01, result) == (True, 7)


def test_rounds_end_where_no_function_is_left() -> None:
    assert interleaved({"a": pytest.fail}, {"a": 9.0}, Limits(), CPU) == {"a": [9.0]}


def test_the_callback_gets_the_times_after_every_round() -> None:
    counts: list[dict[str, int]] = []
    interleaved(
        {"a": lambda: None, "b": lambda: None},
        {"a": 0.01, "b": 0.01},
        Limits(budget_s=9.0, min_rounds=1, max_rounds=3),
        CPU,
        on_round=lambda times: counts.append(
            {name: len(seconds) for name, seconds in times.items()}
        ),
    )
    assert counts == [{"a": n, "b": n} for n in (1, 2, 3)]
