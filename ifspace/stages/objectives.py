"""What stages are chosen for: functions from a stage to the amount that each of its blocks adds.

To add an objective, write such a function and name it in `OBJECTIVES`: plans count with it, and
the solver takes it as a table by depth. An amount may depend on the blocks before it in the stage,
never on those behind.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate
from math import fsum
from typing import Final

from ifspace.stages.layout import Layout, Stage

# From a stage and the decay alpha to what each counted layer or block adds, the first included.
Objective = Callable[[Stage, float], tuple[float, ...]]


def gain(stage: Stage, alpha: float) -> tuple[float, ...]:
    """Return the gain of the information field of each block; the first has none.

    Reference: [IF] eq. 4.
    """
    return (0.0, *stage.gains(alpha))


OBJECTIVES: Final[Mapping[str, Objective]] = {"gain": gain}


def total(objective: Objective, layout: Layout, alpha: float) -> float:
    """Return the amount of a layout: the sum over all blocks of its stages.

    >>> from ifspace.stages.networks import network
    >>> round(total(gain, network("vgg16", 32), 3), 2)
    4.94
    """
    return fsum(amount for stage in layout.stages for amount in objective(stage, alpha))


def totals_by_depth(objective: Objective, stage: Stage, alpha: float) -> tuple[float, ...]:
    """Return the amount of a stage at each depth from `stage.min_depth` to `stage.depth`.

    >>> from ifspace.block import Block
    >>> conv = Block.parse("CONV(3)").at(128)
    >>> [round(amount, 3) for amount in totals_by_depth(gain, Stage(8, conv, conv, depth=3), 3)]
    [0.0, 1.166, 1.463]
    """
    return tuple(accumulate(objective(stage, alpha)))[stage.min_depth - 1 :]
