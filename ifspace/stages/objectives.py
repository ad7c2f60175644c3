"""What stages are chosen for: functions from a stage to the amounts that are maximised.

To add an objective, write a function that returns `stage.depth` amounts, one for each layer of the
stem that counts in the stage and for each block, in their order, and name it in `OBJECTIVES`:
plans count with it, and the solver takes it as a table by depth. An amount may depend on what
precedes it in the stage, never on what follows, and a total stays below 10^6.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate
from math import fsum
from typing import Final

from ifspace.errors import SettingError
from ifspace.stages.layout import Layout, Stage

# From a stage, the decay alpha and the cap of the field (`ifspace.infofield.CAPS`) to what each
# counted layer or block adds, the first included.
Objective = Callable[[Stage, float, str], tuple[float, ...]]


def gain(stage: Stage, alpha: float, cap: str = "input") -> tuple[float, ...]:
    """Return the gain of the information field of each block; the first has none.

    Reference: [IF] eq. 4.
    """
    return (0.0, *stage.gains(alpha, cap))


OBJECTIVES: Final[Mapping[str, Objective]] = {"gain": gain}


def total(objective: Objective, layout: Layout, alpha: float, cap: str = "input") -> float:
    """Return the amount of a layout: the sum over all blocks of its stages.

    >>> from ifspace.stages.networks import network
    >>> round(total(gain, network("vgg16", 32), 3), 2)
    4.94
    """
    return fsum(amount for stage in layout.stages for amount in objective(stage, alpha, cap))


def totals_by_depth(
    objective: Objective, stage: Stage, alpha: float, cap: str = "input"
) -> tuple[float, ...]:
    """Return the amount of a stage at each depth from `stage.min_depth` to `stage.depth`.

    >>> from ifspace.block import Block
    >>> conv = Block.parse("CONV(3)").at(128)
    >>> [round(amount, 3) for amount in totals_by_depth(gain, Stage(8, conv, conv, depth=3), 3)]
    [0.0, 1.166, 1.463]

    Raises: SettingError when the objective does not return `stage.depth` amounts.
    """
    amounts = objective(stage, alpha, cap)
    if len(amounts) != stage.depth:
        raise SettingError.because(
            "objective with a wrong number of amounts",
            got=len(amounts),
            allowed=f"{stage.depth}: one for each counted layer of the stem and each block",
            remedy="see ifspace.stages.objectives",
        )
    return tuple(accumulate(amounts))[stage.min_depth - 1 :]
