"""Compare the predicted counts of a network at other depths with those of the network built."""

import random
from copy import deepcopy

import torch
from models.movable_networks import IMAGE
from small_networks import params
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ifspace.models.depths import TracedLayout
from ifspace.models.edits import EditedNetwork
from ifspace.models.graph import Trace
from ifspace.models.surgery import without_values
from ifspace.models.tracing import trace
from ifspace.models.units import stages_of, units_of
from ifspace.nn.network import seeded
from ifspace.stages.layout import Layout


def layout_of(model: nn.Module, image: tuple[int, ...] = IMAGE) -> TracedLayout:
    """Trace the network and return its layout."""
    return layout_on(trace(model, image), model)


def layout_on(network_trace: Trace, model: nn.Module) -> TracedLayout:
    return TracedLayout.of(
        network_trace, model, stages_of(network_trace, units_of(network_trace, model))
    )


def with_depths(model: nn.Module, layout: TracedLayout, seed: int = 0) -> nn.Module:
    """A copy of the network with the depths of a layout."""
    return edited_copy(EditedNetwork.of(model), layout, seed).model


def edited_copy(network: EditedNetwork, layout: TracedLayout, seed: int = 0) -> EditedNetwork:
    """A copy of the network with the depths of a layout; its record has the new steps too."""
    copy = EditedNetwork(deepcopy(network.model), network.edits)
    with seeded(seed, None):
        return copy.apply(*layout.steps())


def some_depths(start: TracedLayout, seed: int) -> TracedLayout:
    """Draw other depths: a stage loses units or gains up to 3; the last keeps a removable one."""
    draw = random.Random(seed)
    *first, last = (
        draw.randint(stage.min_depth, stage.depth + 3 * (stage.stage.copy is not None))
        for stage in start.stages
    )
    return start.at_depths((*first, max(last, start.stages[-1].min_depth + 1)))


def flop_macs(
    model: nn.Module, image: tuple[int, ...] = IMAGE, shape: tuple[int, ...] | None = None
) -> int:
    """Count the MACs of one image with FlopCounterMode on the meta device.

    `shape` is the expected shape of the output.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        y = without_values(model).eval()(torch.empty(1, *image, device="meta"))
    assert shape is None or y.shape == shape
    return int(counter.get_total_flops()) // 2


def check_counts(
    model: nn.Module,
    layout: TracedLayout | Layout,
    image: tuple[int, ...] = IMAGE,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Check that the network built has the predicted parameters and MACs."""
    assert params(model) == layout.params
    assert flop_macs(model, image, shape) == layout.macs


def check_gains(fresh: TracedLayout, layout: TracedLayout) -> None:
    """Check that a network traced again has the predicted depths, gains and counts."""
    assert fresh.depths == layout.depths
    for one, other in zip(fresh.stages, layout.stages, strict=True):
        for mine, theirs in zip(one.gains(3), other.gains(3), strict=True):
            assert abs(mine - theirs) < 1e-9
    assert (fresh.params, fresh.macs) == (layout.params, layout.macs)
