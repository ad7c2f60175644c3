"""Networks in files: safetensors with the weights, and in the metadata how the network is made.

Metadata key `ifspace` holds JSON: the version of this format, the layout, the style. Nothing of it
is code, and reading it back needs ifspace alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from ifspace.catalogue.files import replacing
from ifspace.errors import IfspaceError, OutputError, SettingError
from ifspace.nn.checks import FLOATS, device_of, unwrapped, wrong_type
from ifspace.nn.networks import Network
from ifspace.nn.styles import NetworkStyle
from ifspace.plan.layout_json import from_json, to_json

SUFFIX: Final = ".safetensors"
FORMAT_VERSION: Final = 1
METADATA_KEY: Final = "ifspace"


class NetworkFileError(IfspaceError, ValueError):
    """A file of a network that is missing, truncated, foreign, or of another version."""


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write the network to a .safetensors file: weights, running statistics, layout and style.

    The file appears whole or not at all; on failure an older file of that name stays as it was.
    Equal networks make equal bytes. What `torch.compile` made of a network is saved as the network.

    Raises: OutputError for another suffix, or when the file cannot be written there; it too when
        the network has no weights, or others than those of its layout, so that `load` would refuse
        the file; SettingError for what is no network.
    """
    check_suffix(path)
    network = unwrapped(network)
    if not isinstance(network, Network):
        raise wrong_type(
            "network", network, "a Network, of build_network or named_network",
            "keep the state_dict of other modules with safetensors.torch",
        )  # fmt: skip
    tensors = {
        # Parts that were compiled have their own name for what they wrap.
        name.replace("_orig_mod.", ""): each.detach()
        for name, each in network.state_dict().items()
    }
    if any(each.is_meta for each in tensors.values()):
        raise OutputError.because(
            "a network without weights", got="tensors on the meta device",
            allowed="a network on a CPU or a GPU", remedy="build it there",
        )  # fmt: skip
    about = {
        "format": FORMAT_VERSION,
        "layout": to_json(network.layout),
        "style": asdict(network.style),
    }
    text = json.dumps(about)
    _check_readable(os.fspath(path), text, tensors)
    with replacing(path) as file:
        # Not safetensors' own writer: its files are for their owner alone, whatever the umask.
        file.write_bytes(to_bytes(_apart(tensors), {METADATA_KEY: text}))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Network:
    """Return the network that was saved in a .safetensors file, on a device, in training mode.

    Raises: NetworkFileError when there is no such file, or it is truncated, not a network of
        ifspace, of another version, or its weights are not those of its layout; DeviceError for a
        device that is not there or holds no values.
    """
    name = os.fspath(_checked(path))
    where = device_of(device, meta=False)
    try:
        with open(path, "rb"), safe_open(path, "pt", device=str(where)) as file:
            about = (file.metadata() or {}).get(METADATA_KEY)
            if about is None:
                raise _unreadable(name, "a safetensors file of something else")
            network = _built(name, about)
            # Copies: what is read lies in the file, which may change under it.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise NetworkFileError.because(
            "network cannot be read", got=f"{name} ({error.strerror or type(error).__name__})",
            allowed=f"a readable {SUFFIX} file",
            remedy=f"write one with `ifspace layout --save FILE{SUFFIX}`",
        ) from None  # fmt: skip
    except SafetensorError:
        raise _unreadable(name, "no safetensors file, or only a part of one") from None
    if wrong := _other_tensors(network, tensors):
        raise _unreadable(name, wrong)
    network.load_state_dict(tensors, assign=True)
    return network


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a name that does not say what the file is.

    Raises: OutputError; SettingError for what is no path.
    """
    if Path(_checked(path)).suffix.lower() != SUFFIX:
        raise OutputError.because(
            "unknown format of a network", got=Path(path).name, allowed=SUFFIX,
            remedy="end the name with it",
        )  # fmt: skip


def _checked(path: Any) -> Any:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise wrong_type("path", path, "a str or a Path", f"write it like net{SUFFIX}")
    if "\0" in os.fspath(path):
        raise SettingError.because(
            "wrong path", got=repr(path), allowed="a name of a file", argument="path",
            remedy=f"write it like net{SUFFIX}",
        )  # fmt: skip
    return path


def _check_readable(name: str, text: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse what `load` would refuse of a file with this description and these weights.

    Raises: OutputError.
    """
    try:
        wrong = _other_tensors(_built(name, text), tensors)
    except NetworkFileError:
        wrong = "a layout or a style that no file can hold"
    if wrong:
        raise OutputError.because(
            "a network that could not be read back", got=wrong,
            allowed="the weights of its layout and style, as build_network makes them",
            remedy="change the layout and build anew, or keep the state_dict yourself",
        )  # fmt: skip


def _built(name: str, text: str) -> Network:
    """Return the network that the metadata describes, without weights yet."""
    try:
        about: dict[str, Any] = json.loads(text)
        version = about["format"]
        if type(version) is not int or version != FORMAT_VERSION:
            raise _unreadable(name, f"format version {shortened(version)}, not {FORMAT_VERSION}")
        layout = from_json(about["layout"])
        # Whatever is said beside is not understood, and could matter.
        known = {"format": version, "layout": to_json(layout), "style": about["style"]}
        if about != known:
            raise ValueError("more than is known")
        return Network(layout, NetworkStyle(**about["style"]), device="meta")
    except NetworkFileError:
        raise
    except (IfspaceError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError,
            RuntimeError):  # fmt: skip
        # Of those RecursionError is one, and what torch says of sizes that no memory has.
        raise _unreadable(name, "a description that makes no sense") from None


def _other_tensors(network: Network, found: Mapping[str, torch.Tensor]) -> str:
    """Return how tensors differ from those that the network has; nothing where they do not."""
    wanted = network.state_dict()
    wrong = [
        key
        for key in sorted(wanted.keys() | found.keys())
        if key not in wanted or key not in found or not _fits(found[key], wanted[key])
    ]
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"weights that are not those of its layout: {wrong[0]}{more}" if wrong else ""


def _fits(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    types = FLOATS if wanted.is_floating_point() else (wanted.dtype,)
    same = found.shape == wanted.shape and found.dtype in types
    return same and found.layout == torch.strided


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors in rows, those that share memory copied: a file holds each by itself."""
    made: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, each in tensors.items():
        rows = each.contiguous()
        place = rows.untyped_storage().data_ptr()
        made[name] = rows.clone() if place in seen else rows
        seen.add(place)
    return made


def _unreadable(name: str, got: str) -> NetworkFileError:
    return NetworkFileError.because(
        f"{name} is not a network that can be read", got=got,
        allowed=f"a whole {SUFFIX} file written by ifspace",
        remedy=f"write it anew with `ifspace layout --save FILE{SUFFIX}`",
    )  # fmt: skip
