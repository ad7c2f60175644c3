"""What is timed, in turn, and what is not, and why."""

from dataclasses import replace
from math import inf

import pytest
import torch

from ifspace.bench import run as module
from ifspace.bench.rows import (
    BOTH_WAYS,
    FORWARD,
)
from ifspace.bench.run import (
    Timed,
    bytes_needed,
    call_for,
    measure,
    rounds,
)


def quiet(done: float, total: float) -> None:
    assert 0 <= done <= total * (1 + 1e-9)


def test_all_are_timed_in_turn_and_the_rounds_are_told(block, here) -> None:
    every = [Timed(block(text), mode) for text in ("DW+PW", "CONV") for mode in here.modes]
    told: list[list[int]] = []
    measure(every, here, rounds(4), lambda: told.append([len(x.seconds) for x in every]), quiet)
    assert told == [[n] * 4 for n in (1, 2, 3, 4)]
    assert all(min(each.seconds) > 0 and not each.reason for each in every)


def test_what_has_a_reason_is_never_called(monkeypatch: pytest.MonkeyPatch, block, here) -> None:
    built: list[str] = []
    begin = module._begin

    def note(each: Timed, *more):
        built.append(each.candidate.name)
        return begin(each, *more)

    monkeypatch.setattr(module, "_begin", note)
    red = Timed(block("CONV"), FORWARD, reason="red: wrong")
    green = Timed(block("DW+PW"), FORWARD)
    measure([red, green], here, rounds(3), lambda: None, quiet)
    assert built == ["DW+PW"]
    assert (red.seconds, red.reason, len(green.seconds)) == ([], "red: wrong", 3)


def test_a_failure_is_a_reason_not_an_end(monkeypatch: pytest.MonkeyPatch, block, here) -> None:
    def begin(each: Timed, *more):
        if each.mode == BOTH_WAYS:
            raise RuntimeError("no such engine\nand more")
        return 1e-6, lambda: None

    monkeypatch.setattr(module, "_begin", begin)
    every = [Timed(block("DW+PW"), mode) for mode in here.modes]
    measure(every, here, rounds(3), lambda: None, quiet)
    assert [each.reason for each in every] == ["", "RuntimeError: no such engine"]
    assert [len(each.seconds) for each in every] == [3, 0]


def test_what_does_not_fit_into_memory_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda device: 1_000_000)
    large, small = Timed(block("DW+PW", side=64), FORWARD), Timed(block("DW+PW"), FORWARD)
    measure([large, small], here, rounds(3), lambda: None, quiet)
    assert large.reason.startswith("it needs 0.0 GiB of ")
    assert small.seconds


def test_bytes_are_those_of_the_maps_and_their_gradients(block, here) -> None:
    # x at twice the side, the two maps of 16 and 32 channels, and weights four times.
    forward = replace(here, modes=(FORWARD,))
    maps, weights = 2 * (16 * 144 + (16 + 32) * 36), 9 * 16 + 16 * 32
    candidate = block("DW+PW", 16, 32, stride=2)
    assert bytes_needed(candidate, forward) == 4 * (maps + 4 * weights)
    assert bytes_needed(candidate, replace(here, dtype="bf16")) == 2 * (2 * maps + 4 * weights)


def test_rounds_end_with_their_number_or_the_time() -> None:
    assert (rounds(25).most, rounds(25).least, rounds(25).budget_s) == (25, 5, inf)
    assert (rounds(3, 9.0).least, rounds(3, 9.0).budget_s) == (3, 9.0)


def test_a_call_gives_output_and_every_gradient(block, here) -> None:
    candidate = block("DW+RPW(4,0)+PW", 16, 24, stride=2)
    net, forward = call_for(candidate, FORWARD, replace(here, style="mobilenet"))
    y = forward(net)
    assert (y.shape, y.requires_grad, net.training) == (candidate.out_shape, False, False)
    net, both = call_for(candidate, BOTH_WAYS, replace(here, style="mobilenet"))
    found = both(net)
    assert net.training
    assert len(found) == 2 + len(list(net.parameters()))
    assert found[1].shape == candidate.in_shape
    assert all(torch.isfinite(each).all() for each in found)


def test_input_and_gradient_are_not_the_same_numbers(block, here) -> None:
    inputs = module._Inputs(here)
    x, grad = inputs.of(block("PW"), BOTH_WAYS)
    assert x.shape == grad.shape
    assert not torch.equal(x, grad)
    assert inputs.of(block("CONV"), BOTH_WAYS)[0].data_ptr() == x.data_ptr()


def test_a_compiled_block_that_differs_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    class Twice(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.net(x)

    made: list[torch.nn.Module] = []

    def compiled(net: torch.nn.Module, **options) -> torch.nn.Module:
        made.append(net)
        return Twice(net) if len(made) > 1 else net

    monkeypatch.setattr(torch, "compile", compiled)
    every = [Timed(block("DW+PW"), mode, compiled=True) for mode in here.modes]
    measure(every, here, rounds(3), lambda: None, quiet)
    assert len(every[0].seconds) == 3
    assert "compiled, it differs by a relative error of 1.0e+00" in every[1].reason
