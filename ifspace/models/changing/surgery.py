"""Units taken out of a network and put into it: where its modules stand, they change places.

Inside an `nn.Sequential` units are deleted and inserted, and those behind them are numbered anew.
Elsewhere code calls modules by their names: the place of one that is gone is held by `nn.Identity`,
and one more is put behind the last in an `nn.Sequential` of both.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ifspace.models.changing.rows import children_of, is_row, run_of
from ifspace.models.changing.widening import widened
from ifspace.nn.blocks import ACTIVATIONS
from ifspace.stages.layout import MAX_DEPTH
from ifspace.values import whole_number


@dataclass(frozen=True, slots=True)
class Remove:
    """A unit, by the paths of its modules, is taken out; its input and output have one shape.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    >>> Remove(("2",)).apply(model)
    >>> len(model)
    2
    """

    step: ClassVar[str] = "remove"

    names: tuple[str, ...]

    def apply(self, model: nn.Module) -> None:
        """Take the unit out of the model itself. Raises: SettingError when it is not there."""
        parent, keys = run_of(model, self.names)
        if is_row(parent):
            _refill(parent, [item for item in children_of(parent).items() if item[0] not in keys])
            return
        for name in self.names:
            model.set_submodule(name, _like(nn.Identity(), model.get_submodule(name)))

    def to_json(self) -> dict[str, Any]:
        """Return the step as values that JSON has."""
        return {"names": list(self.names)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the step that `to_json` wrote. Raises: KeyError, TypeError, ValueError."""
        return cls(_names(values["names"]))


@dataclass(frozen=True, slots=True)
class Append:
    """More units like another, `count` of them with fresh weights, are put behind a unit.

    `channels`: None where the unit that is copied keeps its width; else the width behind which the
    copy stands, which reads so many channels and strides no more. `activation`: what stands before
    each copy where bare layers stand outside of a row and the network's own code activates them.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
    >>> Append(("0",), ("0",), 8).apply(model)
    >>> [tuple(part.weight.shape) for part in model if hasattr(part, "weight")], len(model)
    ([(8, 3, 3, 3), (8, 8, 3, 3)], 4)
    """

    step: ClassVar[str] = "append"

    behind: tuple[str, ...]
    like: tuple[str, ...]
    channels: int | None = None
    count: int = 1
    activation: str | None = None

    def apply(self, model: nn.Module) -> None:
        """Put them into the model itself. Raises: SettingError when they do not fit there."""
        every = [copied(model, self.like, self.channels) for _ in range(self.count)]
        parent, keys = run_of(model, self.behind)
        if is_row(parent):
            items = list(children_of(parent).items())
            at = 1 + max(n for n, (key, _) in enumerate(items) if key in keys)
            known = {key for key, _ in items}
            new = [(_free(key, known), part) for made in every for key, part in made.items()]
            _refill(parent, [*items[:at], *new, *items[at:]])
            return
        old = model.get_submodule(self.behind[-1])
        row = [old]
        for made in every:
            bare = not any(True for part in made.values() for _ in part.children())
            if bare and self.activation is not None:
                row.append(_like(ACTIVATIONS[self.activation](), old))
            row += made.values()
        model.set_submodule(self.behind[-1], _like(nn.Sequential(*row), old))

    def to_json(self) -> dict[str, Any]:
        """Return the step as values that JSON has."""
        return {
            "behind": list(self.behind),
            "like": list(self.like),
            "channels": self.channels,
            "count": self.count,
            "activation": self.activation,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the step that `to_json` wrote. Raises: KeyError, TypeError, ValueError."""
        channels, activation = values["channels"], values["activation"]
        if not (channels is None or (type(channels) is int and channels > 0)):
            raise ValueError(f"channels {channels!r}")
        if not (activation is None or activation in ACTIVATIONS):
            raise ValueError(f"activation {activation!r}")
        count = whole_number(values["count"], "count", 1, MAX_DEPTH)
        return cls(_names(values["behind"]), _names(values["like"]), channels, count, activation)


def copied(
    model: nn.Module, names: Sequence[str], channels: int | None = None
) -> dict[str, nn.Module]:
    """Return a copy of a unit's modules by key, with fresh weights, as it is at other channels.

    Weights of modules that cannot draw them (no `reset_parameters`) are those of the unit.

    Raises: SettingError for a unit that cannot be made for these channels.
    """
    parent, keys = run_of(model, names)
    children = children_of(parent)
    made = deepcopy({key: children[key] for key in keys})  # what they share they share again
    if channels is not None:
        made = widened(made, channels)
    for part in made.values():
        for each in part.modules():
            _draw(each)
    return made


def _draw(module: Any) -> None:
    """Give a module fresh weights of its own kind."""
    draw = getattr(module, "reset_parameters", None)
    if not callable(draw):
        return
    if any(True for _ in _tensors(module)):
        draw()
    if is_parametrized(module, "weight"):
        # Made of others, as by weight_norm: what is drawn is split into them.
        with torch.no_grad():
            drawn = torch.empty_like(module.weight)
            module.weight = nn.init.kaiming_uniform_(drawn, a=sqrt(5))


def _like(made: nn.Module, old: nn.Module) -> nn.Module:
    """Return a module in the mode of another; what is inside keeps its own."""
    made.training = old.training
    return made


def _tensors(module: nn.Module) -> Iterator[Any]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _refill(parent: nn.Sequential, items: Sequence[tuple[str, nn.Module]]) -> None:
    """Give a row other modules; where they were numbered from 0 they are so again."""
    numbered = list(parent._modules) == [str(place) for place in range(len(parent._modules))]
    parent._modules = OrderedDict(
        (str(place) if numbered else key, part) for place, (key, part) in enumerate(items)
    )


def _free(key: str, known: set[str]) -> str:
    """Return a key like another that is not known yet, and know it from then on."""
    stem = key.rstrip("0123456789")
    new = next(name for name in _counted(stem) if name not in known)
    known.add(new)
    return new


def _counted(stem: str) -> Iterator[str]:
    number = 1
    while True:
        yield f"{stem}{number}"
        number += 1


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise ValueError(f"names {values!r}")
    return tuple(values)
