"""How far a computed tensor is from what it should be."""

from typing import Final

import torch
from torch import Tensor

# How far from float64, in the error of eager PyTorch in the same precision, plus one rounding:
# sums in another order differ by that much, a wrong channel by a thousand times more.
SLACK: Final = 4.0


def distance(found: Tensor, wanted: Tensor) -> float:
    """Return |found - wanted| / |wanted|, both as vectors; nan when there is one.

    >>> round(distance(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])), 6)
    0.1
    """
    if found.dtype != wanted.dtype:
        found, wanted = found.double(), wanted.double()
    with torch.no_grad():
        return float((found - wanted).norm() / wanted.norm())
