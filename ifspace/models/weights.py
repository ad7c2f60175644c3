"""Weights of networks that change: trained ones from a file, and those of units that are put in.

A network whose units were removed or added has other names for some of its weights. The *names* of
a change say which: a dictionary from those before to those after, as JSON beside a saved network.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import sqrt
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_load
from torch import Tensor, nn

from ifspace.errors import ARGUMENT, SettingError
from ifspace.models.edits import EditedNetwork
from ifspace.models.sources import from_source
from ifspace.models.surgery import Append, modules_of_unit, without_values
from ifspace.models.warm_start import random_images
from ifspace.nn import BlockModule
from ifspace.nn.checks import evaluated, first_line
from ifspace.nn.network import Network, build_network
from ifspace.storage import read_bytes, reason, replacing

# How the weights of units that are put in begin.
GROWTHS: Final = ("fresh", "identity")
# What training programs put a state_dict under, and before its names.
_WRAPPED: Final = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_PREFIXES: Final = ("module.", "_orig_mod.")
NAMES_SUFFIX: Final = ".names.json"
_FORMAT: Final = 1


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the weights of a file by name: .safetensors, or what `torch.save` wrote, on the CPU.

    No code that a file holds is run. A state_dict inside a checkpoint is found, and the prefixes
    of data parallel and compiled networks are taken off.

    Raises: SettingError for a file that is missing or holds no weights.
    """
    name = os.fspath(path)
    try:
        data = read_bytes(path)
        if name.lower().endswith(".safetensors"):
            return dict(safetensors_load(data))
        content: Any = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise _unreadable(name, reason(error)) from None
    except Exception as error:  # an UnpicklingError of torch or of Python
        raise _unreadable(name, unpickling_reason(error)) from None
    for key in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = isinstance(content, Mapping) and {
        key: tensor for key, tensor in content.items() if isinstance(tensor, Tensor)
    }
    if not tensors:
        raise _unreadable(name, f"no tensors by name, but {type(content).__name__}")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def unpickling_reason(error: Exception) -> str:
    """Return why torch does not read a file that it takes for a pickled one."""
    if isinstance(error, UnpicklingError):
        return "damaged, or with objects other than tensors, whose code is not run"
    return f"{type(error).__name__}: {first_line(error)}"


def _unreadable(name: str, reason: str) -> SettingError:
    return SettingError.because(
        f"{ARGUMENT} cannot be read",
        got=f"{name} ({reason})",
        allowed="weights by name: a .safetensors file, or a state_dict that torch.save wrote",
        remedy="save model.state_dict() anew",
        argument="weights",
    )


def load_weights(
    network: nn.Module | EditedNetwork,
    path: str | os.PathLike[str],
    names: Mapping[str, str] | str | os.PathLike[str] | None = None,
) -> tuple[str, ...]:
    """Set the weights of a network to those of a file, and return the names that the file lacks.

    `names`: for a checkpoint of the network before it was changed, what `names_after` returned or
    the file that was saved beside the network; what is no more is left out, and new units keep
    the weights that they have. Without them all names and shapes must be those of the network.

    Raises: SettingError for a file that cannot be read, or weights of another network.
    """
    model = EditedNetwork.of(network).model
    weights, own = read_weights(path), model.state_dict()
    if names is not None:
        renames = names if isinstance(names, Mapping) else read_names(names)
        weights = {renames[key]: tensor for key, tensor in weights.items() if key in renames}
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    others = [key for key in weights if key in own and weights[key].shape != own[key].shape]
    if unknown or others or (missing and names is None) or len(missing) == len(own):
        wrong = [
            f"{len(keys)} {what} such as {keys[0]}"
            for keys, what in (
                (missing if names is None else [], "missing"),
                (unknown, "that it does not have"),
                (others, "of another shape"),
            )
            if keys
        ]
        raise SettingError.because(
            f"{ARGUMENT} of another network",
            got=", ".join(wrong) or "none of its names",
            allowed=f"the {len(own)} weights of {type(model).__name__}",
            remedy="give those of the same network, with as many classes",
            argument="weights",
        )
    model.load_state_dict(weights, strict=False)
    return tuple(missing)


def names_after(before: nn.Module | EditedNetwork, after: EditedNetwork) -> dict[str, str]:
    """Return the names of weights before a change by the names after it; without those removed.

    `after`: what `reorganize`, `decompose` or `optimize` made of the network `before`.
    """
    start = EditedNetwork.of(before)
    steps = after.edits.steps[len(start.edits.steps) :]
    model = without_values(start.model)
    if type(model) is Network and type(after.model) is Network:
        # It was built anew from its layout.
        fresh = build_network(after.model.layout, model.style, device="meta")
        modules = dict(identified(fresh))
        places = {module: name for name, module in fresh.named_modules()}
        moved = {
            name: places[modules[identity]]
            for identity, module in identified(model)
            if identity in modules
            for name, other in model.named_modules()
            if other is module
        }
        own, model = model.state_dict(), fresh
        first = {
            key: key.replace(name, moved[name], 1)
            for key in own
            if (name := key.rpartition(".")[0]) in moved
        }
    else:
        first = {key: key for key in model.state_dict()}
    tensors = model.state_dict(keep_vars=True)
    EditedNetwork(model, start.edits).apply(*steps)
    places_of: dict[int, str] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        places_of.setdefault(id(tensor), key)
    same = {
        key: places_of[id(tensor)] for key, tensor in tensors.items() if id(tensor) in places_of
    }
    return {key: same[place] for key, place in first.items() if place in same}


def identified(model: Network) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules by what they are: parts of units by index in the stage, others by name.

    The names of units' modules depend on the depth, which decides how many units a shortcut spans.
    """
    units: dict[int, str] = {}
    for stage, parts in model.stages.named_children():
        blocks = (module for module in parts.modules() if isinstance(module, BlockModule))
        for index, block in enumerate(blocks):
            for name, part in block.named_modules():
                units[id(part)] = f"{stage}: {index}: {name}"
    for name, module in model.named_modules():
        yield units.get(id(module), name), module


def save_names(names: Mapping[str, str], path: str | os.PathLike[str]) -> Path:
    """Write names beside the network's file `path`, and return where: FILE.names.json."""
    file = Path(path).with_suffix(NAMES_SUFFIX)
    with replacing(file) as temporary:
        text = json.dumps({"format": _FORMAT, "names": dict(names)}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
    return file


def read_names(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the names of a file that `save_names` wrote. Raises: SettingError."""
    try:
        content = json.loads(read_bytes(path))
        names = content["names"]
        if content["format"] != _FORMAT or not all(isinstance(n, str) for n in names.values()):
            raise ValueError("another format")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SettingError.because(
            f"{ARGUMENT} cannot be read",
            got=f"{os.fspath(path)} ({reason(error)})",
            allowed=f"FILE{NAMES_SUFFIX}, as it is written beside a saved network",
            remedy="save the network anew",
            argument="names",
        ) from None
    return dict(names)


@dataclass(frozen=True, slots=True)
class Growth:
    """Units that a step has put in: each as its modules by key, in the order in which they run."""

    step: Append
    copies: Sequence[Mapping[str, nn.Module]]


def draw_as_built(base: EditedNetwork, growths: Sequence[Growth], seed: int) -> None:
    """Set the weights of new units to those of the same units in networks that are built anew.

    So they begin as the network's own code makes them begin. A network without a source cannot be
    built anew: they are drawn from the values that the unit has which they are like. Where a new
    unit has another width its weights are drawn too, scaled for as many inputs.
    """
    edits = base.edits
    if any(tensor.is_meta for tensor in base.model.parameters()):
        return
    image = edits.image or (3, 224, 224)
    generator = torch.Generator().manual_seed(seed)
    model = base.model
    for number in range(max((len(growth.copies) for growth in growths), default=0)):
        if edits.source is not None:
            model = (
                from_source(
                    edits.source, image, edits.classes, seed=seed + number + 1, part=edits.part
                )
                .apply(*edits.steps)
                .model
            )
        for growth in growths:
            if number >= len(growth.copies):
                continue
            parent, keys = modules_of_unit(model, growth.step.like)
            for module, key in zip(growth.copies[number].values(), keys, strict=True):
                _draw_unit_like(module, parent.get_submodule(key), model is base.model, generator)


def _draw_unit_like(
    module: nn.Module, like: nn.Module, in_use: bool, generator: torch.Generator
) -> None:
    """Give a module the weights of one of the same classes, or weights drawn from its values.

    `in_use`: the other one is a part of the network, which shall not be there twice; its statistics
    are of what it reads, and those of the new module stay as they are.
    """
    tensors = module.state_dict(keep_vars=True)
    values = like.state_dict()
    for name, tensor in tensors.items():
        if not in_use and tensor.shape == values[name].shape:
            tensor.data.copy_(values[name])
        elif isinstance(tensor, nn.Parameter):
            _draw_from(tensor.data, values[name], generator)


def _draw_from(tensor: Tensor, like: Tensor, generator: torch.Generator) -> None:
    """Draw a weight from the values of another, about their mean, scaled for as many inputs."""
    values = like.flatten()
    if tensor.shape == like.shape:
        order = torch.randperm(values.numel(), generator=generator)
    else:
        order = torch.randint(values.numel(), (tensor.numel(),), generator=generator)
        mean = values.mean()
        if tensor.dim() > 1:
            scale = sqrt(like[0].numel() / tensor[0].numel())
            values = (values - mean) * scale + mean
    tensor.copy_(values[order.to(values.device)].reshape(tensor.shape))


def make_identities(
    base: EditedNetwork, growths: Sequence[Growth], image: Sequence[int], seed: int
) -> None:
    """Set the weights of new units so that each returns what it reads, in evaluation mode.

    The last layers of residual branches become 0; plain convolutions become those that copy.

    Raises: SettingError for a unit that cannot: one whose activation changes what it reads.
    """
    model = base.model
    like = next(model.parameters())
    if like.is_meta:
        return
    for growth in growths:
        parent, keys = modules_of_unit(model, growth.step.behind)
        read: list[Tensor] = []

        def keep(_: nn.Module, __: Any, y: Any, read: list[Tensor] = read) -> None:
            read.append(y)

        handle = parent.get_submodule(keys[-1]).register_forward_hook(keep)
        try:
            with evaluated(model):
                model(random_images(image, seed, like)[:2])
        finally:
            handle.remove()
        for copy in growth.copies:
            unit = nn.Sequential(*copy.values())
            _make_identity(unit, read[0], ", ".join(growth.step.like))


def make_blocks_identities(model: Network, depths: Sequence[int], seed: int) -> None:
    """Set the weights of an ifspace network's blocks beyond `depths` as `make_identities` does.

    `depths`: of the stages, in blocks.

    Raises: SettingError for blocks that cannot be identities, or that share a shortcut with others.
    """
    like = next(model.parameters())
    if like.is_meta:
        return
    frame, dims = model.layout.stem_and_head, model.layout.stages[0].first.dims
    x = random_images((frame.inputs, *[model.layout.image] * dims), seed, like)[:2]
    with evaluated(model):
        x = model.stem(x)
        for (stage, parts), depth in zip(model.stages.named_children(), depths, strict=True):
            count = 0
            for name, part in parts.named_children():
                first = count
                count += sum(isinstance(module, BlockModule) for module in part.modules())
                if first < depth < count:
                    raise _no_identity(f"{stage}.{name}, whose shortcut spans blocks from before")
                if depth <= first < count:
                    _make_identity(nn.Sequential(part), x, f"{stage}.{name}")
                x = part(x)


def _make_identity(unit: nn.Sequential, x: Tensor, name: str) -> None:
    """Set the weights of a unit that reads x so that it returns it. Raises: SettingError."""
    if not any(change(unit, x) for change in (_without_branches, _as_copies)):
        raise _no_identity(name)


def _no_identity(got: str) -> SettingError:
    return SettingError.because(
        "a unit that cannot be an identity",
        got=got,
        allowed="units with a shortcut of their own, or plain convolutions with ReLU",
        remedy=f"leave {ARGUMENT} out",
        argument="grow",
    )


def _is_identity(unit: nn.Sequential, x: Tensor) -> bool:
    with evaluated(unit):
        y = unit(x)
    return y.shape == x.shape and torch.allclose(y, x, rtol=1e-4, atol=1e-5)


def _without_branches(unit: nn.Sequential, x: Tensor) -> bool:
    """Set as few modules as it takes to 0, the last ones first, if that makes an identity."""
    zeroed: list[tuple[nn.Module, list[Tensor]]] = []

    def restore(module: nn.Module, values: list[Tensor]) -> None:
        for weight, value in zip(module.parameters(recurse=False), values, strict=True):
            weight.data.copy_(value)

    for module in reversed(list(unit.modules())):
        if _is_identity(unit, x):
            break
        weights = list(module.parameters(recurse=False))
        if weights:
            zeroed.append((module, [weight.detach().clone() for weight in weights]))
            for weight in weights:
                weight.data.zero_()
    complete = _is_identity(unit, x)
    for module, values in reversed(zeroed):
        restore(module, values)
        if complete and not _is_identity(unit, x):
            for weight in module.parameters(recurse=False):
                weight.data.zero_()
    return complete


def _as_copies(unit: nn.Sequential, x: Tensor) -> bool:
    """Make every convolution one that copies its channels, and every batch norm one that keeps."""
    for module in unit.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            if module.in_channels != module.out_channels:
                return False
            nn.init.dirac_(module.weight.data, module.groups)
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            module.reset_running_stats()
            module.weight.data.fill_(sqrt(1 + module.eps))
            module.bias.data.zero_()
    return _is_identity(unit, x)
