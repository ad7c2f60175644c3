"""A network of ifspace's own at other depths: built anew, with the weights of the units that stay.

Its layout says what it is, so that it is made from another layout and not changed.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ifspace.models.edits import attach, edits_of
from ifspace.nn import BlockModule
from ifspace.nn.networks import Network, build_network
from ifspace.stages.layout import Layout


def rebuilt(model: Network, layout: Layout, seed: int = 0) -> Network:
    """Return the network of another layout, with the weights that the first has of its layers.

    Unit n of a stage keeps those of unit n; type, device, mode and memory format stay.

    >>> from ifspace.nn import named_network
    >>> first = named_network("vgg11", 32, device="meta")
    >>> rebuilt(first, first.layout.at_depths((2, 1, 1, 1, 1))).layout.depths
    (2, 1, 1, 1, 1)
    """
    like = next(model.parameters())
    made = build_network(layout, model.style, seed=seed, device=like.device, dtype=like.dtype)
    if any(_is_channels_last(each) for each in model.parameters()):
        last: Any = {"memory_format": torch.channels_last}
        made.to(**last)
    made.train(model.training)
    old = dict(_named(model))
    with torch.no_grad():
        for name, module in _named(made):
            if name in old:
                _take_over(module, old[name])
    attach(made, edits_of(model))
    return made


def _named(model: Network) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules by what they are: units by their place in the stage, others by name.

    How many units stand beside one shortcut is a matter of depth, and so are the names of modules.
    """
    units: dict[int, str] = {}
    for stage, row in model.stages.named_children():
        blocks = (each for each in row.modules() if isinstance(each, BlockModule))
        for place, block in enumerate(blocks):
            for name, part in block.named_modules():
                units[id(part)] = f"{stage}: {place}: {name}"
    for name, module in model.named_modules():
        yield units.get(id(module), name), module


def _take_over(module: nn.Module, old: nn.Module) -> None:
    """Give a module the mode and the weights of another, where they are of one shape."""
    module.training = old.training
    theirs = {**dict(old.named_parameters(recurse=False)), **dict(old.named_buffers(recurse=False))}
    own: list[tuple[str, Tensor]] = [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]
    for name, mine in own:
        other = theirs.get(name)
        if other is not None and other.shape == mine.shape:
            mine.copy_(other)
            if isinstance(mine, nn.Parameter):
                mine.requires_grad_(other.requires_grad)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous()
