"""What a candidate is, and the columns that say it."""

from dataclasses import replace

import pytest
import torch

from ifspace.bench.rows import (
    COLUMNS,
    Machine,
)

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")


def test_a_row_starts_with_what_was_measured(block, here) -> None:
    row = block("PW+DW+PW", 16, 32, stride=2, inside=2).row(here, "forward", MACHINE)
    assert tuple(row) == COLUMNS
    assert row["case"] == "16 to 32 channels, side 6, stride 2, plain style, 1 thread"
    assert row["candidate"] == "PW+DW+PW, bottleneck 2"
    assert [row[name] for name in ("N", "C", "F", "H", "W")] == [2, 16, 32, 6, 6]
    assert (row["device"], row["torch"], row["date"]) == ("cpu-test", "2.13.0", "2026-11-21")


def test_shapes_are_those_of_the_module(block, here) -> None:
    candidate = block("DW+PW", 16, 24, stride=2)
    module = here.build(candidate)
    assert module(here.draw(*candidate.in_shape)).shape == candidate.out_shape
    assert candidate.macs == 2 * 6 * 6 * (9 * 16 + 16 * 24)


def test_a_calibration_and_a_card_say_so(block, here) -> None:
    candidate = block("DW+PW", calibrates=True)
    assert candidate.case(here).startswith("calibration: 16 to 16 channels")
    assert candidate.key == block("DW+PW").key
    on_card = replace(here, device=torch.device("cuda"), threads=2)
    assert "thread" not in candidate.case(on_card)
    assert candidate.case(replace(here, threads=2)).endswith("2 threads")


@pytest.mark.parametrize(("layout", "last"), [("channels_last", True), ("nchw", False)])
def test_maps_and_weights_lie_in_the_layout(layout: str, last: bool, block, here) -> None:
    there = replace(here, layout=layout, dtype="bf16")
    module = there.build(block("CONV"))
    x = there.draw(2, 16, 5, 5)
    y = module(x)
    for maps in (x, module.layer0.weight, y):
        assert maps.is_contiguous(memory_format=torch.channels_last) is last
        assert maps.dtype == torch.bfloat16


def test_what_is_drawn_is_drawn_again(block, here) -> None:
    state = torch.random.get_rng_state()
    first, second = (here.build(block("PW")).layer0.weight for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, here.build(block("PW"), seed=1).layer0.weight)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(here.draw(1, 2, 3, 3), here.draw(1, 2, 3, 3, seed=1))
