"""What is measured: shapes, windows, memory layouts, modes and types of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import torch

from ifspace.bench.machine import (
    DTYPES,
    rounding,
)
from ifspace.bench.rows import (
    BOTH_WAYS,
    FORWARD,
    LAYOUTS,
)
from ifspace.errors import SettingError
from ifspace.kernels.windows import Windows, windows_of

# Batch, width and side of the layers; C_out = C_in. Batch 1 comes first: it tells what takes too
# long at batch 128.
SHAPES: Final = (
    (1, 128, 56),
    (1, 256, 28),
    (1, 512, 14),
    (1, 1024, 7),
    (128, 128, 56),
    (128, 256, 28),
    (128, 512, 14),
    (128, 1024, 7),
)
# Group count and overlap.
WINDOWS: Final = ((2, "1/2"), (4, "0.33"), (4, "1/2"), (8, "1/2"))
RPW: Final = "RPW"
FUSED: Final = "DW+RPW"
KINDS: Final = (RPW, FUSED)
KERNEL: Final = 3
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Case:
    """One layer to be timed: x [N, C, H, H] to y [N, C, H, H].

    >>> Case(128, 512, 14, 4, "0.33").name, Case(128, 512, 14, 4, "0.33").windows.distinct
    ('RPW(4,0.33)', 256)
    """

    batch: int
    width: int
    side: int
    groups: int
    overlap: str
    layout: str = LAYOUTS[0]
    mode: str = FORWARD
    dtype: str = "fp32"
    kind: str = RPW

    @property
    def name(self) -> str:
        """The layer, apart from its shape."""
        return f"{self.kind}({self.groups},{self.overlap})"

    @property
    def shape(self) -> str:
        """Batch, width and side, as `--cases` takes them."""
        return f"{self.batch}x{self.width}x{self.side}"

    @property
    def windows(self) -> Windows:
        """The windows table of the RPW."""
        return windows_of(self.width, self.width, self.groups, self.overlap)

    @property
    def pixels(self) -> int:
        """N H W."""
        return self.batch * self.side * self.side

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the tensors."""
        return DTYPES[self.dtype]

    @property
    def rounding(self) -> float:
        """The relative distance of neighbouring numbers of the type."""
        return rounding(self.dtype)

    @property
    def both_ways(self) -> bool:
        """Whether the gradients by input and weights are computed too."""
        return self.mode == BOTH_WAYS

    def sized(self, batch: int, side: int) -> "Case":
        """Return the same layer on fewer pixels."""
        return replace(self, batch=min(self.batch, batch), side=min(self.side, side))

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.layout} {self.dtype} {self.mode}"


def listed(
    shapes: Sequence[Shape],
    windows: Sequence[tuple[int, str]],
    layouts: Sequence[str],
    modes: Sequence[str],
    dtypes: Sequence[str],
    kinds: Sequence[str] = (RPW,),
) -> Iterator[Case]:
    """Yield every case; those that differ in their mode alone follow each other.

    A fused block has no mode but forward.
    """
    for kind, dtype, layout, shape, window, mode in product(
        kinds, dtypes, layouts, shapes, windows, modes
    ):
        if kind == RPW or mode == FORWARD:
            yield Case(*shape, *window, layout, mode, dtype, kind)


def parse_shape(text: str) -> Shape:
    """Return (N, C, H) of NxCxH.

    >>> parse_shape("128x512x14")
    (128, 512, 14)

    Raises: SettingError for anything else.
    """
    try:
        batch, width, side = (int(each) for each in text.split("x"))
    except ValueError:
        batch = width = side = 0
    if min(batch, width, side) < 1:
        raise SettingError.because(
            "no such shape",
            got=repr(text),
            allowed="NxCxH",
            remedy="write 128x512x14",
            argument="cases",
        )
    return batch, width, side


def parse_window(text: str) -> tuple[int, str]:
    """Return (g, o) of g,o.

    >>> parse_window("4,0.33")
    (4, '0.33')

    Raises: SettingError for anything else.
    """
    groups, comma, overlap = text.partition(",")
    if not comma or not groups.isdecimal():
        raise SettingError.because(
            "no such windows",
            got=repr(text),
            allowed="g,o",
            remedy="write 4,0.33 or 8,1/2",
            argument="windows",
        )
    return int(groups), overlap
