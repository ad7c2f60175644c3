"""Which tile a kernel runs with: what fits a problem, the pinned one, the fastest, the default."""

from collections.abc import Iterator
from itertools import count

import pytest
import torch
from devices import only_on_a_card, only_on_a_cpu

from ifspace.errors import KernelError
from ifspace.kernels import launch
from ifspace.kernels.fused import FusedSpec
from ifspace.kernels.fused import triton as fused
from ifspace.kernels.launch import KINDS, TARGETS, Config, Launch
from ifspace.kernels.rpw import triton as rpw
from ifspace.kernels.windows import Windows, windows_of

WINDOWS = windows_of(64, 64, 4)


# Numbers of images that no problem of another test has: what was timed is kept for the process.
NEW = (1 << power for power in count(6))


def rpw_launch(images: int = 2) -> Launch:
    x = torch.randn(images, 64, 3, 3).half().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 16).half()
    return rpw.forward_launch(x, weight, None, torch.empty_like(x), WINDOWS, None)


def fused_launch(images: int = 2) -> Launch:
    x, vector = torch.randn(images, 64, 3, 3).half(), torch.randn(64).half()
    tensors = {"dw_weight": torch.randn(64, 1, 3, 3).half(), "scale1": vector, "shift1": vector}
    tensors |= {"weight": torch.randn(64, 16).half(), "scale2": None, "shift2": None}
    return fused.forward_launch(x, tensors, None, torch.empty_like(x), FusedSpec(WINDOWS), None)


def every_config() -> Iterator[Config]:
    yield from rpw.CONFIGS
    for kernel in fused.KERNELS:
        for kind in KINDS:
            yield from fused.configurations(kernel, kind, channels_last=True)


def test_every_kernel_of_rpw_has_a_configuration_for_every_target_and_kind() -> None:
    assert rpw.KERNELS == ("forward", "input_grad", "weight_grad")
    for kernel in rpw.KERNELS:
        for kind in KINDS:
            configs = rpw.configurations(kernel, kind)
            assert len({config.name for config in configs}) == len(configs)
            assert {target for config in configs for target in config.targets} == set(TARGETS)
            # What runs untimed runs everywhere.
            for channels_last in (False, True):
                default = rpw.suitable(kernel, kind, 1, channels_last)[0]
                assert default.targets == TARGETS
                assert default.order == ("natural" if channels_last else "sorted")


@pytest.mark.parametrize("kernel", fused.KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_natural_order_of_the_fused_block_is_for_channels_last(kernel: str, kind: str) -> None:
    configs = fused.configurations(kernel, kind, channels_last=True)
    assert len({config.name for config in configs}) == len(configs)
    plain = fused.configurations(kernel, kind, channels_last=False)
    assert plain == tuple(config for config in configs if config.order == "sorted")


def test_a_matrix_product_takes_every_tile() -> None:
    for config in every_config():
        # A product needs 16 of each, and a tile of either operand a power of two.
        for size in (config.pixels, config.filters, config.channels):
            assert size >= 16
            assert size & (size - 1) == 0
        if config.order == "woven":
            assert config.filters // 16 >= 8


def test_woven_only_for_few_windows_in_channels_last() -> None:
    def orders(woven: int, channels_last: bool) -> set[str]:
        return {config.order for config in rpw.suitable("forward", "half", woven, channels_last)}

    assert orders(4, True) == {"natural", "sorted", "woven"}
    assert orders(1, True) == orders(4, False) == {"natural", "sorted"}
    counts = [rpw.woven_windows(windows_of(12, 12, groups)) for groups in (1, 2, 3, 4)]
    assert counts == [1, 2, 1, 4]


def test_blocked_windows_in_turn_are_visited_in_natural_order() -> None:
    """Where sorted order reads no shorter unions, `auto` does not time it."""

    def orders(windows: Windows, channels_last: bool) -> set[str]:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x = torch.randn(2, 64, 3, 3).contiguous(memory_format=layout)
        weight = torch.randn(64, launch.filled_width(windows))
        launches = (
            rpw.forward_launch(x, weight, None, x, windows, None),
            rpw.input_grad_launch(x, weight, x, windows, None),
            rpw.weight_grad_launch(x, x, weight, weight, windows, None, 1),
        )
        return {config.order for launched in launches for config in launched.configs}

    in_turn, apart = (windows_of(64, 64, 4, overlap, "blocked") for overlap in ("1/2", "0.33"))
    assert launch.is_plain(in_turn)
    assert not launch.is_plain(apart)  # a step of 11 channels in 64
    for channels_last in (False, True):
        assert orders(in_turn, channels_last) == {"natural"}
        assert orders(apart, channels_last) == {"natural", "sorted"}
        plain = fused.configurations("forward", "half", channels_last, plain=True)
        assert {config.order for config in plain} == {"natural"}
    assert not launch.is_plain(windows_of(64, 64, 4, "1/2"))


def test_a_pin_holds_until_it_is_removed(device: torch.device) -> None:
    windows = windows_of(8, 8, 2)
    x, weight = torch.randn(1, 8, 2, 2, device=device), torch.randn(8, 4, device=device)
    rpw.pin("forward", "64x64x32-sorted-w4s3")
    try:
        assert rpw.pinned("forward") == "64x64x32-sorted-w4s3"
        # It is one for half precision: another dtype raises.
        with pytest.raises(KernelError, match=r"for this problem: got '64x64x32-sorted-w4s3'"):
            rpw.forward(x, weight, None, windows, fp32="ieee")
        rpw.forward(x, weight, None, windows, fp32="ieee", config="32x64x16-sorted-w4s2")
        rpw.forward(x.half(), weight.half(), None, windows)
    finally:
        rpw.pin("forward", None)
    assert rpw.pinned("forward") is None
    with pytest.raises(KernelError, match=r"no such configuration of forward.*got 'fastest'"):
        rpw.pin("forward", "fastest")
    with pytest.raises(KernelError, match=r"no such kernel: got 'backward' for any kind"):
        rpw.pin("backward", None)


def test_pins_of_the_fused_block_name_its_kernels() -> None:
    fused.check_pins({"forward": "64x64x32-sorted-w4s1"})
    with pytest.raises(KernelError, match="no such kernel: got 'y'; allowed: forward, before"):
        fused.check_pins({"y": "x"})


@only_on_a_cpu
@pytest.mark.parametrize("make", [rpw_launch, fused_launch])
def test_a_configuration_by_name_is_chosen(make) -> None:
    launched = make()
    assert launched.choose(launched.configs[2].name) is launched.configs[2]
    assert launched.choose() is launched.configs[0]  # under the interpreter
    with pytest.raises(KernelError, match="no such configuration of forward"):
        launched.choose("largest")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """As on a card that prefers tiles of 64 pixels and few warps; returns what was timed.

    What is timed was compiled before.
    """
    compiled: list[Config] = []
    configs: list[Config] = []

    def time_ms(_: Launch, config: Config) -> float:
        assert config in compiled
        configs.append(config)
        return abs(config.pixels - 64) + config.warps / 100

    monkeypatch.setattr(launch, "interprets", lambda: False)
    monkeypatch.setattr(launch, "_time_ms", time_ms)
    monkeypatch.setattr(Launch, "compile", lambda _, configs: compiled.extend(configs))
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    return configs


@pytest.mark.parametrize("target", ["sm_80", "gfx942", None])
@pytest.mark.parametrize("make", [rpw_launch, fused_launch])
def test_the_fastest_that_fits_the_target_is_found_once_for_each_problem(
    make, target, timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "target_here", lambda: target)
    images = next(NEW)
    launched = make(images)
    chosen = launched.choose()
    assert chosen == min(timed, key=lambda config: (abs(config.pixels - 64), config.warps))
    fitting = [c for c in launched.configs if target is None or target in c.targets]
    assert timed == launched.promising(fitting)
    assert make(images + images // 2).choose() is chosen  # of the same kind
    assert make(images).choose() is chosen
    timings = len(timed)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    assert launched.choose() is chosen
    unknown = make(next(NEW))
    assert unknown.choose() is unknown.configs[0]
    assert len(timed) == timings


@pytest.mark.usefixtures("timed")
def test_deterministic_algorithms_take_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: True)
    launched = rpw_launch()
    assert launched.choose() is launched.configs[0]


def test_what_fills_a_card_has_a_default_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "interprets", lambda: False)
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: True)

    def defaults(target, *shape, overlap="1/2", order="rolling", layout=torch.channels_last):
        monkeypatch.setattr(launch, "target_here", lambda: target)
        windows = windows_of(shape[1], shape[1], 4, overlap, order)
        x = torch.empty(shape, dtype=torch.bfloat16, device="meta", memory_format=layout)
        weight, partial = x.new_empty(shape[1], windows.width), x.new_empty(1).float()
        launches = (
            rpw.forward_launch(x, weight, None, x, windows, None),
            rpw.input_grad_launch(x, weight, x, windows, None),
            rpw.weight_grad_launch(x, x, partial, partial, windows, None, 8),
        )
        return [(one.choose().name, one.configs[0].name) for one in launches]

    large = list(rpw.LARGE.values())
    for shape in ((128, 512, 14, 14), (128, 256, 28, 28)):
        assert [chosen for chosen, _ in defaults("sm_90", *shape)] == large
    assert [chosen for chosen, _ in defaults("sm_80", 128, 512, 14, 14)][:2] == large[:2]
    first = (
        defaults("gfx942", 128, 512, 14, 14),
        defaults("sm_90", 1, 256, 28, 28),
        defaults("sm_90", 128, 512, 14, 14, order="blocked"),
        defaults("sm_90", 128, 512, 14, 14, layout=torch.contiguous_format),
    )
    assert all(chosen == default for pairs in first for chosen, default in pairs)


def test_a_kind_of_problem_is_all_that_the_choice_depends_on() -> None:
    windows, x, weight = windows_of(8, 8, 2), torch.randn(1, 8, 2, 2), torch.randn(8, 4)

    def kind(x, weight, windows, fp32="ieee"):
        return rpw.forward_launch(x, weight, None, x, windows, fp32).kind()

    same = kind(x, weight, windows)
    assert kind(x + 1, weight + 1, windows) == same
    assert kind(torch.randn(1, 8, 2, 3), weight, windows) == same  # 4 to 7 pixels
    assert kind(x, weight, windows_of(8, 8, 2, 0.5)) == same  # another step
    others = {
        kind(x.half(), weight.half(), windows),
        kind(x.contiguous(memory_format=torch.channels_last), weight, windows),
        kind(x[:, :, :1], weight, windows),
        kind(x, weight, windows_of(8, 8, 2, 0.5, "blocked")),
        kind(x, weight, windows, "tf32"),
    }
    assert len(others) == 5
    assert same not in others


@pytest.mark.parametrize("make", [rpw_launch, fused_launch])
def test_few_tiles_are_tried_those_of_every_order_among_them(make) -> None:
    launched = make()
    tried = launched.promising(launched.configs)
    assert tried[0] is launched.configs[0]
    assert len(tried) == len(set(tried)) == launch.MOST_TIMED < len(launched.configs)
    assert {config.order for config in tried} == {config.order for config in launched.configs}
    assert launched.promising(launched.configs[:2]) == list(launched.configs[:2])


def test_what_was_the_fastest_on_a_card_is_tried() -> None:
    """Of rolling layers in channels_last at 128x512x14x14 and 128x256x28x28, on an H200."""
    for shape in ((128, 512, 14, 14), (128, 256, 28, 28)):
        windows = windows_of(shape[1], shape[1], 4, "1/2")
        x = torch.empty(shape, dtype=torch.bfloat16, device="meta")
        x = x.contiguous(memory_format=torch.channels_last)
        weight, partial = x.new_empty(shape[1], windows.width), x.new_empty(1).float()
        launches = (
            rpw.forward_launch(x, weight, None, x, windows, None),
            rpw.input_grad_launch(x, weight, x, windows, None),
            rpw.weight_grad_launch(x, x, partial, partial, windows, None, 8),
        )
        for launched in launches:
            tried = {config.name for config in launched.promising(launched.configs)}
            assert rpw.LARGE[launched.kernel] in tried


@only_on_a_card
def test_a_launch_is_timed_on_the_device_alone(device: torch.device) -> None:
    """A tensor of megabytes takes some microseconds, and its launch takes more."""
    x = torch.randn(16, 64, 56, 56, device=device).half()
    x = x.contiguous(memory_format=torch.channels_last)
    weight, y = torch.randn(64, 16, device=device).half(), torch.empty_like(x)
    launched = rpw.forward_launch(x, weight, None, y, WINDOWS, None)
    launched.compile(launched.configs)
    times = [launch._time_ms(launched, config) for config in launched.configs]
    moved_at_10_tb_s = 2 * x.numel() * x.element_size() / 1e10
    assert all(moved_at_10_tb_s < time < 1.0 for time in times), times


def test_a_kernel_that_adds_starts_from_zero_every_time(device: torch.device) -> None:
    windows = windows_of(32, 20, 2)  # its windows are whole vectors: nothing is filled up
    x, grad = (torch.randn(1, channels, 2, 2, device=device) for channels in (32, 20))
    by_weight, by_bias = (torch.full(shape, 7.0, device=device) for shape in ((20, 16), (20,)))
    launched = rpw.weight_grad_launch(grad, x, by_weight, by_bias, windows, "ieee", 1, atomic=True)
    results = []
    for _ in range(2):
        launched.run_under(launched.configs[0])
        results.append((by_weight.clone(), by_bias.clone()))
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0][1], grad.sum((0, 2, 3)))


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("order", ["rolling", "blocked"])
@pytest.mark.parametrize(
    "sizes", [(512, 512, 8, "1/2"), (96, 150, 4, 0), (96, 200, 6, 0.33), (80, 97, 2, 0.75)]
)
def test_no_tile_of_filters_reads_more_than_the_longest_union(sizes, order, size) -> None:
    windows = windows_of(*sizes, order)
    read, vector = windows.read_channels(), launch.vector_of(windows)
    lengths = []
    for first in range(0, windows.out_channels, size):
        base = int(read[first, 0]) // vector * vector
        ahead = (read[first : first + size] - base) % windows.in_channels
        lengths.append(int(ahead.max()) + 1)
    bound = launch.longest_union(windows, size, "natural")
    assert max(lengths) <= bound <= windows.in_channels
    # No more than a step and two vectors are given away where the windows do not go round.
    assert bound == windows.in_channels or bound - max(lengths) <= windows.step + 2 * vector
