"""Trials are timed in turn; those that are not timed have a reason."""

from dataclasses import replace
from math import inf

import pytest
import torch

from ifspace.bench import session
from ifspace.bench.case import BlockInputs, Trial, block_call
from ifspace.bench.run import NotRunError, rounds, time_trials
from ifspace.bench.session import time_blocks
from ifspace.measurements import BOTH_WAYS, FORWARD

CPU = torch.device("cpu")


def check_progress(done_s: float, total_s: float) -> None:
    assert 0 <= done_s <= total_s * (1 + 1e-9)


def test_all_are_timed_in_turn_round_by_round(block, here) -> None:
    trials = [Trial(block(text), mode) for text in ("DW+PW", "CONV") for mode in here.modes]
    counts: list[list[int]] = []
    time_blocks(
        trials,
        here,
        rounds(4),
        lambda: counts.append([len(trial.seconds) for trial in trials]),
        check_progress,
    )
    assert counts == [[n] * 4 for n in (1, 2, 3, 4)]
    assert all(min(trial.seconds) > 0 and not trial.reason for trial in trials)


def test_a_trial_with_a_reason_is_neither_prepared_nor_called() -> None:
    prepared: list[str] = []

    def prepare(trial: Trial[str]):
        prepared.append(trial.candidate)
        return lambda: None

    failed, right = Trial("a", reason="red: wrong"), Trial("b")
    time_trials([failed, right], prepare, rounds(3), CPU, on_seconds=check_progress)
    assert prepared == ["b"]
    assert (failed.seconds, failed.reason, len(right.seconds)) == ([], "red: wrong", 3)


def test_an_error_becomes_the_reason_of_its_trial() -> None:
    def prepare(trial: Trial[str]):
        if trial.candidate == "broken":
            raise RuntimeError("no such engine\nand more")
        if trial.candidate == "refused":
            raise NotRunError("it needs 13 GiB")
        return lambda: None

    trials = [Trial(name) for name in ("right", "broken", "refused")]
    time_trials(trials, prepare, rounds(3), CPU, on_seconds=check_progress)
    reasons = [trial.reason for trial in trials]
    assert reasons == ["", "RuntimeError: no such engine", "it needs 13 GiB"]
    assert [len(trial.seconds) for trial in trials] == [3, 0, 0]


def test_outputs_are_checked_before_any_round() -> None:
    calls: list[str] = []

    def prepare(trial: Trial[str]):
        return lambda: calls.append(trial.candidate) or trial.candidate.upper()

    def check(outputs: dict[int, str]) -> None:
        assert outputs == {0: "A", 2: "C"}
        raise ArithmeticError("a wrong output")

    trials = [Trial("a", checked=True), Trial("b"), Trial("c", checked=True)]
    with pytest.raises(ArithmeticError, match="a wrong output"):
        time_trials(trials, prepare, rounds(3), CPU, check=check)
    # Twice each, to warm up.
    assert calls == ["a", "a", "b", "b", "c", "c"]
    assert not any(trial.seconds for trial in trials)


def test_a_block_that_does_not_fit_into_memory_is_not_run(
    monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    monkeypatch.setattr(session, "available_bytes", lambda device: 350_000)
    large, small = Trial(block("DW+PW", side=64)), Trial(block("DW+PW"))
    time_blocks([large, small], here, rounds(3), on_seconds=check_progress)
    assert large.reason.startswith("it needs 0.0 GiB of ")
    assert small.seconds


def test_bytes_are_those_of_the_feature_maps_and_their_gradients(block, here) -> None:
    # x at twice the side, the feature maps of 16 and 32 channels, and weights four times.
    forward = replace(here, modes=(FORWARD,))
    maps, weights = 2 * (16 * 144 + (16 + 32) * 36), 9 * 16 + 16 * 32
    candidate = block("DW+PW", 16, 32, stride=2)
    assert candidate.bytes_needed(forward) == 4 * (maps + 4 * weights)
    assert candidate.bytes_needed(replace(here, dtype="bf16")) == 2 * (2 * maps + 4 * weights)


def test_rounds_end_with_their_number_or_the_time() -> None:
    assert (rounds(25).max_rounds, rounds(25).min_rounds, rounds(25).budget_s) == (25, 5, inf)
    assert (rounds(3, 9.0).min_rounds, rounds(3, 9.0).budget_s) == (3, 9.0)


def test_a_call_gives_output_and_every_gradient(block, here) -> None:
    candidate = block("DW+RPW(4,0)+PW", 16, 24, stride=2)
    net, forward = block_call(candidate, FORWARD, replace(here, style="mobilenet"))
    (y,) = forward(net)
    assert (y.shape, y.requires_grad, net.training) == (candidate.out_shape, False, False)
    net, both = block_call(candidate, BOTH_WAYS, replace(here, style="mobilenet"))
    outputs = both(net)
    assert net.training
    assert not any(output.requires_grad for output in outputs)
    assert len(outputs) == 2 + len(list(net.parameters()))
    assert outputs[1].shape == candidate.in_shape
    assert all(torch.isfinite(tensor).all() for tensor in outputs)


def test_input_and_gradient_are_not_the_same_numbers(block, here) -> None:
    inputs = BlockInputs(here)
    x, grad = inputs.draw(block("PW"), BOTH_WAYS)
    assert x.shape == grad.shape
    assert not torch.equal(x, grad)
    assert inputs.draw(block("CONV"), BOTH_WAYS)[0].data_ptr() == x.data_ptr()


def test_a_compiled_block_that_differs_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    class Twice(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.net(x)

    compiled_nets: list[torch.nn.Module] = []

    def compiled(net: torch.nn.Module, **options) -> torch.nn.Module:
        compiled_nets.append(net)
        return Twice(net) if len(compiled_nets) > 1 else net

    monkeypatch.setattr(torch, "compile", compiled)
    trials = [Trial(block("DW+PW"), mode, compiled=True) for mode in here.modes]
    time_blocks(trials, here, rounds(3))
    assert len(trials[0].seconds) == 3
    reason = "RuntimeError: compiled, output is wrong: a relative error of 1.0e+00, over"
    assert trials[1].reason.startswith(reason)
