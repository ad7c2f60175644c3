"""Peak memory of blocks against hooks on torch modules, and of schedules against a slow count."""

import random
from math import prod

import pytest
import torch
from live_memory import Sum, peak_by_hooks
from torch import Tensor, nn
from witness import build_torch_block, random_sized

from ifspace.block import Block, SizedBlock
from ifspace.errors import BlockError, SettingError
from ifspace.memory import Peak, Schedule, Step, bytes_of

SIZES = {1: [(7,), (8,)], 2: [(5, 8), (8, 8), (7, 3)]}


class WithShortcut(nn.Module):
    """A block in plain torch, then its shortcut, then the sum."""

    def __init__(self, sized: SizedBlock, stride: int, kind: str) -> None:
        super().__init__()
        self.body = build_torch_block(sized, stride)
        convolution = nn.Conv1d if sized.dims == 1 else nn.Conv2d
        widths = sized.channels, sized.out_channels
        projects = kind == "projection"
        self.beside = convolution(*widths, 1, stride, dtype=torch.float64) if projects else None
        self.sum = Sum()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.sum(y, x if self.beside is None else self.beside(x))


@pytest.mark.slow
def test_the_peak_is_that_of_hooks_on_torch_modules() -> None:
    draw = random.Random(0)
    strided = joined = 0
    for sized in random_sized(seed=7, count=120):
        stride = draw.choice([1, 2, 3]) if sized.strided_index is not None else 1
        size = draw.choice(SIZES[sized.dims])
        x = torch.ones(1, sized.channels, *size, dtype=torch.float64)
        exact = peak_by_hooks(build_torch_block(sized, stride), x)
        assert sized.peak_elements(size, stride) == exact, (sized.block, size, stride)
        strided += stride > 1
        if not any(layer.conv.writes for layer in sized.layers):
            continue
        kind = sized.shortcut_kind(stride)
        exact = peak_by_hooks(WithShortcut(sized, stride, kind), x)
        assert sized.peak_elements(size, stride, "auto") == exact, (sized.block, size, stride)
        joined += kind == "identity"
    assert strided > 30
    assert joined > 10


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shortcut", ["none", "auto"])
def test_a_pixel_of_the_peak_is_its_share(stride: int, shortcut: str) -> None:
    for sized in random_sized(seed=3, count=60):
        if sized.strided_index is None:
            continue
        size = (6,) * sized.dims
        pixels = prod(side // stride for side in size)
        whole = sized.peak_elements(size, stride, shortcut)
        assert whole == pixels * sized.peak_per_pixel(stride, shortcut)


def test_peaks_that_can_be_counted_by_hand() -> None:
    inverted = Block.parse("PW+DW+PW").at(24, bottleneck=6)
    assert inverted.peak_per_pixel() == 144 + 144
    assert inverted.peak_per_pixel(shortcut="identity") == 24 + 144 + 144
    # Stride 2: the first layer runs on four times the pixels, and reads and writes there.
    assert inverted.peak_per_pixel(2) == max(4 * (24 + 144), 4 * 144 + 144, 144 + 24)
    # A sum with a projection: the input, the block's result and the projection's.
    assert Block.parse("DW").at(8).peak_per_pixel(shortcut="projection") == 8 + 8 + 8
    # A shuffle is an index, but x and x in another order are two feature maps to a sum.
    shuffle = Block.parse("SH(2)").at(8)
    assert (shuffle.peak_per_pixel(), shuffle.peak_per_pixel(shortcut="identity")) == (8, 16)
    # ResNet-50's second block at 56 x 56: 256 channels held beside 64 and 64, or 64 and 256.
    bottleneck = Block.parse("PW+CONV+PW").at(256, bottleneck="1/4")
    assert bottleneck.peak_elements((56, 56), shortcut="identity") == 56**2 * (256 + 64 + 256)
    # 15 x 15 at stride 2 is 8 x 8.
    assert Block.parse("DW+PW").at(8, 16).peak_elements((15, 15), 2) == 8 * 225 + 8 * 64


@pytest.mark.parametrize("seed", range(40))
def test_a_schedule_against_a_slow_count(seed: int) -> None:
    """Values, read again and again, with views and work in place."""
    draw = random.Random(seed)
    inputs = [draw.randint(1, 4) for _ in range(draw.randint(1, 2))]
    sizes = list(inputs)
    steps: list[Step] = []
    for _ in range(draw.randint(0, 9)):
        reads = tuple(draw.sample(range(len(sizes)), draw.randint(1, min(2, len(sizes)))))
        alias = draw.choice([None, None, reads[0]])
        may_replace = reads if alias is None and draw.random() < 0.6 else ()
        steps.append(Step(reads, draw.randint(1, 3), alias, may_replace))
        sizes.append(steps[-1].elements)
    outputs = draw.sample(range(len(sizes)), 1)
    schedule = Schedule(tuple(inputs), tuple(steps), tuple(outputs))
    assert schedule.peak == slow_peak(inputs, steps, outputs)


def slow_peak(inputs: list[int], steps: list[Step], outputs: list[int]) -> Peak:
    """Step by step: every buffer that something later, or the caller, still reads is live."""
    owner = {index: index for index in range(len(inputs))}
    size = dict(enumerate(inputs))

    def is_needed(buffer: int, after: int) -> bool:
        """Whether a later step, or the caller, reads a value in it, or in a view of it."""
        values = {value for value in owner if owner[value] == buffer}
        for index in range(after + 1, len(steps)):
            if values & set(steps[index].reads):
                return True
            if steps[index].alias in values:
                values.add(len(inputs) + index)
        return bool(values & set(outputs))

    live = list(range(len(inputs)))
    most = Peak(sum(inputs), 0)
    for index, step in enumerate(steps):
        value = len(inputs) + index
        buffer = owner.get(-1 if step.alias is None else step.alias)
        for source in step.may_replace if buffer is None else ():
            once = [owner[other] for other in step.reads].count(owner[source]) == 1
            if (
                once
                and size[owner[source]] == step.elements
                and not is_needed(owner[source], index)
            ):
                buffer = owner[source]
                break
        if buffer is None:
            buffer = value
            size[value] = step.elements
            live.append(value)
        owner[value] = buffer
        total = sum(size[x] for x in live)
        if total > most.elements:
            most = Peak(total, index)
        live = [x for x in live if is_needed(x, index)]
    return most


def test_what_does_not_fit_is_an_error() -> None:
    sized = Block.parse("DW+PW").at(8, 16)
    with pytest.raises(SettingError, match="an identity shortcut between different shapes"):
        sized.peak_per_pixel(shortcut="identity")
    with pytest.raises(BlockError, match=r"size has the wrong number of dimensions: got 1"):
        sized.peak_elements((8,))
    with pytest.raises(SettingError, match="unknown dtype: got 'fp64'; allowed: fp32, fp16"):
        bytes_of(8, "fp64")
    assert [bytes_of(100, dtype) for dtype in ("fp32", "bf16", "int8")] == [400, 200, 100]
