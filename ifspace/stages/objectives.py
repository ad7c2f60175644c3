"""What stages are chosen for: functions from a stage to the amounts that are maximised.

To add an objective, write a function that returns `stage.depth` amounts, one for each layer of the
stem that counts in the stage and for each block, in their order, and name it in `OBJECTIVES`:
plans count with it, and the solver takes it as a table by depth. An amount may depend on what
precedes it in the stage, never on what follows. The layers of a stem are the same in every plan and
add nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from math import fsum, log
from typing import Final

from ifspace.block import SizedLayer
from ifspace.errors import SettingError
from ifspace.infofield import log_gain as growth
from ifspace.stages.layout import Layout, Stage

# From a stage, the decay alpha and the cap of the field (`ifspace.infofield.CAPS`) to what each
# counted layer or block adds, the first included.
Objective = Callable[[Stage, float, str], tuple[float, ...]]
# Reference: MATH of ifspace, section 5: concave in the width, so that stages share a budget.
_SHARE: Final = 0.75


def share_of_macs(macs: float) -> float:
    """Return what a layer adds to macs-3/4: its MACs of one image to the power 3/4."""
    return float(float(macs) ** _SHARE)


def width_amount(c_out: int, side: float, fan_in: int) -> float:
    """Return what a layer adds to width-field; `fan_in`: the weights of one filter."""
    return float(c_out**_SHARE * side * log(fan_in))


def energy_amount(c_out: int) -> float:
    """Return what a layer adds to the logarithm of the layout energy, ln ln n.

    Fewer than 2 channels count as 2.
    """
    return log(log(max(c_out, 2)))


def gain(stage: Stage, alpha: float, cap: str = "input") -> tuple[float, ...]:
    """Return the gain of the information field of each block; the first has none.

    Reference: [IF] eq. 4.
    """
    return (0.0, *stage.gains(alpha, cap))


def log_gain(stage: Stage, alpha: float, cap: str = "input") -> tuple[float, ...]:
    """Return the logarithm of the field's growth by each block, with the decay of the gain.

    ln(IF_k / IF_{k-1}) · exp(-α · IF_{k-1} / V0), 0 for the first block.

    >>> from ifspace.block import Block
    >>> conv = Block.parse("CONV(3)").at(128)
    >>> [round(amount, 3) for amount in log_gain(Stage(8, conv, conv, depth=3), 3)]
    [0.0, 0.67, 0.208]
    """
    volumes = pairwise(stage.volumes(cap))
    return (0.0, *(growth(a, b, stage.input_volume, alpha) for a, b in volumes))


def macs_to_three_quarters(stage: Stage, alpha: float = 0, cap: str = "input") -> tuple[float, ...]:
    """Return the sum over the layers of each block of their MACs of one image, to the power 3/4.

    It sees width, depth and side, and is concave, so that it spreads over the layers.

    >>> from ifspace.block import Block
    >>> pointwise = Block.parse("PW").at(16)
    >>> macs_to_three_quarters(Stage(4, pointwise, pointwise, depth=2))
    (512.0, 512.0)
    """
    return _by_block(stage, lambda layer, side: share_of_macs(layer.params * side**layer.dims))


def width_field(stage: Stage, alpha: float = 0, cap: str = "input") -> tuple[float, ...]:
    """Return the sum over the layers of each block of c_out^(3/4) · r · ln(fan-in).

    r is the side that the layer writes, the fan-in counts weights of one filter: k² · C_in / g.
    """
    return _by_block(
        stage,
        lambda layer, side: width_amount(
            layer.c_out, side, layer.fan_in * layer.kernel**layer.dims
        ),
    )


def energy(stage: Stage, alpha: float = 0, cap: str = "input") -> tuple[float, ...]:
    """Return the sum over the convolutions of each block of ln ln n, n the channels it writes.

    The exponential of the total is the layout energy. Fewer than 2 channels count as 2.

    Reference: [Layout] eq. 4.
    """
    return _by_block(stage, lambda layer, side: energy_amount(layer.c_out))


def _by_block(stage: Stage, amount: Callable[[SizedLayer, float], float]) -> tuple[float, ...]:
    """Return the sum over the layers with weights of each block of an amount at its side."""
    first = fsum(_of_layers(stage, stage.stride, amount))
    repeats = stage.depth - stage.min_depth
    more = fsum(_of_layers(stage, 1, amount, repeated=True)) if repeats else 0.0
    return (*[0.0] * len(stage.stem), first, *[more] * repeats)


def _of_layers(
    stage: Stage,
    stride: int,
    amount: Callable[[SizedLayer, float], float],
    repeated: bool = False,
) -> Iterator[float]:
    block = stage.repeated if repeated else stage.first
    for layer, pixels in zip(block.layers, block.pixels(stride), strict=True):
        if layer.params:
            yield amount(layer, stage.side_out * pixels ** (1 / layer.dims))


# In the order in which they break ties of each other.
OBJECTIVES: Final[Mapping[str, Objective]] = {
    "gain": gain,
    "log-gain": log_gain,
    "macs-3/4": macs_to_three_quarters,
    "width-field": width_field,
    "energy": energy,
}
# Amounts that may be minimised instead, and what budgets and plans call them.
COSTS: Final[Mapping[str, str]] = {"latency": "latency_ms", "peak-memory": "peak_memory"}
# How each is named where a person reads it.
TITLES: Final[Mapping[str, str]] = {
    "gain": "total gain",
    "log-gain": "total log-gain",
    "macs-3/4": "Σ MACs^(3/4)",
    "width-field": "Σ width^(3/4) · side · ln fan-in",
    "energy": "layout energy (Σ ln ln width)",
    "latency": "latency",
    "peak-memory": "peak memory",
}


def tie_breakers(objective: str) -> tuple[str, ...]:
    """Return the objectives that break ties of one: those after it, then those before it.

    >>> tie_breakers("macs-3/4")
    ('width-field', 'energy', 'gain', 'log-gain')
    """
    names = list(OBJECTIVES)
    if objective in COSTS:
        return tuple(names)
    index = names.index(objective)
    return tuple(names[index + 1 :] + names[:index])


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
