"""Change the modules of a network in place: remove, copy, widen and replace them.

A step is a frozen value: `Remove` a unit, `Append` more units like one, `Replace` a convolution by
a block. Inside an `nn.Sequential` units are deleted and inserted, and the modules behind them are
renumbered. Elsewhere the network's own code calls modules by name: an `nn.Identity` takes the place
of a unit that is removed, and one more unit is put behind the last in an `nn.Sequential` of both.

Which modules belong to a unit: in an `nn.Sequential`, normalisation, activation and dropout belong
to the layer that they follow. In pre-activation order, where nothing follows the last layer, they
belong to the layer that they precede: `conv norm relu conv` ends with the unit `norm relu conv`.
Blocks that follow each other directly have nothing between them, so what follows the last one is
not its own.

Reference: [3DRF] section 4.1.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from itertools import takewhile
from math import prod, sqrt
from typing import Any, ClassVar, Final, Self, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ifspace.block import SizedBlock
from ifspace.errors import IfspaceError, SettingError
from ifspace.kernels.windows import windows_of
from ifspace.nn import RollingPointwiseConv2d
from ifspace.nn.block import (
    ACTIVATIONS,
    PLAIN,
    BlockModule,
    Style,
    last_writer,
)
from ifspace.nn.network import FreeShortcut
from ifspace.stages.layout import (
    MAX_DEPTH,
    MAX_SIDE,
    block_from_json,
    block_json,
)
from ifspace.values import whole_number

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


# Pixels of the maps on which a unit is run: enough for any kernel, and more than pooling leaves.
_SIDE: Final = 32
_Conv = nn.Conv1d | nn.Conv2d
_Layer = nn.Conv1d | nn.Conv2d | nn.Linear | RollingPointwiseConv2d | BlockModule | FreeShortcut
_Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm


class _MisfitError(Exception):
    """The module at a path shall read, or leave, `width` channels, and does others."""

    def __init__(self, path: str, width: int, leaves: bool = False, pooled: bool = False) -> None:
        super().__init__(path)
        self.path, self.width, self.leaves, self.pooled = path, width, leaves, pooled


def widened(parts: Mapping[str, nn.Module], channels: int) -> dict[str, nn.Module]:
    """Return modules in a row, changed themselves, that read `channels` and stride no more.

    Layers read what comes to them. Depthwise ones and normalisation leave as much, and so does what
    scales a map; other layers leave what they left. Values of other sizes are 0, to be drawn.

    Raises: SettingError for groups that do not divide the width, or modules that take no other.
    """
    row = nn.Sequential()
    row._modules.update(parts)
    for path, each in list(row.named_modules()):
        _unstride(row, path, each)
    probe = without_values(row).eval()
    layers = [each for each in probe.modules() if isinstance(each, _Layer)]
    if not layers:
        raise _refused("no convolution", channels)
    entry, gates = _reads(layers[0]), False
    for _ in range(2 * len(list(row.modules()))):
        misfit = _first_misfit(probe, channels, entry if gates else None)
        if misfit is None:
            return {key: each for key, each in row._modules.items() if each is not None}
        for model in (row, probe):
            _fit(model, misfit)
        gates = gates or misfit.pooled
    raise _refused("modules that never fit", channels)


def without_values(model: nn.Module) -> nn.Module:
    """Return a copy of a network with its weights nowhere."""
    memo: dict[int, object] = {}
    for each in (*model.parameters(), *model.buffers()):
        made = each.detach().to("meta")
        trained = isinstance(each, nn.Parameter)
        memo[id(each)] = nn.Parameter(made, each.requires_grad) if trained else made
    return deepcopy(model, memo)


def _first_misfit(row: nn.Module, channels: int, gated: int | None) -> _MisfitError | None:
    """Return what does not fit first when a row reads `channels`, None where all does.

    `gated`: how many channels the layers leave that scale a map of as many as come to the row.
    """
    blocks = [name for name, each in row.named_modules() if isinstance(each, BlockModule)]
    hooks = [
        each.register_forward_pre_hook(partial(_look, name, channels, gated))
        for name, each in row.named_modules()
        if isinstance(each, _Layer | _Norm) and not any(name.startswith(f"{b}.") for b in blocks)
    ]
    like = next(row.parameters(), torch.empty(0))
    sides = [_SIDE] * (1 if any(map(_is_flat, row.modules())) else 2)
    try:
        with torch.no_grad():
            row(torch.empty(1, channels, *sides, dtype=like.dtype, device="meta"))
    except _MisfitError as misfit:
        return misfit
    except IfspaceError:
        raise
    except Exception as error:
        raise _refused(type(error).__name__, channels) from None
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _look(name: str, channels: int, gated: int | None, module: Any, given: Any) -> None:
    x = given[0] if given else None
    if not isinstance(x, Tensor):
        return
    width = x.shape[-1] if isinstance(module, nn.Linear) else x.shape[1]
    pooled = prod(x.shape) == width
    if _reads(module) != width:
        raise _MisfitError(name, width, pooled=pooled)
    leaves = getattr(module, "out_channels", getattr(module, "out_features", None))
    if pooled and leaves == gated is not None and leaves != channels:
        raise _MisfitError(name, channels, leaves=True)


def _reads(module: Any) -> int:
    """Return how many channels a module reads."""
    if isinstance(module, BlockModule):
        return module.sized.channels
    names = ("in_channels", "in_features", "num_features", "num_channels")
    return int(next(getattr(module, name) for name in names if hasattr(module, name)))


def _is_flat(module: nn.Module) -> bool:
    """Return whether a module reads lines of pixels."""
    return isinstance(module, nn.Conv1d) or (
        isinstance(module, BlockModule) and module.sized.dims == 1
    )


def _unstride(row: nn.Module, path: str, module: Any) -> None:
    if isinstance(module, BlockModule) and module.stride > 1:
        row.set_submodule(path, _block(module, module.sized.channels))
    elif isinstance(module, _Conv):
        module.stride = tuple(1 for _ in module.stride)
    elif isinstance(module, FreeShortcut):
        module.stride = 1


def _fit(row: nn.Module, misfit: _MisfitError) -> None:
    """Have a module read or leave as many channels as it shall."""
    module: Any = row.get_submodule(misfit.path)
    width = misfit.width
    if is_parametrized(module):
        raise _refused("weights made of others", width)
    if isinstance(module, BlockModule):
        row.set_submodule(misfit.path, _block(module, width))
    elif isinstance(module, nn.Linear):
        _resize_linear(module, width, misfit.leaves)
    elif isinstance(module, RollingPointwiseConv2d):
        sizes = windows_of(width, module.out_channels, module.groups, module.overlap)
        module.in_channels = width
        _put(module, "weight", (module.out_channels, sizes.width))
    elif isinstance(module, FreeShortcut):
        # What it left out or added it leaves out or adds behind the same channels no more.
        module.in_channels = width
    elif isinstance(module, _Norm):
        _renorm(module, width)
    elif misfit.leaves:
        _resize(module, module.in_channels, width)
    else:
        _resize(module, width, _behind(module, width))


def _block(block: BlockModule, width: int) -> BlockModule:
    """Return a block like another that reads `width` channels, without a stride."""
    like = next(block.parameters(), torch.empty(0))
    sized = block.sized
    end = width if sized.channels == sized.out_channels else sized.out_channels
    wider = sized.block.at(width, end, sized.bottleneck, sized.dims)
    made = BlockModule(wider, 1, block.style, like.device, like.dtype).train(block.training)
    return made.requires_grad_(like.requires_grad)


def _is_depthwise(conv: Any) -> bool:
    return bool(conv.groups == conv.in_channels > 1)


def _behind(conv: Any, width: int) -> int:
    """Return how many channels a convolution leaves that is to read so many."""
    copies = conv.out_channels // conv.in_channels if _is_depthwise(conv) else 0
    if copies == 0 or (copies > 1 and conv.out_channels % width == 0):
        return int(conv.out_channels)
    return copies * width


def _resize(conv: Any, c_in: int, c_out: int) -> None:
    groups = c_in if _is_depthwise(conv) else conv.groups
    if c_in % groups or c_out % groups:
        raise _refused(f"{groups} groups", c_in)
    conv.in_channels, conv.out_channels, conv.groups = c_in, c_out, groups
    _put(conv, "weight", (c_out, c_in // groups, *conv.weight.shape[2:]))
    _put(conv, "bias", (c_out,))


def _resize_linear(linear: Any, width: int, leaves: bool) -> None:
    if leaves:
        linear.out_features = width
    else:
        linear.in_features = width
    _put(linear, "weight", (linear.out_features, linear.in_features))
    _put(linear, "bias", (linear.out_features,))


def _renorm(norm: Any, channels: int) -> None:
    if isinstance(norm, nn.GroupNorm):
        if channels % norm.num_groups:
            raise _refused(f"{norm.num_groups} groups", channels)
        norm.num_channels = channels
    else:
        norm.num_features = channels
    for name in ("weight", "bias", "running_mean", "running_var"):
        _put(norm, name, (channels,))


def _put(module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Give a module a weight or buffer of another shape, and else like its own, if it has one."""
    old = getattr(module, name, None)
    if old is None or old.shape == shape:
        return
    made = torch.zeros(shape, dtype=old.dtype, device=old.device)
    if old.dim() == 4 and not old.is_contiguous():
        made = made.contiguous(memory_format=torch.channels_last)
    setattr(
        module,
        name,
        nn.Parameter(made, old.requires_grad) if isinstance(old, nn.Parameter) else made,
    )


def _refused(got: str, channels: int) -> SettingError:
    return SettingError.because(
        "a unit that no copy can follow",
        got=f"{got} at {channels} channels",
        allowed="units whose layers take other widths, and whose groups divide them",
        remedy="give the stage a unit that keeps its width",
        argument="model",
    )


Side = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Replace:
    """The convolution at a path, of a stride in pixels, gives its place to a block in a style.

    >>> from ifspace.block import Block
    >>> model = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1))
    >>> Replace("0", Block.parse("DW+PW").at(16, 32), 2).apply(model)
    >>> model[0].layer0
    Conv2d(16, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=16, ...)
    """

    step: ClassVar[str] = "replace"

    name: str
    sized: SizedBlock
    stride: int = 1
    style: Style = PLAIN

    def apply(self, model: nn.Module) -> None:
        """Put the block, with fresh weights, in place of the convolution in the model itself.

        Device, type and mode stay; so do all names by which the convolution is known.

        Raises: SettingError when no such convolution is there.
        """
        old = found_at(model, self.name)
        wanted = (self.sized.channels, self.sized.out_channels, (self.stride,) * 2)
        if not isinstance(old, nn.Conv2d) or wanted != (
            old.in_channels,
            old.out_channels,
            old.stride,
        ):
            raise SettingError.because(
                "a step that does not fit the network",
                got=f"{self.name}: {old}",
                allowed=f"a convolution from {wanted[0]} to {wanted[1]} channels, stride "
                f"{self.stride}",
                remedy="take the network that the step was planned for",
                argument="model",
            )
        made = BlockModule(
            self.sized, self.stride, self.style, old.weight.device, old.weight.dtype
        ).train(old.training)
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module is old:
                model.set_submodule(name, made)

    def to_json(self) -> dict[str, Any]:
        """Return the step as values that JSON has."""
        return {
            "name": self.name,
            "block": block_json(self.sized),
            "stride": self.stride,
            "style": asdict(self.style),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the step that `to_json` wrote.

        Raises: an IfspaceError, KeyError, TypeError or ValueError for anything else.
        """
        style = Style(**values["style"])
        if not all(type(each) is bool for each in (style.batch_norm, style.bias)):
            raise ValueError(f"style {values['style']}")
        return cls(
            str(values["name"]),
            block_from_json(values["block"]),
            whole_number(values["stride"], "stride", 1, MAX_SIDE),
            style,
        )

    @property
    def params(self) -> int:
        """The number of weights, biases and numbers of batch norm that the block has.

        >>> from ifspace.block import Block
        >>> Replace("0", Block.parse("DW+PW").at(16, 32), style=Style()).params
        752
        """
        style, sized = self.style, self.sized
        layers, last = sized.layers, last_writer(sized)
        writers = [each.c_out for each in layers if each.conv.writes]
        end = layers[last].c_out if last >= 0 else 0
        projects = self._projects
        total = sized.params + projects * sized.channels * sized.out_channels
        if style.batch_norm:
            every = style.batch_norm_where == "each"
            total += 2 * (sum(writers) - (not every) * end)
            total += 2 * (projects and every) * sized.out_channels
        if style.bias:
            every = style.bias_where == "each"
            total += sum(writers) if every else end
            total += (projects and every) * sized.out_channels
        return total

    def macs(self, side_in: Side, side_out: Side) -> int:
        """Return the multiply-accumulates of one image, from maps of a side to those of another.

        Layers before the one with the stride run on the larger maps: at odd sides these are not
        stride x stride times the smaller ones.
        """
        before, after = side_in[0] * side_in[1], side_out[0] * side_out[1]
        strided = self.sized.strided_index or 0
        total = sum(
            layer.params * (before if index < strided else after)
            for index, layer in enumerate(self.sized.layers)
        )
        return total + self._projects * self.sized.channels * self.sized.out_channels * after

    @property
    def _projects(self) -> bool:
        same = self.sized.channels == self.sized.out_channels and self.stride == 1
        return self.style.shortcut == "projection" or (self.style.shortcut == "auto" and not same)


def found_at(model: nn.Module, name: str) -> nn.Module:
    """Return the module at a path.

    Raises: SettingError when there is none, or the path is that of the network itself.
    """
    try:
        if name:
            return model.get_submodule(name)
    except AttributeError:
        pass
    raise SettingError.because(
        "no such module in the network",
        got=repr(name),
        allowed="paths such as features.0",
        remedy="`ifspace analyze` lists the layers with their names",
        argument="names",
    )


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
