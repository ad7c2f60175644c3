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

A unit that changes the width is made one that keeps it by giving its layers other widths: [3DRF]
appends a layer behind the last of a stage, whose input is as wide as that one's output. Which
layers need another width shows when the unit runs, on shapes alone.

Reference: [3DRF] section 4.1.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from math import prod, sqrt
from typing import Annotated, Any, ClassVar, Final, Self, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ifspace.block import SizedBlock
from ifspace.errors import IfspaceError, SettingError
from ifspace.kernels.windows import windows_of
from ifspace.memory import Schedule
from ifspace.models.graph import Size
from ifspace.nn import RollingPointwiseConv2d
from ifspace.nn.block import (
    ACTIVATIONS,
    PLAIN,
    BlockModule,
    LastAxisBlock,
    Style,
    last_writer,
)
from ifspace.nn.checks import first_line
from ifspace.nn.layers import Geometry
from ifspace.nn.network import FreeShortcut
from ifspace.serialize import Between, from_plain, to_plain
from ifspace.stages.layout import (
    MAX_DEPTH,
    BlockRecord,
)
from ifspace.values import MAX_SIDE, choice, counted

# Full names of the modules of a unit.
Names = Annotated[tuple[str, ...], Between(1)]


class PlainStep:
    """A step whose fields are its JSON values: the base of dataclasses."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        values: dict[str, Any] = to_plain(self)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Return the step that `to_json` wrote. Raises: SettingError."""
        return from_plain(cls, values, where)


@dataclass(frozen=True, slots=True)
class Remove(PlainStep):
    """Remove the unit that consists of the modules `names`; its input and output have one shape.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    >>> Remove(("2",)).apply(model)
    >>> len(model)
    2
    """

    step: ClassVar[str] = "remove"

    names: Names

    def apply(self, model: nn.Module) -> None:
        """Remove the unit from the model in place. Raises: SettingError if it is not there."""
        parent, keys = modules_of_unit(model, self.names)
        if is_sequential(parent):
            remaining = [item for item in children_of(parent).items() if item[0] not in keys]
            _set_children(parent, remaining)
            return
        for name in self.names:
            model.set_submodule(name, _in_mode_of(nn.Identity(), model.get_submodule(name)))


@dataclass(frozen=True, slots=True)
class Append(PlainStep):
    """Put `count` units like the unit `like`, with fresh weights, behind the unit `behind`.

    `channels`: the width of the copies, which then have no stride; None if the unit that is copied
    keeps its width. `activation`: put before each copy of bare layers that stand outside an
    nn.Sequential and that the network's own code activates.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
    >>> Append(("0",), ("0",), 8).apply(model)
    >>> [tuple(part.weight.shape) for part in model if hasattr(part, "weight")], len(model)
    ([(8, 3, 3, 3), (8, 8, 3, 3)], 4)
    """

    step: ClassVar[str] = "append"

    behind: Names
    like: Names
    channels: Annotated[int, Between(1)] | None = None
    count: Annotated[int, Between(1, MAX_DEPTH)] = 1
    activation: str | None = None

    def __post_init__(self) -> None:
        choice(self.activation, "activation", (*ACTIVATIONS, None))

    def apply(self, model: nn.Module) -> None:
        """Put the units into the model in place. Raises: SettingError if they do not fit there."""
        self.put_into(model)

    def put_into(self, model: nn.Module) -> list[dict[str, nn.Module]]:
        """Put the units into the model in place, and return the modules of each by their old keys.

        Raises: SettingError if they do not fit there.
        """
        copies = [copy_of_unit(model, self.like, self.channels) for _ in range(self.count)]
        parent, keys = modules_of_unit(model, self.behind)
        if is_sequential(parent):
            items = list(children_of(parent).items())
            end = 1 + max(n for n, (key, _) in enumerate(items) if key in keys)
            used = {key for key, _ in items}
            new = [(_free_key(key, used), part) for copy in copies for key, part in copy.items()]
            _set_children(parent, [*items[:end], *new, *items[end:]])
            return copies
        last = model.get_submodule(self.behind[-1])
        parts = [last]
        for copy in copies:
            bare = not any(map(_has_children, copy.values()))
            if bare and self.activation is not None:
                parts.append(_in_mode_of(ACTIVATIONS[self.activation](), last))
            parts += copy.values()
        model.set_submodule(self.behind[-1], _in_mode_of(nn.Sequential(*parts), last))
        return copies


@dataclass(frozen=True, slots=True)
class _ReplaceRecord:
    """What files hold of a replacement."""

    name: str
    block: BlockRecord
    stride: Annotated[int, Between(1, MAX_SIDE)]
    style: Style
    geometry: Geometry = Geometry()  # noqa: RUF009 - a frozen value


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace the Conv2d `name`, of this stride in pixels, by a block in a style.

    `geometry`: which pixels the convolution reads, if not its neighbours.

    An nn.Linear, which has stride 1, becomes a `LastAxisBlock`.

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
    geometry: Geometry = Geometry()  # noqa: RUF009 - a frozen value

    def apply(self, model: nn.Module) -> None:
        """Replace the convolution in the model in place, by a block with fresh weights.

        Device, dtype, training mode and hooks stay, but for those that compute the weights of the
        convolution; every name of the convolution becomes the block's.

        Raises: SettingError if no such convolution is there.
        """
        conv = submodule(model, self.name)
        shape = (self.sized.channels, self.sized.out_channels, (self.stride,) * 2, self.geometry)
        if isinstance(conv, nn.Linear):
            fits = shape == (conv.in_features, conv.out_features, (1, 1), Geometry())
        else:
            fits = isinstance(conv, nn.Conv2d) and shape == (
                conv.in_channels,
                conv.out_channels,
                conv.stride,
                Geometry.of(conv),
            )
        if not isinstance(conv, nn.Conv2d | nn.Linear) or not fits:
            raise SettingError.because(
                "a step that does not fit the network",
                got=f"{self.name}: {conv}",
                allowed=f"a convolution from {shape[0]} to {shape[1]} channels, stride "
                f"{self.stride}" + f", {self.geometry}" * (not self.geometry.is_default),
                remedy="take the network that the step was planned for",
                argument="model",
            )
        weight = conv.weight
        inner = BlockModule(
            self.sized, self.stride, self.style, weight.device, weight.dtype, self.geometry
        )
        block = LastAxisBlock(inner) if isinstance(conv, nn.Linear) else inner
        block.train(conv.training)
        _carry_hooks(conv, block)
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module is conv:
                model.set_submodule(name, block)

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        block = BlockRecord.of(self.sized)
        record = _ReplaceRecord(self.name, block, self.stride, self.style, self.geometry)
        values: dict[str, Any] = to_plain(record)
        if self.geometry.is_default:
            del values["geometry"]  # earlier versions can read the rest
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Return the step that `to_json` wrote. Raises: SettingError."""
        record = from_plain(_ReplaceRecord, values, where)
        return cls(record.name, record.block.sized, record.stride, record.style, record.geometry)

    @property
    def params(self) -> int:
        """The parameters of the block: weights, biases and batch norm.

        >>> from ifspace.block import Block
        >>> Replace("0", Block.parse("DW+PW").at(16, 32), style=Style()).params
        752
        """
        style, sized = self.style, self.sized
        layers, last = sized.layers, last_writer(sized)
        widths = [layer.c_out for layer in layers if layer.conv.writes]
        last_width = layers[last].c_out if last >= 0 else 0
        projects = self._projects
        total = sized.params + projects * sized.channels * sized.out_channels
        if style.batch_norm:
            each_layer = style.batch_norm_where == "each"
            total += 2 * (sum(widths) - (not each_layer) * last_width)
            total += 2 * (projects and each_layer) * sized.out_channels
        if style.bias:
            each_layer = style.bias_where == "each"
            total += sum(widths) if each_layer else last_width
            total += (projects and each_layer) * sized.out_channels
        return total

    def macs(self, size_in: Size, size_out: Size) -> int:
        """Return the multiply-accumulates of one image, with feature maps of these (H, W).

        Layers before the one with the stride run at the input size, which for odd sizes is not
        stride x stride times the output size.
        """
        before, after = size_in[0] * size_in[1], size_out[0] * size_out[1]
        layers = self.sized.layers
        strided = next((n for n, layer in enumerate(layers) if layer.conv.spatial), 0)
        total = sum(
            layer.params * (before if index < strided else after)
            for index, layer in enumerate(layers)
        )
        return total + self._projects * self.sized.channels * self.sized.out_channels * after

    def schedule(self, size_in: Size, size_out: Size) -> Schedule:
        """Return the layers of the block as steps, with feature maps of these (H, W)."""
        before, after = size_in[0] * size_in[1], size_out[0] * size_out[1]
        return self.sized.schedule_between(before, after, self.stride, self.style.shortcut)

    @property
    def _projects(self) -> bool:
        """Whether the shortcut is a convolution."""
        same = self.sized.channels == self.sized.out_channels and self.stride == 1
        return self.style.shortcut == "projection" or (self.style.shortcut == "auto" and not same)


# The dictionaries of hooks of an nn.Module, and those of their options.
_HOOKS: Final = {
    "_forward_hooks": ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_forward_pre_hooks": ("_forward_pre_hooks_with_kwargs",),
    "_backward_hooks": (),
    "_backward_pre_hooks": (),
}


def _carry_hooks(old: nn.Module, new: nn.Module) -> None:
    """Give a module the hooks of the one that it replaces, which reads and writes the same shapes.

    Hooks of torch.nn.utils, such as the former weight_norm and pruning, compute weights that the
    new module does not have.
    """
    for name, options in _HOOKS.items():
        for key, hook in getattr(old, name).items():
            if type(hook).__module__.startswith("torch.nn.utils."):
                continue
            getattr(new, name)[key] = hook
            for option in options:
                if key in getattr(old, option):
                    getattr(new, option)[key] = True


def submodule(model: nn.Module, name: str) -> nn.Module:
    """Return the module of a full name.

    Raises: SettingError if there is none, or the name is that of the network itself.
    """
    try:
        if name:
            return model.get_submodule(name)
    except AttributeError:
        pass
    raise SettingError.because(
        "no such module in the network",
        got=repr(name),
        allowed="full names of modules such as features.0",
        remedy="`ifspace analyze` lists the layers with their names",
        argument="names",
    )


def copy_of_unit(
    model: nn.Module, names: Sequence[str], channels: int | None = None
) -> dict[str, nn.Module]:
    """Return a copy of a unit's modules by key, with fresh weights, at another width if given.

    Modules that cannot draw weights (no `reset_parameters`) keep those of the unit.

    Raises: SettingError for a unit that cannot have this width.
    """
    parent, keys = modules_of_unit(model, names)
    children = children_of(parent)
    unit = nn.ModuleDict({str(index): children[key] for index, key in enumerate(keys)})
    parts = children_of(copy_of_network(unit)).values()  # what they share stays shared
    copy = dict(zip(keys, parts, strict=True))
    if channels is not None:
        copy = widened(copy, channels)
    for part in copy.values():
        for module in part.modules():
            _draw_weights(module)
    return copy


def _draw_weights(module: Any) -> None:
    """Reinitialise a module by its own `reset_parameters`."""
    draw = getattr(module, "reset_parameters", None)
    if not callable(draw):
        return
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    if own:
        draw()
    if is_parametrized(module, "weight"):
        # A weight made of others, as by weight_norm: the drawn one is split into them.
        with torch.no_grad():
            weight = torch.empty_like(module.weight)
            module.weight = nn.init.kaiming_uniform_(weight, a=sqrt(5))


def _in_mode_of(module: nn.Module, other: nn.Module) -> nn.Module:
    """Return a module in the training mode of another; modules inside keep their own."""
    module.training = other.training
    return module


def _set_children(parent: nn.Sequential, items: Sequence[tuple[str, nn.Module]]) -> None:
    """Give an nn.Sequential other modules; if it was numbered from 0, number them so again."""
    numbered = list(parent._modules) == [str(index) for index in range(len(parent._modules))]
    parent._modules = OrderedDict(
        (str(index) if numbered else key, part) for index, (key, part) in enumerate(items)
    )


def _free_key(key: str, used: set[str]) -> str:
    """Return a key like another that is not used yet, and add it to those used."""
    stem = key.rstrip("0123456789")
    free = next(name for number in count(1) if (name := f"{stem}{number}") not in used)
    used.add(free)
    return free


# ------------------------------------------------------------------ the modules of a unit

# Files of torch.nn.modules whose modules keep the shape of a feature map and mix no pixels.
_FOLLOWERS: Final = ("activation", "batchnorm", "instancenorm", "normalization", "dropout")


def modules_of_unit(model: nn.Module, names: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """Return the module that holds a unit, and the keys there of all that belongs to the unit.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    >>> modules_of_unit(model, ["2"])[1]
    ['2', '3']

    Raises: SettingError for modules that are not there, or not in one module.
    """
    parents = {name.rpartition(".")[0] for name in names}
    keys = [name.rpartition(".")[2] for name in names]
    parent_name = next(iter(parents)) if len(parents) == 1 else ""
    try:
        parent = model.get_submodule(parent_name)
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
    if not is_sequential(parent):
        return parent, keys
    order, parts = list(children), list(children.values())
    first, end = _span(parts, order.index(keys[0]), order.index(keys[-1]) + 1)
    return parent, order[first:end]


def is_sequential(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Return whether a module calls its children one after another and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def children_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the children by key; a module with two keys is there under both."""
    return {key: child for key, child in module._modules.items() if child is not None}


def is_follower(module: nn.Module) -> bool:
    """Return whether a module belongs to the layer beside it: norm, activation, dropout, identity.

    >>> is_follower(nn.ReLU()), is_follower(nn.BatchNorm2d(4)), is_follower(nn.MaxPool2d(2))
    (True, True, False)
    """
    if isinstance(module, nn.Identity):
        return True
    files = (base.__module__.rpartition(".") for base in type(module).__mro__)
    of_torch = any(
        package == "torch.nn.modules" and file in _FOLLOWERS for package, _, file in files
    )
    return of_torch and not isinstance(module, nn.MultiheadAttention)


def _span(parts: Sequence[nn.Module], first: int, end: int) -> tuple[int, int]:
    """Return the first index of a unit with its followers, and the index behind its last."""
    before = [type(part) for part in takewhile(is_follower, reversed(parts[:first]))][::-1]
    behind = [type(part) for part in takewhile(is_follower, parts[end:])]
    if before and not (behind and _ends_with_follower(parts[end:])):
        owner = parts[first - len(before) - 1] if first > len(before) else None
        precede = owner is None or _shares_order(owner, parts[first])
        return first - len(before) * precede, end
    if not before:
        direct = first > 0 and _has_weights(parts[first - 1])
        return first, end if direct else end + len(behind)
    # A unit has the followers that the unit before it has: a dropout after the last is not its own.
    pairs = zip(before, behind, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))
    return first, end + (same or len(behind))


def _ends_with_follower(parts: Sequence[nn.Module]) -> bool:
    """Return whether the layers up to pooling, or to the end, end with a follower."""
    layers = list(takewhile(lambda part: is_follower(part) or _has_weights(part), parts))
    return bool(layers) and is_follower(layers[-1])


def _shares_order(one: nn.Module, other: nn.Module) -> bool:
    """Return whether modules between two others can be counted to the second without any change.

    Not after a single layer and before a block: blocks begin with their own.
    """
    return not _has_weights(one) or (
        _has_weights(other) and _has_children(one) == _has_children(other)
    )


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


# ------------------------------------------------------------------ a unit at another width

# Pixels, down and across, of the feature maps on which a unit is run: enough for any kernel, and
# more than pooling leaves.
_PROBE_SIZE: Final = 32
_Conv = nn.Conv1d | nn.Conv2d
_Layer = nn.Conv1d | nn.Conv2d | nn.Linear | RollingPointwiseConv2d | BlockModule | FreeShortcut
_Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm


class _MisfitError(Exception):
    """The module `name` must read (or write, if `writes`) `width` channels, and does not."""

    def __init__(self, name: str, width: int, writes: bool = False, pooled: bool = False) -> None:
        super().__init__(name)
        self.name, self.width, self.writes, self.pooled = name, width, writes, pooled


def widened(parts: Mapping[str, nn.Module], channels: int) -> dict[str, nn.Module]:
    """Change modules that run one after another so that they read `channels` without a stride.

    Layers read the width that reaches them. Depthwise layers and normalisation write as many, and
    so do gates that scale a feature map; other layers write as many as before. Weights of another
    shape are 0, to be drawn.

    Raises: SettingError for groups that do not divide the width, or modules that take no other.
    """
    sequence = nn.Sequential()
    sequence._modules.update(parts)
    for name, module in list(sequence.named_modules()):
        _remove_stride(sequence, name, module)
    probe = without_values(sequence).eval()
    layers = [module for module in probe.modules() if isinstance(module, _Layer)]
    if not layers:
        raise _no_copy("no convolution", channels)
    entry, gates = _reads(layers[0]), False
    for _ in range(2 * len(list(sequence.modules()))):
        misfit = _first_misfit(probe, channels, entry if gates else None)
        if misfit is None:
            return children_of(sequence)
        for model in (sequence, probe):
            _resize(model, misfit)
        gates = gates or misfit.pooled
    raise _no_copy("modules that never fit", channels)


def without_values(model: nn.Module) -> nn.Module:
    """Return a copy of a network on the meta device."""
    memo: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers(), *_computed(model)):
        shape = tensor.detach().to("meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(shape, tensor.requires_grad) if is_parameter else shape
    return _copy(model, memo)


def copy_of_network(model: nn.Module) -> nn.Module:
    """Return a copy of a network with its weights, hooks and modes.

    Attributes that a forward computed, as the weight of `torch.nn.utils.weight_norm`, are copied as
    values: the next forward computes them anew.

    Raises: SettingError for attributes that cannot be copied, such as locks, with their names.
    """
    return _copy(model, {id(tensor): tensor.detach().clone() for tensor in _computed(model)})


def _computed(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that are attributes of modules and have a history, which deepcopy rejects.

    Reference: https://github.com/pytorch/pytorch/pull/103001
    """
    for module in model.modules():
        values = vars(module).values()
        yield from (value for value in values if isinstance(value, Tensor) and not value.is_leaf)


def _copy(model: nn.Module, memo: dict[int, object]) -> nn.Module:
    try:
        return deepcopy(model, memo)
    except IfspaceError:
        raise
    except Exception as error:
        raise SettingError.because(
            "a network that cannot be copied",
            got=_not_copied(model) or f"{type(error).__name__}: {first_line(error)}",
            allowed="modules that copy.deepcopy copies",
            remedy="leave that attribute out of the module, or define its __deepcopy__",
            argument="network",
        ) from error


def _not_copied(model: nn.Module) -> str:
    """Return the first attribute of a module that cannot be copied, "" if there is none."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key == "_modules":
                continue
            try:
                deepcopy(value)
            except Exception:
                kind = type(value).__name__
                return f"{name + '.' if name else ''}{key} ({kind})"
    return ""


def _first_misfit(sequence: nn.Module, channels: int, gated: int | None) -> _MisfitError | None:
    """Return the first misfit when modules read `channels`, None if there is none.

    `gated`: the channels written by layers that scale a feature map as wide as the input.
    """
    blocks = [name for name, module in sequence.named_modules() if isinstance(module, BlockModule)]
    hooks = [
        module.register_forward_pre_hook(partial(_check_width, name, channels, gated))
        for name, module in sequence.named_modules()
        if isinstance(module, _Layer | _Norm) and not any(name.startswith(f"{b}.") for b in blocks)
    ]
    like = next(sequence.parameters(), torch.empty(0))
    size = [_PROBE_SIZE] * (1 if any(map(_is_one_dimensional, sequence.modules())) else 2)
    try:
        with torch.no_grad():
            sequence(torch.empty(1, channels, *size, dtype=like.dtype, device="meta"))
    except _MisfitError as misfit:
        return misfit
    except IfspaceError:
        raise
    except Exception as error:
        raise _no_copy(type(error).__name__, channels) from None
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _check_width(name: str, channels: int, gated: int | None, module: Any, inputs: Any) -> None:
    x = inputs[0] if inputs else None
    if not isinstance(x, Tensor):
        return
    width = x.shape[-1] if isinstance(module, nn.Linear) else x.shape[1]
    pooled = prod(x.shape) == width
    if _reads(module) != width:
        raise _MisfitError(name, width, pooled=pooled)
    written = getattr(module, "out_channels", getattr(module, "out_features", None))
    if pooled and written == gated is not None and written != channels:
        raise _MisfitError(name, channels, writes=True)


def _reads(module: Any) -> int:
    """Return how many channels a module reads."""
    if isinstance(module, BlockModule):
        return module.sized.channels
    names = ("in_channels", "in_features", "num_features", "num_channels")
    return int(next(getattr(module, name) for name in names if hasattr(module, name)))


def _is_one_dimensional(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d) or (isinstance(module, BlockModule) and module.dims == 1)


def _remove_stride(sequence: nn.Module, name: str, module: Any) -> None:
    if isinstance(module, BlockModule) and module.stride > 1:
        sequence.set_submodule(name, _block_at(module, module.sized.channels))
    elif isinstance(module, _Conv):
        module.stride = tuple(1 for _ in module.stride)
    elif isinstance(module, FreeShortcut):
        module.stride = 1


def _resize(sequence: nn.Module, misfit: _MisfitError) -> None:
    """Make a module read or write as many channels as it must."""
    module: Any = sequence.get_submodule(misfit.name)
    width = misfit.width
    if is_parametrized(module):
        raise _no_copy("weights made of others", width)
    if isinstance(module, BlockModule):
        sequence.set_submodule(misfit.name, _block_at(module, width))
    elif isinstance(module, nn.Linear):
        _resize_linear(module, width, misfit.writes)
    elif isinstance(module, RollingPointwiseConv2d):
        sizes = windows_of(width, module.out_channels, module.groups, module.overlap, module.order)
        module.in_channels, module.step = width, sizes.step
        _set_shape(module, "weight", (module.out_channels, sizes.width))
    elif isinstance(module, FreeShortcut):
        # Channels that it dropped or padded before are not dropped or padded at the new width.
        module.in_channels = width
    elif isinstance(module, _Norm):
        _resize_norm(module, width)
    elif misfit.writes:
        _resize_conv(module, module.in_channels, width)
    else:
        _resize_conv(module, width, _written(module, width))


def _block_at(block: BlockModule, width: int) -> BlockModule:
    """Return a block like another that reads `width` channels, without a stride."""
    like = next(block.parameters(), torch.empty(0))
    sized = block.sized
    end = width if sized.channels == sized.out_channels else sized.out_channels
    wider = sized.block.at(width, end, sized.bottleneck, sized.dims)
    copy = BlockModule(wider, 1, block.style, like.device, like.dtype, block.geometry)
    return copy.train(block.training).requires_grad_(like.requires_grad)


def _is_depthwise(conv: Any) -> bool:
    return bool(conv.groups == conv.in_channels > 1)


def _written(conv: Any, width: int) -> int:
    """Return how many channels a convolution writes that is to read `width`."""
    multiplier = conv.out_channels // conv.in_channels if _is_depthwise(conv) else 0
    if multiplier == 0 or (multiplier > 1 and conv.out_channels % width == 0):
        return int(conv.out_channels)
    return multiplier * width


def _resize_conv(conv: Any, c_in: int, c_out: int) -> None:
    groups = c_in if _is_depthwise(conv) else conv.groups
    if c_in % groups or c_out % groups:
        raise _no_copy(counted(groups, "group"), c_in)
    conv.in_channels, conv.out_channels, conv.groups = c_in, c_out, groups
    _set_shape(conv, "weight", (c_out, c_in // groups, *conv.weight.shape[2:]))
    _set_shape(conv, "bias", (c_out,))


def _resize_linear(linear: Any, width: int, writes: bool) -> None:
    if writes:
        linear.out_features = width
    else:
        linear.in_features = width
    _set_shape(linear, "weight", (linear.out_features, linear.in_features))
    _set_shape(linear, "bias", (linear.out_features,))


def _resize_norm(norm: Any, channels: int) -> None:
    if isinstance(norm, nn.GroupNorm):
        if channels % norm.num_groups:
            raise _no_copy(counted(norm.num_groups, "group"), channels)
        norm.num_channels = channels
    else:
        norm.num_features = channels
    for name in ("weight", "bias", "running_mean", "running_var"):
        _set_shape(norm, name, (channels,))


def _set_shape(module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Give a weight or buffer, if the module has it, another shape; its values become 0."""
    old = getattr(module, name, None)
    if old is None or old.shape == shape:
        return
    new = torch.zeros(shape, dtype=old.dtype, device=old.device)
    if old.dim() == 4 and not old.is_contiguous():
        new = new.contiguous(memory_format=torch.channels_last)
    is_parameter = isinstance(old, nn.Parameter)
    setattr(module, name, nn.Parameter(new, old.requires_grad) if is_parameter else new)


def _no_copy(got: str, channels: int) -> SettingError:
    return SettingError.because(
        "a unit that cannot be repeated",
        got=f"{got} at {counted(channels, 'channel')}",
        allowed="units whose layers take other widths, and whose groups divide them",
        remedy="give the stage a unit that keeps its width",
        argument="model",
    )
