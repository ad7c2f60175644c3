"""Which modules make up a unit where it stands: its layers, and what goes along with them.

In a row, an `nn.Sequential`, normalisation, activation and dropout go along with the layer behind
which they stand. In a row of pre-activation, behind whose last layer there is none, with the layer
before which they stand: `conv norm relu conv` ends with a unit `norm relu conv`. Between blocks
that follow each other directly nothing stands, so that what stands behind the last of them is not
its own.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import TypeGuard

from torch import nn

from ifspace.errors import SettingError

# Files of torch.nn.modules with what keeps a map as it is.
_TAIL = ("activation", "batchnorm", "instancenorm", "normalization", "dropout")


def run_of(model: nn.Module, names: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """Return the module that holds a unit, and the keys of the unit there, with what goes along.

    >>> row = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    >>> run_of(row, ["2"])[1]
    ['2', '3']

    Raises: SettingError for modules that are not there, or do not stand together.
    """
    parents = {name.rpartition(".")[0] for name in names}
    keys = [name.rpartition(".")[2] for name in names]
    path = next(iter(parents)) if len(parents) == 1 else ""
    try:
        parent = model.get_submodule(path)
    except AttributeError:
        parent = nn.Module()
    children = children_of(parent)
    if len(parents) != 1 or not all(key in children for key in keys):
        raise SettingError.because(
            "a unit that is not in the network",
            got=", ".join(names),
            allowed="modules that stand together",
            argument="model",
            remedy="take the network that the step was planned for",
        )
    if not is_row(parent):
        return parent, keys
    order, parts = list(children), list(children.values())
    first, end = _run(parts, order.index(keys[0]), order.index(keys[-1]) + 1)
    return parent, order[first:end]


def is_row(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Return whether a module calls its children one after another, and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def children_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the children by key: one that stands at two places, at both."""
    return {key: each for key, each in module._modules.items() if each is not None}


def is_tail(module: nn.Module) -> bool:
    """Return whether a module goes along with the layer beside it.

    >>> is_tail(nn.ReLU()), is_tail(nn.BatchNorm2d(4)), is_tail(nn.MaxPool2d(2))
    (True, True, False)
    """
    if isinstance(module, nn.Identity):
        return True
    places = (each.__module__.rpartition(".") for each in type(module).__mro__)
    known = any(room == "torch.nn.modules" and file in _TAIL for room, _, file in places)
    return known and not isinstance(module, nn.MultiheadAttention)


def _run(parts: Sequence[nn.Module], first: int, end: int) -> tuple[int, int]:
    """Return from where to where a unit reaches with what goes along, first and end excluded."""
    before = [type(each) for each in takewhile(is_tail, reversed(parts[:first]))][::-1]
    behind = [type(each) for each in takewhile(is_tail, parts[end:])]
    if before and not (behind and _ends_with_tail(parts[end:])):
        owner = parts[first - len(before) - 1] if first > len(before) else None
        return first - len(before) * (owner is None or _alike(owner, parts[first])), end
    if not before:
        glued = first > 0 and _is_layer(parts[first - 1])
        return first, end if glued else end + len(behind)
    # What the unit before has, this one has: a dropout behind the last one is not its own.
    same = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], zip(before, behind)))  # noqa: B905
    return first, end + (same or len(behind))


def _ends_with_tail(parts: Sequence[nn.Module]) -> bool:
    """Return whether the layers of a row, up to pooling or its end, have the last tail behind."""
    row = list(takewhile(lambda each: is_tail(each) or _is_layer(each), parts))
    return bool(row) and is_tail(row[-1])


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Return whether what stands behind one module may as well stand before another.

    Behind a single layer, blocks begin with their own.
    """
    return not _is_layer(one) or (_is_layer(other) and _is_single(one) == _is_single(other))


def _is_layer(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _is_single(module: nn.Module) -> bool:
    return not any(True for _ in module.children())
