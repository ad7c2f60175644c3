"""Networks in files: safetensors with the weights, and in the metadata how the network is made.

Metadata key `ifspace` holds JSON: the version of this format, the layout, the style. Nothing of it
is code, and reading it back needs ifspace alone.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from ifspace.catalogue.files import replacing
from ifspace.errors import IfspaceError, OutputError
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
    Equal networks make equal bytes.

    Raises: OutputError for another suffix, or when the file cannot be written there; it too when
        the network is on the meta device and has no weights.
    """
    check_suffix(path)
    tensors = {name: each.detach().contiguous() for name, each in network.state_dict().items()}
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
    with replacing(path) as file:
        # Not safetensors' own writer: its files are for their owner alone, whatever the umask.
        file.write_bytes(to_bytes(tensors, {METADATA_KEY: json.dumps(about)}))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Network:
    """Return the network that was saved in a .safetensors file, on a device, in training mode.

    Raises: NetworkFileError when there is no such file, or it is truncated, not a network of
        ifspace, of another version, or its weights are not those of its layout.
    """
    name = Path(path).name
    try:
        with open(path, "rb"), safe_open(path, "pt", device=str(device)) as file:
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
    _check_tensors(name, network, tensors)
    network.load_state_dict(tensors, assign=True)
    return network


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a name that does not say what the file is.

    Raises: OutputError.
    """
    if Path(path).suffix.lower() != SUFFIX:
        raise OutputError.because(
            "unknown format of a network", got=Path(path).name, allowed=SUFFIX,
            remedy="end the name with it",
        )  # fmt: skip


def _built(name: str, text: str) -> Network:
    """Return the network that the metadata describes, without weights yet."""
    try:
        about: dict[str, Any] = json.loads(text)
        if about["format"] != FORMAT_VERSION:
            raise _unreadable(name, f"format version {about['format']}, not {FORMAT_VERSION}")
        return Network(from_json(about["layout"]), NetworkStyle(**about["style"]), device="meta")
    except NetworkFileError:
        raise
    except (IfspaceError, ValueError, KeyError, TypeError):
        raise _unreadable(name, "a description that makes no sense") from None


def _check_tensors(name: str, network: Network, found: dict[str, torch.Tensor]) -> None:
    wanted = network.state_dict()
    wrong = [
        key
        for key in sorted(wanted.keys() | found.keys())
        if key not in wanted or key not in found or wanted[key].shape != found[key].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise _unreadable(name, f"weights that are not those of its layout: {wrong[0]}{more}")


def _unreadable(name: str, got: str) -> NetworkFileError:
    return NetworkFileError.because(
        f"{name} is not a network that can be read", got=got,
        allowed=f"a whole {SUFFIX} file written by ifspace",
        remedy=f"write it anew with `ifspace layout --save FILE{SUFFIX}`",
    )  # fmt: skip
