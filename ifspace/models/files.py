"""Networks in files, changed ones too: weights with a description, ONNX, or an exported program.

The description is that of `ifspace.nn.files` or, for other networks, where they come from and the
steps that changed them. None of it is code: what comes from a person's file needs that file again.
"""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from ifspace.errors import IfspaceError, KernelError, OutputError, SettingError
from ifspace.models.edits import Edits, applied, attach, edits_of
from ifspace.models.sources import digest_of, network
from ifspace.models.tracing import (
    Image,
    checked_model,
    image_for,
)
from ifspace.nn import files
from ifspace.nn.checks import device_of
from ifspace.nn.export import export_onnx, exported
from ifspace.nn.files import NetworkFileError
from ifspace.nn.network import (
    Network,
    seeded,
)
from ifspace.storage import replacing

WEIGHTS: Final = files.SUFFIX
ONNX: Final = ".onnx"
PROGRAM: Final = ".pt2"
SUFFIXES: Final = (WEIGHTS, ONNX, PROGRAM)
_MADE: Final = "network"


def save(model: nn.Module, path: str | os.PathLike[str], x: Image | None = None) -> None:
    """Write a network: .safetensors to be loaded again, .onnx and .pt2 to be run.

    .safetensors has the weights and the description, that of `ifspace.nn.save` where the network is
    one of ours without steps. .onnx and .pt2 are programs in evaluation for images of one size and
    any number; `x`, an image or its size (C, H, W), is for networks that do not know theirs. A
    .pt2 program of a network that torch can only export for one image takes one.

    The file appears whole or not at all.

    Raises: OutputError for another suffix, a place that cannot be written, a network without
        values, or one that `load` could not make again; SettingError when the image size is not
        known; DeviceError when packages for ONNX are missing; KernelError when torch cannot export.
    """
    suffix = files.check_suffix(path, SUFFIXES)
    model = checked_model(model)
    if suffix == WEIGHTS:
        _save_weights(model, path)
    elif suffix == ONNX:
        export_onnx(model, _example(model, x), path)
    else:
        _save_program(model, _example(model, x), path)


def load(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", into: nn.Module | None = None
) -> nn.Module:
    """Return the network of a file on a device: its weights in what its description makes.

    Networks of ifspace's parts need nothing but the file; those of timm, torchvision or a Python
    file need that again: the Python file is run, from the folder that one is in, if it is still the
    same. For a module that a person made, `into` is such a module, as it was before
    the steps or with them done; it is copied. A .pt2 file gives a module of the program, which
    stays in evaluation.

    Raises: NetworkFileError for a file that is missing or no such network, or when what it comes
        from is missing, in one line that says what; DeviceError for a device that is not there.
    """
    suffix = files.check_suffix(path, SUFFIXES)
    if suffix == ONNX:
        raise files.unreadable(
            os.fspath(path), "an ONNX file", "run it with ONNX Runtime, or load the .safetensors"
        )
    if suffix == PROGRAM:
        return _program(path, device)

    def built(name: str, text: str) -> nn.Module:
        return _built(name, text, into)

    found = files.read(path, device, built)
    # What no state_dict holds stands where it was made.
    return found.to(device_of(device, meta=False))


def _save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    edits = edits_of(model)
    if isinstance(model, Network) and not edits.steps:
        return files.save(model, path)
    made = files.described(model) if isinstance(model, Network) else None
    about = {"format": files.FORMAT_VERSION, _MADE: made, files.STEPS_KEY: edits.to_json()}
    text = json.dumps(about)
    name = os.fspath(path)
    tensors = files.tensors_of(model)
    if made is None and edits.source is None:
        # Nobody else can make it: it takes back what it has.
        return files.write(path, text, tensors, lambda: model)
    files.write(path, text, tensors, lambda: _in_shape(lambda: _built(name, text, None)))


def _in_shape(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what is made on the meta device, or with values where its maker needs them."""
    try:
        with torch.device("meta"):
            return make()
    except NetworkFileError:
        return make()


def _built(name: str, text: str, into: nn.Module | None) -> nn.Module:
    """Return the network that a description makes, without its weights."""
    try:
        about = files.parsed(name, text)
        if files.STEPS_KEY not in about:
            return files.from_description(about)
        edits = Edits.from_json(about[files.STEPS_KEY])
        made = about[_MADE]
        if about != {_MADE: made, files.STEPS_KEY: edits.to_json()}:
            raise ValueError("more than is known")
        own = None if made is None else files.from_description(made)
    except NetworkFileError:
        raise
    except files.SENSELESS:
        raise files.unreadable(name, "a description that makes no sense") from None
    base = _base(name, edits, into) if own is None else own
    done = edits_of(base).steps if own is None and into is not None else ()
    try:
        if edits.steps[: len(done)] != done:
            raise SettingError("other steps were done to it")
        with seeded(0, None):  # what is drawn is not kept: torch's generators stay as they are
            applied(base, *edits.steps[len(done) :])
    except IfspaceError as error:
        said = str(error).partition("; ")[0].replace(": got ", ", ")
        raise NetworkFileError.because(
            f"{name} was made from another network",
            got=said,
            allowed="the network that its steps were done to",
            argument="into",
            remedy="give a fresh one of those as into, or none",
        ) from None
    attach(base, edits)
    return base


def _base(name: str, edits: Edits, into: nn.Module | None) -> nn.Module:
    """Return the network before its steps.

    Raises: NetworkFileError when it cannot be made.
    """
    if into is not None:
        return deepcopy(checked_model(into))
    if edits.source is None:
        raise NetworkFileError.because(
            f"{name} needs the network that it was saved from",
            got="a file without its source",
            allowed="load(path, into=model)",
            remedy="make that network, and give it as into",
        )
    try:
        if edits.digest is not None and digest_of(edits.source) != edits.digest:
            raise NetworkFileError.because(
                f"{name} was made from another {edits.source.rpartition(':')[0]}",
                got="a file that has changed since, or another of that name",
                allowed="the file as it was, which is run",
                argument="into",
                remedy="make the network yourself, and give it as into",
            )
        return network(edits.source, edits.image or (3, 224, 224), edits.classes, seed=0)
    except NetworkFileError:
        raise
    except IfspaceError as error:
        fact, *_, remedy = str(error).split("; ")
        raise NetworkFileError.because(
            f"{name} needs {edits.source}",
            got=fact.replace(": got ", ", "),
            allowed="what it was made from, or such a network by load(path, into=model)",
            remedy=remedy,
        ) from None


def _example(model: nn.Module, x: Image | None) -> Tensor:
    size = x if x is not None else edits_of(model).image
    if size is None:
        raise SettingError.because(
            "image size is not known",
            got="a network that was never traced",
            argument="x",
            allowed="an image [N, C, H, W], or its size (C, H, W)",
            remedy="give it: save(model, path, x=(3, 224, 224))",
        )
    return image_for(model, size)


def _save_program(model: nn.Module, example: Tensor, path: str | os.PathLike[str]) -> None:
    if any(each.is_meta for each in (*model.parameters(), *model.buffers())):
        raise OutputError.because(
            "a network without weights",
            got="tensors on the meta device",
            allowed="a network on a CPU or a GPU",
            remedy="build it there",
        )
    try:
        program = exported(model, example)
    except KernelError:
        # Some networks look at the number of images; torch then writes down that of the example.
        program = exported(model, example, open_batch=False)
    extra = {files.METADATA_KEY: json.dumps(edits_of(model).to_json())}
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file, extra_files=extra)


def _program(path: str | os.PathLike[str], device: Any) -> nn.Module:
    where, name = device_of(device, meta=False), os.fspath(path)
    try:
        data = BytesIO(Path(path).read_bytes())
    except OSError as error:
        raise files.missing(name, error, PROGRAM) from None
    try:
        program = torch.export.load(data)
    except Exception:
        raise files.unreadable(
            name, "no exported program, or only a part of one", "save the network anew"
        ) from None
    moved = program if where.type == "cpu" else move_to_device_pass(program, where)
    return moved.module()
