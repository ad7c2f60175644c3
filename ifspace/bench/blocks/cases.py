"""What is measured: a block at its widths, on maps of a side, under conditions that all share."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ifspace.bench.device import DTYPES
from ifspace.bench.tidy import LAYOUTS, MODES, Machine, Row
from ifspace.block import SizedBlock
from ifspace.catalogue.design import Design
from ifspace.nn.blocks import BlockModule, build

CATALOGUE: Final = "catalogue"
BASELINE: Final = "baseline"
CALIBRATION: Final = "calibration: "
_FORMATS: Final = {LAYOUTS[0]: torch.channels_last, LAYOUTS[1]: torch.contiguous_format}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for all candidates of a run; `threads` are those of a CPU."""

    device: torch.device
    dtype: str
    layout: str = LAYOUTS[0]
    threads: int = 1
    style: str = "plain"
    modes: tuple[str, ...] = MODES
    compiled: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the tensors."""
        return DTYPES[self.dtype]

    def draw(self, *shape: int, seed: int = 0) -> Tensor:
        """Return random maps [N, C, H, W] in type and layout."""
        random = torch.Generator(self.device).manual_seed(seed)
        drawn = torch.randn(shape, generator=random, device=self.device)
        return self.lay(drawn.to(self.torch_dtype))

    def lay(self, maps: Tensor) -> Tensor:
        """Return maps in the layout."""
        return maps.contiguous(memory_format=_FORMATS[self.layout])

    def build(self, candidate: "Candidate", seed: int = 0) -> BlockModule:
        """Return the module of a candidate with fresh weights in type and layout."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build(
                candidate.sized, stride=candidate.stride, style=self.style, dtype=self.torch_dtype
            )
        placed = module.to(self.device)
        for weight in placed.parameters():
            if weight.dim() == 4:
                weight.data = self.lay(weight.data)
        return placed


# A block and its shapes, whatever it is measured for.
Key = tuple[str, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block that reads [batch, C, side * stride, ...] and writes [batch, F, side, side].

    `provider`: where it comes from. `design`: the row of a catalogue that it is, whose claims are
    checked. `calibrates`: it is measured for the latency model alone.
    """

    sized: SizedBlock
    side: int
    batch: int
    stride: int = 1
    provider: str = CATALOGUE
    design: Design | None = None
    calibrates: bool = False

    @property
    def name(self) -> str:
        """The block, and the width inside where that is not the one outside."""
        inside = self.sized.bottleneck
        return str(self.sized.block) + ("" if inside is None else f", bottleneck {inside}")

    @property
    def key(self) -> Key:
        """What it is, wherever it comes from."""
        return self.name, *self.shapes

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of input and output: blocks that have the same can stand in for each other."""
        return self.in_shape, self.out_shape

    @property
    def in_shape(self) -> tuple[int, int, int, int]:
        """[N, C, H, W] of the input."""
        return self.batch, self.sized.channels, self.side * self.stride, self.side * self.stride

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """[N, F, H, W] of the output."""
        return self.batch, self.sized.out_channels, self.side, self.side

    @property
    def macs(self) -> int:
        """The multiply-accumulates of a batch."""
        return self.sized.macs_per_pixel(self.stride) * self.batch * self.side**2

    def case(self, conditions: Conditions) -> str:
        """Return in words what the candidates that it is compared with share."""
        text = (
            f"{self.sized.channels} to {self.sized.out_channels} channels, side {self.side}, "
            f"stride {self.stride}, {conditions.style} style"
        )
        text = CALIBRATION + text if self.calibrates else text
        if conditions.device.type != "cpu":
            return text
        return f"{text}, {conditions.threads} thread{'s' * (conditions.threads > 1)}"

    def row(self, conditions: Conditions, mode: str, machine: Machine) -> Row:
        """Return the columns of a row that say what was measured on what."""
        batch, width, *sides = self.out_shape
        return {
            "case": self.case(conditions),
            "candidate": self.name,
            "provider": self.provider,
            "mode": mode,
            "dtype": conditions.dtype,
            "layout": conditions.layout,
            "N": batch,
            "C": self.sized.channels,
            "F": width,
            "H": sides[0],
            "W": sides[1],
            "metric": "",
            "unit": "",
            "median": "",
            "p20": "",
            "p80": "",
            "bound": "",
            "device": machine.device,
            "torch": machine.torch,
            "triton": machine.triton,
            "date": machine.date,
        }
