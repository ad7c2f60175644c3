"""The table of configurations: names, what suits a problem, pinning."""

import pytest
import torch

from ifspace.errors import KernelError
from ifspace.kernels import launch
from ifspace.kernels.rpw import (
    configs,
)
from ifspace.kernels.rpw import (
    triton as rpw,
)
from ifspace.kernels.rpw.configs import (
    CONFIGS,
    KERNELS,
    KINDS,
    TARGETS,
    configurations,
    pin,
    pinned,
)
from ifspace.kernels.rpw.triton_forward import forward_kernel
from ifspace.kernels.windows import windows_of


def test_every_kernel_has_a_configuration_for_all() -> None:
    assert KERNELS == ("forward", "input_grad", "weight_grad")
    for kernel in KERNELS:
        for kind in KINDS:
            found = configurations(kernel, kind)
            assert len({each.name for each in found}) == len(found)
            assert {target for each in found for target in each.targets} == set(TARGETS)
            # What runs untimed runs everywhere.
            for layout in (False, True):
                default = configs.suitable(kernel, kind, 1, layout)[0]
                assert default.targets == TARGETS
                assert default.order == ("natural" if layout else "sorted")


def test_blocks_are_what_a_product_takes() -> None:
    for config in CONFIGS:
        for size in (config.pixels, config.filters, config.channels):
            assert size >= 16
            assert size & (size - 1) == 0
        if config.order == "woven":
            assert config.filters // 16 >= 8


def test_woven_only_where_few_windows_lie_side_by_side() -> None:
    def orders(woven: int, channels_last: bool) -> set[str]:
        return {each.order for each in configs.suitable("forward", "half", woven, channels_last)}

    assert orders(4, True) == {"natural", "sorted", "woven"}
    assert orders(1, True) == orders(4, False) == {"natural", "sorted"}
    assert [launch.woven_windows(windows_of(12, 12, groups)) for groups in (1, 2, 3, 4)] == [
        1,
        2,
        1,
        4,
    ]


def test_a_pin_holds_until_it_is_taken_back(device: torch.device) -> None:
    windows = windows_of(8, 8, 2)
    x, weight = torch.randn(1, 8, 2, 2, device=device), torch.randn(8, 4, device=device)
    pin("forward", "64x64x32-sorted-w4s3")
    try:
        assert pinned("forward") == "64x64x32-sorted-w4s3"
        # It is one for half precision: another type does not slip past it.
        with pytest.raises(KernelError, match=r"for this problem: got '64x64x32-sorted-w4s3'"):
            rpw.forward(x, weight, None, windows, fp32="ieee")
        rpw.forward(x, weight, None, windows, fp32="ieee", config="32x64x16-sorted-w4s2")
        rpw.forward(x.half(), weight.half(), None, windows)
    finally:
        pin("forward", None)
    assert pinned("forward") is None
    with pytest.raises(KernelError, match=r"no such configuration of forward.*got 'fastest'"):
        pin("forward", "fastest")
    with pytest.raises(KernelError, match=r"no such kernel: got 'backward' for any kind"):
        pin("backward", None)


def test_the_tuner_times_only_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = launch.tuner("forward", forward_kernel)
    assert len(tuner.configs) == len(configurations("forward"))
    windows = windows_of(64, 64, 4)
    x = torch.randn(2, 64, 3, 3).half().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 16).half()
    made = rpw.forward_launch(x, weight, None, torch.empty_like(x), windows, None)
    given = {**made.arguments, **made.constants}
    assert {"pixels", "x_c", "step", "PRECISION"} <= set(tuner.keys) & given.keys()
    for target in ("sm_80", "gfx942", None):
        monkeypatch.setattr(launch, "target_here", lambda target=target: target)
        kept = tuner.early_config_prune(tuner.configs, {}, **given)
        wanted = [each for each in made.fit if target is None or target in each.targets]
        assert [each.kwargs for each in kept] == [each.constants() for each in wanted]
        assert wanted
