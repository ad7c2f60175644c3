"""Networks in files: weights as safetensors, with the description of the network as metadata.

The metadata key `ifspace` holds JSON: the version of this format, the layout and the style. None of
it is code, and reading it needs ifspace alone.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Final, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from ifspace.errors import IfspaceError, OutputError, SettingError
from ifspace.nn.checks import FLOATS, device_of, first_line, unwrapped, wrong_type
from ifspace.nn.network import Network, NetworkStyle
from ifspace.serialize import from_plain, to_plain
from ifspace.stages.layout import (
    layout_from_json,
    layout_json,
)
from ifspace.storage import replacing

SUFFIX: Final = ".safetensors"
WRITERS: Final = "--save of `ifspace organize`, `layout` or `optimize`"
FORMAT_VERSION: Final = 1
METADATA_KEY: Final = "ifspace"
# A key in the description of a network that was changed; `ifspace.models` reads such files.
STEPS_KEY: Final = "edits"
# What reading an arbitrary description may raise. RuntimeError includes RecursionError, and torch's
# error for sizes that do not fit in memory.
MALFORMED: Final = (
    IfspaceError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
Built = TypeVar("Built", bound=nn.Module)


class NetworkFileError(IfspaceError, ValueError):
    """A network file that is missing, truncated, of another program or of another version."""


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network to a .safetensors file: weights, running statistics, layout and style.

    The file is written whole or not at all; on failure an older file of that name is kept. Equal
    networks give equal bytes. A compiled network is saved as the network that it wraps, a fused one
    as the network that was fused.

    Raises: OutputError for another suffix, a path that cannot be written, or a network whose
        weights are missing or not those of its layout, so that `load` could not read it;
        SettingError for a value that is no network.
    """
    check_suffix(path)
    network = unwrapped(network)
    if not isinstance(network, Network):
        raise wrong_type(
            "network",
            network,
            "a Network, of build_network or named_network",
            "ifspace.models.save keeps other modules",
        )
    text = json.dumps({"format": FORMAT_VERSION, **describe_network(network)})
    write(path, text, tensors_of(network), lambda: _build(os.fspath(path), text))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Network:
    """Load a network from a .safetensors file to a device, in training mode.

    Raises: NetworkFileError for a file that is missing, truncated, not a network of ifspace or of
        another version, or whose weights are not those of its layout; DeviceError for a device that
        does not exist or holds no values.
    """
    return read(path, device, _build)


def describe_network(network: Network) -> dict[str, Any]:
    """Return the description of a network: its layout and style, as JSON values."""
    return {"layout": layout_json(network.layout), "style": to_plain(network.style)}


@dataclass(frozen=True, slots=True)
class _Description:
    layout: Any
    style: NetworkStyle


def build_described(about: Mapping[str, Any]) -> Network:
    """Build the network of a description on the meta device.

    Raises: one of `MALFORMED` for anything else.
    """
    description = from_plain(_Description, about)
    return Network(layout_from_json(description.layout), description.style, device="meta")


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights and running statistics of a module by name.

    Raises: OutputError for a module without values.
    """
    tensors = {
        # Compiled submodules have a prefix of their own for the module that they wrap.
        name.replace("_orig_mod.", ""): tensor.detach()
        for name, tensor in module.state_dict().items()
    }
    if any(tensor.is_meta for tensor in tensors.values()):
        raise OutputError.because(
            "a network without weights",
            got="tensors on the meta device",
            allowed="a network on a CPU or a GPU",
            remedy="build it there",
        )
    return tensors


def write(
    path: str | os.PathLike[str],
    text: str,
    tensors: Mapping[str, torch.Tensor],
    rebuild: Callable[[], nn.Module],
) -> None:
    """Write a file with a description and tensors, if the described module takes these tensors.

    `rebuild` builds the module without weights, as a reader will.

    Raises: OutputError if it cannot be built, has other tensors, or the file cannot be written.
    """
    try:
        mismatch = tensor_mismatch(rebuild(), tensors)
    except NetworkFileError:
        mismatch = "a description that no file can hold"
    if mismatch:
        raise OutputError.because(
            "a network that could not be read back",
            got=mismatch,
            allowed="the weights of the network that its description builds",
            remedy="undo what was changed by hand, or save the state_dict yourself",
        )
    with replacing(path) as file:
        # Not safetensors' own writer, whose files only their owner can read, whatever the umask.
        file.write_bytes(to_bytes(_unshared(tensors), {METADATA_KEY: text}))


def read(
    path: str | os.PathLike[str], device: torch.device | str, build: Callable[[str, str], Built]
) -> Built:
    """Return the module of a file on a device, with the tensors of the file.

    `build` builds it without weights from the name of the file and its description, or raises.

    Raises: NetworkFileError, DeviceError, as `load`.
    """
    name = os.fspath(_check_path(path))
    where = device_of(device, meta=False)
    try:
        with open(path, "rb"), safe_open(path, "pt", device=str(where)) as file:
            about = (file.metadata() or {}).get(METADATA_KEY)
            if about is None:
                raise unreadable_file(name, "a safetensors file of something else")
            network = build(name, about)
            # Copied, because the tensors are mapped to the file, which may change.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise missing_file(name, error) from None
    except SafetensorError:
        raise unreadable_file(name, "no safetensors file, or only a part of one") from None
    if mismatch := tensor_mismatch(network, tensors):
        raise unreadable_file(name, mismatch)
    # Some modules read the version of their state from its metadata.
    state = OrderedDict(tensors)
    state._metadata = getattr(network.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    try:
        network.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError) as error:
        raise unreadable_file(
            name, f"weights that it does not take ({first_line(error)})"
        ) from None
    return network


def check_suffix(path: str | os.PathLike[str], allowed: Sequence[str] = (SUFFIX,)) -> str:
    """Return the suffix of a path, one of those allowed.

    Raises: OutputError for another suffix; SettingError for a value that is no path.
    """
    suffix = Path(_check_path(path)).suffix.lower()
    if suffix not in allowed:
        raise OutputError.because(
            "unknown format of a network",
            got=Path(path).name,
            allowed=", ".join(allowed),
            remedy="end the name with it" if len(allowed) == 1 else "end the name with one of them",
        )
    return suffix


def _check_path(path: Any) -> Any:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise wrong_type("path", path, "a str or a Path", f"write it like net{SUFFIX}")
    if "\0" in os.fspath(path):
        raise SettingError.because(
            "wrong path",
            got=repr(path),
            allowed="a name of a file",
            argument="path",
            remedy=f"write it like net{SUFFIX}",
        )
    return path


def parse_description(name: str, text: str) -> dict[str, Any]:
    """Parse the description of a file and check its version, which is left out.

    Raises: NetworkFileError for another version; one of `MALFORMED` for any other text.
    """
    about: dict[str, Any] = json.loads(text)
    version = about.pop("format")
    if type(version) is not int or version != FORMAT_VERSION:
        raise unreadable_file(name, f"format version {shortened(version)}, not {FORMAT_VERSION}")
    return about


def _build(name: str, text: str) -> Network:
    """Build the network that the metadata describes, without weights."""
    try:
        about = parse_description(name, text)
        if STEPS_KEY in about:
            raise NetworkFileError.because(
                f"{name} is a network that was changed after it was built",
                got="a file with steps",
                allowed="a network of ifspace's own parts without any",
                remedy="read it with ifspace.models.load",
            )
        return build_described(about)
    except NetworkFileError:
        raise
    except MALFORMED as error:
        raise senseless_description(name, error) from None


def tensor_mismatch(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return how tensors differ from those of a network, "" if they do not."""
    state = network.state_dict()
    wrong = [
        name
        for name in sorted(state.keys() | tensors.keys())
        if name not in state or name not in tensors or not _fits(tensors[name], state[name])
    ]
    others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"weights that are not those of its description: {wrong[0]}{others}" if wrong else ""


def _fits(tensor: torch.Tensor, parameter: torch.Tensor) -> bool:
    dtypes = FLOATS if parameter.is_floating_point() else (parameter.dtype,)
    same = tensor.shape == parameter.shape and tensor.dtype in dtypes
    return same and tensor.layout == torch.strided


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous tensors; those that share memory are copied, for a file holds each once."""
    unshared: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        contiguous = tensor.contiguous()
        storage = contiguous.untyped_storage().data_ptr()
        unshared[name] = contiguous.clone() if storage in storages else contiguous
        storages.add(storage)
    return unshared


def missing_file(name: str, error: OSError, suffix: str = SUFFIX) -> NetworkFileError:
    """Return the error for a file that the operating system cannot open."""
    return NetworkFileError.because(
        "network cannot be read",
        got=f"{name} ({error.strerror or type(error).__name__})",
        allowed=f"a readable {suffix} file",
        remedy=f"check the name, or write one with {WRITERS}"
        if suffix == SUFFIX
        else "check its name",
    )


def senseless_description(name: str, error: Exception) -> NetworkFileError:
    """Return the error for a description that cannot be read, with the field if that is known."""
    finding = f" ({error.finding})" if isinstance(error, IfspaceError) else ""
    return unreadable_file(name, f"a description that makes no sense{finding}")


def unreadable_file(
    name: str, got: str, remedy: str = f"write it anew with {WRITERS}"
) -> NetworkFileError:
    """Return the error for a file that is no network or a damaged one."""
    return NetworkFileError.because(
        f"{name} is not a network that can be read",
        got=got,
        allowed=f"a whole {SUFFIX} file written by ifspace",
        remedy=remedy,
    )
