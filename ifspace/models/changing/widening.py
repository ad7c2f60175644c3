"""A unit that changes the width, made one that keeps it: its layers at other channels.

[3DRF] appends a layer behind the last of a stage: its input is as wide as that one's output. Which
layers of a unit that concerns shows when it is run, on shapes alone.

Reference: [3DRF] section 4.1.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ifspace.errors import IfspaceError, SettingError
from ifspace.kernels.windows import windows_of
from ifspace.nn import BlockModule, RollingPointwiseConv2d
from ifspace.nn.shortcuts import FreeShortcut

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
