"""What a block makes a device do, counted by hand."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ifspace.bench.latency import features
from ifspace.kernels.rpw.cpu import plan_for
from ifspace.kernels.windows import windows_of


def test_every_layer_reads_and_writes_its_maps_and_reads_its_weights(block, here) -> None:
    found = features(block("DW+PW", 16, 24, stride=2), here)
    before, after = 2 * 12 * 12, 2 * 6 * 6
    assert found == {
        "DW operations": 2 * after * 9 * 16,
        "DW bytes": 4 * (before * 16 + after * 16 + 9 * 16),
        "DW launches": 1,
        "PW operations": 2 * after * 16 * 24,
        "PW bytes": 4 * (after * 16 + after * 24 + 16 * 24),
        "PW launches": 1,
    }


def test_layers_before_the_stride_run_on_the_larger_maps(block, here) -> None:
    found = features(block("PW+DW", 8, stride=2), replace(here, dtype="bf16"))
    assert found["PW operations"] == 2 * 2 * 144 * 64
    assert found["DW bytes"] == 2 * (2 * 144 * 8 + 2 * 36 * 8 + 72)


def test_few_channels_to_a_group_fill_vectors_in_part(block, here) -> None:
    found = features(block("GC(4)+SH(4)+GPW(2)", 16, 32), here)
    pixels = 2 * 36
    # Groups of 4 channels take the place of 16, twice; those of GPW are 8 and 16 wide.
    assert found["GC padded operations"] == 2 * pixels * 4 * 16 * 16 * 9
    assert found["GPW padded operations"] == 2 * pixels * 2 * 16 * 16
    assert found["GC operations"] == 2 * pixels * 16 * 4 * 9
    assert found["SH bytes"] == 4 * pixels * 32
    assert "SH operations" not in found


def test_layers_of_one_kind_are_added_up(block, here) -> None:
    one, two = (features(block(text), here) for text in ("PW", "PW+PW"))
    assert two == {name: 2 * count for name, count in one.items()}


def test_rolling_layers_are_counted_as_they_are_run(block, here) -> None:
    candidate = block("RPW(4,0)", 128, side=14, batch=16)
    found = features(candidate, here)
    tiles = plan_for(windows_of(128, 128, 4, 0), 16 * 14**2, True).forward
    way = "RPW tiled" if tiles else "RPW dense"
    assert {f"{way} operations", f"{way} bytes", f"{way} launches"} == set(found)
    small = features(block("RPW(4,0)"), here)
    # So few channels go through a dense convolution, zeros and all.
    assert small["RPW dense operations"] == 2 * 72 * 16 * 16
    on_card = features(block("RPW(4,0)"), replace(here, device=torch.device("cuda")))
    assert on_card["RPW operations"] == 2 * 72 * 16 * 4


@pytest.mark.parametrize("text", ["CONV", "DW+PW", "GC(4)+SH(4)+GPW(4)"])
def test_operations_are_those_that_a_counter_sees(text: str, block, here) -> None:
    candidate = block(text, 16, 32, stride=2)
    with FlopCounterMode(display=False) as counter:
        here.build(candidate)(here.draw(*candidate.in_shape))
    found = features(candidate, here)
    told = sum(
        count
        for name, count in found.items()
        if name.endswith(" operations") and not name.endswith("padded operations")
    )
    assert told == counter.get_total_flops()


def test_a_style_makes_passes_of_its_own(block, here) -> None:
    plain = features(block("DW+SH(4)+PW"), here)
    styled = features(block("DW+SH(4)+PW"), replace(here, style="mobilenet"))
    maps = 2 * 36 * 16
    # Batch norm and activation behind DW and PW, each reads and writes.
    assert styled["elementwise bytes"] == 4 * 2 * 4 * maps
    assert {name: styled[name] for name in plain} == plain
    assert "elementwise bytes" in features(block("PW"), replace(here, style="fog"))
