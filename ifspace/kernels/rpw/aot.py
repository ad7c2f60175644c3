"""What must compile of the kernels of RPW ahead of time: see `aot`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch

from ifspace.kernels.aot import AotCase, cases_of, specialised
from ifspace.kernels.launch import Launch
from ifspace.kernels.rpw.configs import (
    KINDS,
    suitable,
)
from ifspace.kernels.rpw.tiles import (
    filled_width,
    numbers,
    pad_kernel,
    vector_of,
)
from ifspace.kernels.rpw.triton import (
    PAD_BLOCK,
    SUM_BLOCKS,
    forward_launch,
    input_grad_launch,
    weight_grad_launch,
)
from ifspace.kernels.rpw.triton_gradients import sum_parts_kernel
from ifspace.kernels.tensors import empty_with_channels
from ifspace.kernels.windows import Windows, windows_of

_SPECIAL: Final[dict[str, dict[str, bool]]] = {
    "": {},
    " wide": {"WIDE": True},
    " atomic": {"ATOMIC": True},
}
_MORE_WINDOWS: Final = (windows_of(512, 512, 4, "0.33"), windows_of(512, 512, 2, 0))


def aot_cases() -> tuple[AotCase, ...]:
    """Return what must compile without a spill.

    Every configuration, layout and precision where windows are whole vectors, where they are
    filled up to them, and where two are woven; under its default configuration each kernel with
    64-bit addresses, with atomic additions, and with a single output channel; and the kernels that
    fill windows and add parts.
    """
    found: list[AotCase] = []
    for windows in (windows_of(512, 512, 2, "1/2"), *_MORE_WINDOWS):
        for channels_last in (True, False):
            for kind in KINDS if windows.distinct == 4 else ("half",):
                for launch in _launches(windows, channels_last, kind):
                    found += cases_of(launch, _words(windows), channels_last)
    for windows in (windows_of(512, 512, 2, "1/2"), windows_of(16, 1, 2, "1/2")):
        for channels_last in (True, False):
            for launch in _launches(windows, channels_last, "half"):
                for name, told in _SPECIAL.items():
                    if told.keys() <= launch.constants.keys():
                        special = _specially(launch, told, channels_last)
                        found += cases_of(special, f"{_words(windows)}{name}", channels_last)
    for windows in (windows_of(512, 512, 4, "0.33"), windows_of(16, 1, 2, "0.33")):
        found += _aside(windows)
    return tuple(found)


def _specially(launch: Launch, told: Mapping[str, bool], channels_last: bool) -> Launch:
    """Return a launch with other constants, under its default configuration then."""
    constants = {**launch.constants, **told}
    fit = suitable(
        launch.kernel, "half", constants.get("WOVEN", 1), channels_last, constants["WIDE"]
    )
    return replace(launch, constants=constants, fit=fit[:1])


def _words(windows: Windows) -> str:
    return f"C={windows.in_channels} F={windows.out_channels} g={windows.groups} s={windows.step}"


def _aside(windows: Windows) -> list[AotCase]:
    """Return the cases of the two small kernels beside the products."""
    window, told = filled_width(windows), numbers(windows)
    vector = torch.empty(16, dtype=torch.bfloat16, device="meta")
    sizes = {name: told[name] for name in ("in_channels", "out_channels", "step", "distinct")}
    shared = {**sizes, "width": windows.width, "window": window, "VECTOR": vector_of(windows)}
    pad = {"weight": vector, "filled": vector, "entries": windows.out_channels * window}
    add = {"partial": vector.float(), "by_weight": vector, "by_bias": vector, "parts": 8}
    return [
        specialised(
            function,
            {**shared, **own, **blocks},
            kernel=name,
            config="only",
            problem=_words(windows),
            warps=4,
            stages=3,
        )
        for name, function, own, blocks in (
            ("pad", pad_kernel, pad, {"BLOCK": PAD_BLOCK}),
            ("sum_parts", sum_parts_kernel, add, SUM_BLOCKS),
        )
    ]


def _launches(windows: Windows, channels_last: bool, kind: str) -> tuple[Launch, ...]:
    """Return the launches of all kernels on tensors without storage."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    dtype = torch.bfloat16 if kind == "half" else torch.float32
    fp32 = None if kind == "half" else kind
    x = torch.empty(
        128, windows.in_channels, 28, 28, dtype=dtype, device="meta", memory_format=layout
    )
    y = empty_with_channels(x, windows.out_channels)
    weight = x.new_empty(windows.out_channels, filled_width(windows))
    bias = x.new_empty(windows.out_channels)
    partial = weight.float(), bias.float()
    return (
        forward_launch(x, weight, bias, y, windows, fp32),
        input_grad_launch(y, weight, x, windows, fp32),
        weight_grad_launch(y, x, *partial, windows, fp32, parts=8),
    )
