"""Where the numbers of a tensor come from: labels that go through views, shuffles and slices.

Every channel of every map has a number. A tensor that only moves channels is known by running the
same operator on the numbers instead of the activations: what comes out says, whatever the operator
was, which channel stands where. Labels are expanded over the pixels, so they take no memory until
an operator copies them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ids = npt.NDArray[np.int64]
# Stands where no channel does: zeros that padding put there.
NOTHING = -1


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A tensor by the numbers of its channels, [1, C, H, W] or any other order and shape.

    `pooled`: it has one value of a channel for the whole map, or none for a pixel any more.
    `remade` makes the same moves with other numbers, such as those of pixels: it is given what
    stands for each label.
    """

    ids: Tensor
    pooled: bool = False
    remade: Callable[[Callable[["Label"], Tensor]], Tensor] | None = None

    @classmethod
    def of(cls, ids: Ids, axis: int, shape: Sequence[int], pooled: bool = False) -> "Label":
        """Return the label of a tensor whose channels stand along an axis.

        >>> Label.of(np.arange(2), 1, (1, 2, 4, 4)).ids.shape
        torch.Size([1, 2, 4, 4])
        """
        along = [1] * len(shape)
        along[axis] = len(ids)
        return cls(torch.from_numpy(ids).reshape(along).expand(*shape), pooled)

    def axes(self) -> list[int]:
        """Return the axes along which the channels change; zeros put between them are none."""
        found = []
        for axis in range(1, self.ids.dim()):
            ids = self.along(axis)
            if len(np.unique(ids[ids != NOTHING])) > 1:
                found.append(axis)
        return found

    def along(self, axis: int) -> Ids:
        """Return the numbers along an axis, through the middle: padding lies at the borders."""
        place = tuple(
            slice(None) if other == axis else size // 2 for other, size in enumerate(self.ids.shape)
        )
        return self.ids[place].numpy()

    def everything(self) -> Ids:
        """Return all numbers that stand anywhere in it, each once."""
        found: Ids = torch.unique(self.ids).numpy()
        kept: Ids = found[found != NOTHING]
        return kept


def flat(shape: Sequence[int]) -> bool:
    """Return whether a tensor of one image has no pixels: [1, F], or [F].

    >>> flat((1, 512)), flat((1, 49, 512)), flat((49, 512))
    (True, False, False)
    """
    return len(shape) < 2 or (len(shape) == 2 and shape[0] == 1)


def shuffle_groups(order: Ids) -> int | None:
    """Return the groups of the channel shuffle that puts channels into an order, or None.

    >>> shuffle_groups(np.array([0, 2, 4, 1, 3, 5]))
    3
    """
    width = len(order)
    # Of g runs, the second output is the first channel of the second run.
    run = int(order[1]) if width > 3 else 0
    if run < 2 or width % run or run == width:
        return None
    shuffled = np.arange(width).reshape(width // run, run).T.ravel()
    return width // run if np.array_equal(order, shuffled) else None
