"""Networks in files: safetensors with the weights, and in the metadata how the network is made.

Metadata key `ifspace` holds JSON: the version of this format, the layout, the style. Nothing of it
is code, and reading it back needs ifspace alone.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
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
from ifspace.stages.layout import (
    layout_from_json,
    layout_json,
)
from ifspace.storage import replacing

SUFFIX: Final = ".safetensors"
WRITERS: Final = "`ifspace layout --save` or `ifspace optimize --save`"
FORMAT_VERSION: Final = 1
METADATA_KEY: Final = "ifspace"
# Stands in the description of a network that was changed: `ifspace.models` reads those.
STEPS_KEY: Final = "edits"
# What reading a description that nobody wrote may raise: of RuntimeErrors one is RecursionError,
# another what torch says of sizes that no memory has.
SENSELESS: Final = (
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
            "network",
            network,
            "a Network, of build_network or named_network",
            "ifspace.models.save keeps other modules",
        )
    text = json.dumps({"format": FORMAT_VERSION, **described(network)})
    write(path, text, tensors_of(network), lambda: _built(os.fspath(path), text))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Network:
    """Return the network that was saved in a .safetensors file, on a device, in training mode.

    Raises: NetworkFileError when there is no such file, or it is truncated, not a network of
        ifspace, of another version, or its weights are not those of its layout; DeviceError for a
        device that is not there or holds no values.
    """
    return read(path, device, _built)


def described(network: Network) -> dict[str, Any]:
    """Return what a file says of how a network is made: layout and style."""
    return {"layout": layout_json(network.layout), "style": asdict(network.style)}


def from_description(about: Mapping[str, Any]) -> Network:
    """Return the network of what `described` returned, on the meta device.

    Raises: one of `SENSELESS` for anything else.
    """
    layout = layout_from_json(about["layout"])
    # Whatever is said beside is not understood, and could matter.
    if about != {"layout": layout_json(layout), "style": about["style"]}:
        raise ValueError("more than is known")
    return Network(layout, NetworkStyle(**about["style"]), device="meta")


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights and running statistics of a module.

    Raises: OutputError for a module without values.
    """
    tensors = {
        # Parts that were compiled have their own name for what they wrap.
        name.replace("_orig_mod.", ""): each.detach()
        for name, each in module.state_dict().items()
    }
    if any(each.is_meta for each in tensors.values()):
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
    rebuilt: Callable[[], nn.Module],
) -> None:
    """Write a file with a description and tensors, if what it describes takes them back.

    `rebuilt` makes that, weights apart, as a reader will.

    Raises: OutputError when it cannot be made, has other tensors, or the file cannot be written.
    """
    try:
        wrong = other_tensors(rebuilt(), tensors)
    except NetworkFileError:
        wrong = "a description that no file can hold"
    if wrong:
        raise OutputError.because(
            "a network that could not be read back",
            got=wrong,
            allowed="the weights of what its description makes",
            remedy="undo what was changed by hand, or keep the state_dict yourself",
        )
    with replacing(path) as file:
        # Not safetensors' own writer: its files are for their owner alone, whatever the umask.
        file.write_bytes(to_bytes(_apart(tensors), {METADATA_KEY: text}))


def read(
    path: str | os.PathLike[str], device: torch.device | str, built: Callable[[str, str], Built]
) -> Built:
    """Return the module of a file on a device, with the tensors of the file.

    `built` makes it, weights apart, of the file's name and description; it may refuse both.

    Raises: NetworkFileError, DeviceError, as `load`.
    """
    name = os.fspath(_checked(path))
    where = device_of(device, meta=False)
    try:
        with open(path, "rb"), safe_open(path, "pt", device=str(where)) as file:
            about = (file.metadata() or {}).get(METADATA_KEY)
            if about is None:
                raise unreadable(name, "a safetensors file of something else")
            network = built(name, about)
            # Copies: what is read lies in the file, which may change under it.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise missing(name, error) from None
    except SafetensorError:
        raise unreadable(name, "no safetensors file, or only a part of one") from None
    if wrong := other_tensors(network, tensors):
        raise unreadable(name, wrong)
    # Some modules read in their state how old it is.
    state = OrderedDict(tensors)
    state._metadata = getattr(network.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    try:
        network.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError) as error:
        raise unreadable(name, f"weights that it does not take ({first_line(error)})") from None
    return network


def check_suffix(path: str | os.PathLike[str], allowed: Sequence[str] = (SUFFIX,)) -> str:
    """Return the suffix of a name, and refuse one that does not say what the file is.

    Raises: OutputError; SettingError for what is no path.
    """
    suffix = Path(_checked(path)).suffix.lower()
    if suffix not in allowed:
        raise OutputError.because(
            "unknown format of a network",
            got=Path(path).name,
            allowed=", ".join(allowed),
            remedy="end the name with it" if len(allowed) == 1 else "end the name with one of them",
        )
    return suffix


def _checked(path: Any) -> Any:
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


def parsed(name: str, text: str) -> dict[str, Any]:
    """Return the description of a file, without its version.

    Raises: NetworkFileError for another version; one of `SENSELESS` for what is no description.
    """
    about: dict[str, Any] = json.loads(text)
    version = about.pop("format")
    if type(version) is not int or version != FORMAT_VERSION:
        raise unreadable(name, f"format version {shortened(version)}, not {FORMAT_VERSION}")
    return about


def _built(name: str, text: str) -> Network:
    """Return the network that the metadata describes, without weights yet."""
    try:
        about = parsed(name, text)
        if STEPS_KEY in about:
            raise unreadable(name, "a network with steps", "read it with ifspace.models.load")
        return from_description(about)
    except NetworkFileError:
        raise
    except SENSELESS:
        raise unreadable(name, "a description that makes no sense") from None


def other_tensors(network: nn.Module, found: Mapping[str, torch.Tensor]) -> str:
    """Return how tensors differ from those that a network has; nothing where they do not."""
    wanted = network.state_dict()
    wrong = [
        key
        for key in sorted(wanted.keys() | found.keys())
        if key not in wanted or key not in found or not _fits(found[key], wanted[key])
    ]
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"weights that are not those of its description: {wrong[0]}{more}" if wrong else ""


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


def missing(name: str, error: OSError, suffix: str = SUFFIX) -> NetworkFileError:
    """Return the refusal of a file that the system does not give."""
    return NetworkFileError.because(
        "network cannot be read",
        got=f"{name} ({error.strerror or type(error).__name__})",
        allowed=f"a readable {suffix} file",
        remedy=f"check the name, or write one with {WRITERS}"
        if suffix == SUFFIX
        else "check its name",
    )


def unreadable(
    name: str, got: str, remedy: str = f"write it anew with {WRITERS}"
) -> NetworkFileError:
    """Return the refusal of a file that is there and is no network."""
    return NetworkFileError.because(
        f"{name} is not a network that can be read",
        got=got,
        allowed=f"a whole {SUFFIX} file written by ifspace",
        remedy=remedy,
    )
