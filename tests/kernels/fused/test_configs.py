"""Which tile runs: the pinned one, the fastest of those timed, or the first."""

import pytest

from ifspace.errors import KernelError
from ifspace.kernels.fused import configs as dw_rpw_configs
from ifspace.kernels.fused.configs import (
    KERNELS,
    check_pins,
    configurations,
    run_best,
)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["half", "tf32", "ieee"])
def test_names_are_unique_and_natural_order_is_for_channels_last(kernel, kind):
    every = configurations(kernel, kind, channels_last=True)
    assert len({config.name for config in every}) == len(every)
    plain = configurations(kernel, kind, channels_last=False)
    assert plain == tuple(config for config in every if config.order == "sorted")
    for config in every:
        # A matrix product wants 16 of each, and a tile of either operand a power of two.
        for size in (config.pixels, config.filters, config.channels):
            assert size >= 16
            assert size & (size - 1) == 0


def test_a_pin_runs_and_what_is_no_pin_is_refused():
    every = configurations("forward", "half", channels_last=False)
    assert run_best(every, "p", lambda config: config, every[2].name) is every[2]
    with pytest.raises(KernelError, match="no such configuration of forward"):
        run_best(every, "p", lambda config: config, "largest")
    check_pins({"forward": every[0].name})
    with pytest.raises(KernelError, match="no such kernel: got 'y'"):
        check_pins({"y": "x"})


@pytest.fixture
def on_a_card(monkeypatch):
    """As on an sm_80 card whose clock likes a middle configuration; returns what was timed."""
    timed = []

    def time_ms(run, config):
        timed.append(config)
        run(config)
        return abs(config.pixels - 32) + config.warps / 100

    monkeypatch.setattr(dw_rpw_configs, "interprets", lambda: False)
    monkeypatch.setattr(dw_rpw_configs, "target_here", lambda: "sm_80")
    monkeypatch.setattr(dw_rpw_configs, "_fastest", {})
    monkeypatch.setattr(dw_rpw_configs, "_time_ms", time_ms)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    return timed


def test_the_fastest_that_fits_is_found_once_for_each_problem(on_a_card, monkeypatch):
    every = configurations("forward", "half", channels_last=False)
    chosen = run_best(every, "p", lambda config: config, None)
    assert chosen.pixels == 32
    assert on_a_card == [config for config in every if "sm_80" in config.targets]
    assert run_best(every, "p", lambda config: config, None) is chosen
    count = len(on_a_card)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    assert run_best(every, "new", lambda config: config, None) is every[0]
    assert run_best(every, "p", lambda config: config, None) is chosen
    assert len(on_a_card) == count
