"""What is wrong is seen, whatever it is that is wrong."""

from dataclasses import replace

import pytest
import torch
from samples import DW_PW, DW_RPW_RPW
from torch import Tensor, nn

from ifspace.bench import gate
from ifspace.bench.blocks import (
    Candidate,
    Conditions,
)
from ifspace.bench.gate import (
    fault,
    probe,
)
from ifspace.bench.latency import ways
from ifspace.block import Block
from ifspace.kernels.rpw import cpu
from ifspace.nn.block import BlockModule

SIZED = DW_RPW_RPW.block.at(16)


def claimed(**changes) -> Candidate:
    return Candidate(SIZED, 6, 2, design=replace(DW_RPW_RPW, **changes))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("style", ["plain", "mobilenet", "fog"])
@pytest.mark.parametrize("layout", ["channels_last", "nchw"])
def test_what_is_right_passes(dtype: str, style: str, layout: str, block, here) -> None:
    there = replace(here, dtype=dtype, style=style, layout=layout)
    for candidate in (
        claimed(),
        block("CONV"),
        block("GC(4)+SH(4)+GPW(4)", 16, 32, stride=2),
        block("PW+DW+PW", 8, 8, inside=6),
        block("(DW+RPW(2,0))x2"),
        block("PW"),
    ):
        assert fault(candidate, there) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"params": 273}, "272 and 272, the catalogue says 273 parameters and 272 MACs a pixel"),
        ({"macs_per_pixel": 1}, "the catalogue says 272 parameters and 1 MACs"),
        ({"field": (3, 15)}, "sees 3×3×16, the catalogue says (3, 15)"),
        ({"field": (5, 16)}, "sees 3×3×16"),
    ],
)
def test_a_row_that_claims_something_else_is_red(changes, said: str, here) -> None:
    assert fault(claimed(), here) is None
    assert said in (fault(claimed(**changes), here) or "")


class Wrong(nn.Module):
    """A layer with something done to what it writes."""

    def __init__(self, layer: nn.Module, change) -> None:
        super().__init__()
        self.layer, self.change = layer, change
        if layer.weight is not None:
            self.weight = layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.layer(x), x)


def broken(monkeypatch: pytest.MonkeyPatch, change, timed_only: bool) -> None:
    """Break the last layer of what is timed, or of the bare block that is traced."""

    def spoil(module: BlockModule) -> BlockModule:
        last = module.steps[-1]
        module.add_module(last, Wrong(module.get_submodule(last), change))
        return module

    if timed_only:
        build = Conditions.build
        monkeypatch.setattr(Conditions, "build", lambda *given: spoil(build(*given)))
    else:
        monkeypatch.setattr(gate, "BlockModule", lambda *a, **k: spoil(BlockModule(*a, **k)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, x: y * 1.001, "output is wrong: a relative error of 1.0e-03"),
        (lambda y, x: y.flip(1), "output is wrong"),
        (lambda y, x: y[:, :8], "output of shape"),
        (lambda y, x: y * torch.inf, "output is not finite"),
        (lambda y, x: y.detach() + 0 * x.sum(), "gradient by x is wrong"),
        (lambda y, x: y + (y * 1e20).sin() * 1e-9, "gradient by x is"),
    ],
)
def test_wrong_numbers_are_red(
    change, said: str, monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    broken(monkeypatch, change, timed_only=True)
    found = fault(block("DW+PW"), here)
    assert found is not None
    assert found.startswith(said) or "RuntimeError" in found, found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, x: y + y.roll(8, 1), "output 0 sees other channels than the field has"),
        (lambda y, x: y + y.roll(1, 3), "sees no square of 3×3 pixels"),
        (lambda y, x: x, "sees no square of 3×3 pixels"),
        (lambda y, x: y[..., 1:], "writes [16, 6, 5], not [16, 6, 6]"),
    ],
)
def test_another_field_is_red(
    change, said: str, monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    broken(monkeypatch, change, timed_only=False)
    # Behind one group convolution outputs see their group.
    assert fault(block("GPW(2)+DW"), here) == said


def test_more_parameters_or_operations_are_red(
    monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    class More(BlockModule):
        def __init__(self, *given, **more) -> None:
            super().__init__(*given, **more)
            self.extra = nn.Conv2d(16, 16, 1, bias=False, dtype=torch.float64)
            self.count = count_extra

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if self.count else super().forward(x) + 0 * self.extra(x)

    monkeypatch.setattr(gate, "BlockModule", More)
    count_extra = True
    assert fault(block("PW"), here) == "512 parameters, 256 by the formula"
    count_extra = False
    counts = list(gate._counts(block("PW"), More(block("PW").sized, 1, dtype=torch.float64)))
    assert counts[1] == "512.0 MACs a pixel, 256 by the formula"


def test_what_is_compared_runs_as_what_is_timed(
    monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    # With few pixels this layer is dense, with many its weights' gradient comes from tiles.
    timed = block("RPW(8,0)", 256, side=14, batch=64)
    assert str(ways(timed, here)) != str(ways(replace(timed, batch=2, side=7), here))
    assert probe(timed, here) == timed
    monkeypatch.setattr(gate, "MOST_MACS", 1)
    assert ways(probe(timed, here), here) == ways(timed, here)
    assert probe(block("DW+PW", batch=64), here).batch == 1
    tiles = cpu.unpack_tiles
    monkeypatch.setattr(cpu, "unpack_tiles", lambda *given: 0 * tiles(*given))
    assert "gradient by layer0.weight is wrong" in (fault(timed, here) or "")


def test_an_error_of_torch_is_red(monkeypatch: pytest.MonkeyPatch, block, here) -> None:
    def build(*given) -> BlockModule:
        raise RuntimeError("no such engine\nand more")

    monkeypatch.setattr(Conditions, "build", build)
    assert fault(block("DW+PW"), here) == "RuntimeError: no such engine"


def test_a_design_with_less_than_the_full_field_is_what_it_is(block, here) -> None:
    # The field is that of the block, full or not.
    assert fault(block("GPW(4)+DW"), here) is None
    assert fault(Candidate(Block.parse("DW+PW").at(16), 1, 1, design=DW_PW), here) is None
