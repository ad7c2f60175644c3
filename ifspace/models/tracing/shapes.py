"""A network to look at: without values for its weights, where it can be built and read so."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from ifspace.errors import IfspaceError

Found = TypeVar("Found")


def on_shapes(build: Callable[[], nn.Module], work: Callable[[nn.Module], Found]) -> Found:
    """Return what the work makes of a network that is built on the meta device.

    Where it cannot be built there, or the work fails on it, of the network as it is built: some
    look at their own values.

    >>> on_shapes(lambda: nn.Linear(2, 3), lambda made: str(made.weight.device))
    'meta'
    >>> on_shapes(lambda: nn.Linear(2, 3), lambda made: made.weight.numel() + int(made.bias[0] < 9))
    7

    Raises: as `build` and `work` do.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = build()
        return work(model)
    except Exception as error:
        # What no values would mend is said at once.
        if isinstance(error, IfspaceError) and not error.__cause__ and error.argument == "model":
            raise
        return work(build())
