"""Save networks, changed ones too: weights with a description, ONNX, or an exported program.

The description is that of `ifspace.nn.files` or, for other networks, their source and the steps
that changed them. It holds no code: a network from a user's Python file needs that file again.

Reading a file runs no code that the file names or holds unless the caller says that it is trusted:
a Python file is code, and so is an exported program, which torch unpickles.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from ifspace.errors import ARGUMENT, IfspaceError, KernelError, OutputError, SettingError
from ifspace.models.edits import EditedNetwork, Edits
from ifspace.models.python_source import save_source
from ifspace.models.sources import code_file, digest_of, from_source, part_of
from ifspace.models.surgery import copy_of_network
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
from ifspace.storage import read_bytes, replacing

WEIGHTS: Final = files.SUFFIX
ONNX: Final = ".onnx"
PROGRAM: Final = ".pt2"
SOURCE: Final = ".py"
SUFFIXES: Final = (WEIGHTS, ONNX, PROGRAM)
# Of the name of a network's file, its source and its digest: the Python file to run.
FindCode = Callable[[str, str, str | None], Path]
_NETWORK: Final = "network"  # key in files of the description of an ifspace network


def save(
    network: nn.Module | EditedNetwork, path: str | os.PathLike[str], x: Image | None = None
) -> None:
    """Write a network: .safetensors to be loaded again, .onnx and .pt2 to be run, .py as source.

    `network`: what `reorganize`, `decompose` or `from_source` returned, or any module. A module
    alone does not say where it comes from nor what was done to it, so `load` needs it again.

    A .safetensors file has the weights and the description; that of an ifspace network without
    steps is the file of `ifspace.nn.save`. .onnx and .pt2 files are programs in evaluation mode for
    images of one size and any number; `x`, an image [N, C, H, W] or its size (C, H, W), is needed
    where the record has no image size. A .pt2 program of a network that torch can only export for
    one image takes one. A .py file is the network in plain torch, its blocks as classes, for images
    of this size and any number; it needs neither ifspace nor the source, and its weights are beside
    it as .pt.

    The file is written as a whole or not at all.

    Raises: OutputError for another suffix, a path that cannot be written, a network without
        values, or one that `load` could not make again; SettingError if the image size is not
        known; DeviceError if packages for ONNX are missing; KernelError if torch cannot export it.
    """
    suffix = files.check_suffix(path, (*SUFFIXES, SOURCE))
    edited = EditedNetwork.of(network)
    model = checked_model(edited.model)
    if suffix == WEIGHTS:
        _save_weights(model, edited.edits, path)
    elif suffix == ONNX:
        export_onnx(model, _example(edited, x), path)
    elif suffix == SOURCE:
        title = edited.edits.source or type(model).__name__
        if code_file(title) is not None:
            title = title.rpartition(":")[2]  # not the folders of this machine
        save_source(model, _example(edited, x), path, title)
    else:
        _save_program(edited, _example(edited, x), path)


def load(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    into: nn.Module | EditedNetwork | None = None,
    *,
    trust_code: bool = False,
    code: str | os.PathLike[str] | None = None,
    part: str | None = None,
) -> nn.Module:
    """Return the network of a file on a device: its weights in the module it describes.

    Networks of ifspace's parts, of timm and of torchvision need nothing but the file (and that
    package). A network of a Python file needs that file again. It is run, so only with
    `trust_code`, and only if it has not changed; it is looked for beside the network's file, or is
    `code`, its path. For a module that the user made, `into` is such a module before the steps, or
    the `EditedNetwork` after some or all of them; it is copied, and nothing is run. A .pt2 file
    gives the module of the program, which stays in evaluation mode; torch unpickles it, which can
    run any code, so it needs `trust_code` too. Trust only files of people whose programs you would
    run. `part`: the full name of one of its modules, which is returned instead.

    Raises: NetworkFileError for a file that is missing or no such network, that needs code that is
        not trusted, or whose source is missing, in one line that says which; DeviceError for a
        device that is not there; SettingError for a part that it does not have.
    """
    model = load_edited(path, device, into, trust_code=trust_code, code=code).model
    return model if part is None else part_of(model, part)


def load_edited(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    into: nn.Module | EditedNetwork | None = None,
    *,
    trust_code: bool = False,
    code: str | os.PathLike[str] | None = None,
) -> EditedNetwork:
    """Return the network of a file with its record, to be changed and saved again.

    Arguments and errors are those of `load`. The record of a .pt2 program is empty.
    """
    suffix = files.check_suffix(path, (*SUFFIXES, SOURCE))
    if suffix == SOURCE:
        raise files.unreadable_file(
            os.fspath(path),
            "Python source",
            "import it and call its load(), which needs no ifspace",
        )
    if suffix == ONNX:
        raise files.unreadable_file(
            os.fspath(path), "an ONNX file", "run it with ONNX Runtime, or load the .safetensors"
        )
    if suffix == PROGRAM:
        return EditedNetwork(_program(path, device, trust_code), Edits())
    find_code = _Code(Path(path).parent, trust_code, None if code is None else Path(code)).find
    edits = Edits()

    def build(name: str, text: str) -> nn.Module:
        nonlocal edits
        edited = _described(name, text, into, find_code)
        edits = _located(Path(path).parent, edited.edits)
        return edited.model

    model = files.read(path, device, build)
    # What no state_dict holds is still on the device it was made on.
    return EditedNetwork(model.to(device_of(device, meta=False)), edits)


def _save_weights(model: nn.Module, edits: Edits, path: str | os.PathLike[str]) -> None:
    if isinstance(model, Network) and not edits.steps:
        return files.save(model, path)
    layout = files.describe_network(model) if isinstance(model, Network) else None
    steps = _seen_from(Path(path).parent, edits).to_json()
    about = {"format": files.FORMAT_VERSION, _NETWORK: layout, files.STEPS_KEY: steps}
    text = json.dumps(about)
    name = os.fspath(path)
    tensors = files.tensors_of(model)
    if layout is None and edits.source is None:
        # Only its user can make it again: the module itself takes the weights back.
        return files.write(path, text, tensors, lambda: model)
    # Its source was run to make the network, so it can be run to check the file.
    own_code = None if edits.source is None else code_file(edits.source)

    def build() -> nn.Module:
        return _described(name, text, None, lambda *_: own_code or Path()).model

    files.write(path, text, tensors, lambda: _on_meta(build))


def _seen_from(folder: Path, edits: Edits) -> Edits:
    """Return a record whose Python file is named by its path from a folder."""
    file = None if edits.source is None else code_file(edits.source)
    if file is None or edits.source is None:
        return edits
    factory = edits.source.rpartition(":")[2]
    try:
        relative = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        relative = file.name
    return replace(edits, source=f"{relative}:{factory}")


def _located(folder: Path, edits: Edits) -> Edits:
    """Return a record whose Python file is named in full; `folder` is what its path starts from."""
    file = None if edits.source is None else code_file(edits.source)
    if file is None or edits.source is None:
        return edits
    return replace(edits, source=f"{(folder / file).resolve()}:{edits.source.rpartition(':')[2]}")


@dataclass(frozen=True, slots=True)
class _Code:
    """Where the Python file of a saved network is, and whether it may be run."""

    folder: Path
    trusted: bool
    given: Path | None

    def find(self, name: str, source: str, digest: str | None) -> Path:
        """Return the Python file that `source` names: the one given, or the one in the folder.

        The folders in `source` are where it was when the network was saved. They are not followed:
        a file from elsewhere could name any program of this machine.

        Raises: NetworkFileError unless it is there, trusted, and the file of that digest.
        """
        file = self.given or self.folder / Path(source.rpartition(":")[0].replace("\\", "/")).name
        if not file.is_file():
            raise NetworkFileError.because(
                f"{name} needs {source}",
                got=f"no file {file}",
                allowed="that file there, its path as code, or load(path, into=model)",
                remedy=f"when it was saved it was {source.rpartition(':')[0]}, seen from the "
                "network's file: move that beside it",
            )
        if not self.trusted:
            raise _untrusted(name, f"{file}, which would be run")
        if digest is not None and digest_of(file) != digest:
            raise NetworkFileError.because(
                f"{name} was made from another {file.name}, or from this one before it changed",
                got=f"{file}",
                allowed="the file as it was, which is run",
                argument="into",
                remedy="make the network yourself, and give it as into",
            )
        return file


def _untrusted(name: str, what: str) -> NetworkFileError:
    return NetworkFileError.because(
        f"{name} cannot be loaded without running code",
        got=what,
        allowed="code that you trust",
        remedy=f"read it, and if you trust it say so with {ARGUMENT}",
        argument="trust_code",
    )


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a module made on the meta device, or with values where its maker needs them."""
    try:
        with torch.device("meta"):
            return make()
    except NetworkFileError:
        return make()


def _described(
    name: str, text: str, into: nn.Module | EditedNetwork | None, find_code: FindCode
) -> EditedNetwork:
    """Return the network that a description makes, without its weights."""
    try:
        about = files.parse_description(name, text)
        if files.STEPS_KEY not in about:
            return EditedNetwork.of(files.build_described(about))
        edits = Edits.from_json(about[files.STEPS_KEY])
        layout = about[_NETWORK]
        if about != {_NETWORK: layout, files.STEPS_KEY: edits.to_json()}:
            raise ValueError("more than is known")
        own = None if layout is None else files.build_described(layout)
    except NetworkFileError:
        raise
    except files.MALFORMED as error:
        raise files.senseless_description(name, error) from None
    base = (
        _before_steps(name, edits, into, find_code) if own is None else EditedNetwork(own, Edits())
    )
    applied = base.edits.steps
    try:
        if edits.steps[: len(applied)] != applied:
            raise SettingError("other steps were done to it")
        with seeded(0, None):  # drawn weights are replaced: torch's generators stay as they are
            model = base.apply(*edits.steps[len(applied) :]).model
    except IfspaceError as error:
        raise NetworkFileError.because(
            f"{name} was made from another network",
            got=error.finding,
            allowed="the network that its steps were done to",
            argument="into",
            remedy="give a fresh one of those as into, or none",
        ) from None
    return EditedNetwork(model, replace(edits, source=base.edits.source or edits.source))


def _before_steps(
    name: str, edits: Edits, into: nn.Module | EditedNetwork | None, find_code: FindCode
) -> EditedNetwork:
    """Return the network to which the steps of a file are still to be applied.

    Raises: NetworkFileError when it cannot be made.
    """
    if into is not None:
        base = EditedNetwork.of(into)
        return EditedNetwork(copy_of_network(checked_model(base.model)), base.edits)
    if edits.source is None:
        raise NetworkFileError.because(
            f"{name} needs the network that it was saved from",
            got="a file without its source",
            allowed="load(path, into=model)",
            remedy="make that network, and give it as into",
        )
    source = edits.source
    if code_file(source) is not None:
        source = f"{find_code(name, source, edits.digest)}:{source.rpartition(':')[2]}"
    try:
        return from_source(
            source, edits.image or (3, 224, 224), edits.classes, seed=0, part=edits.part
        )
    except NetworkFileError:
        raise
    except IfspaceError as error:
        remedy = str(error).rpartition("; ")[2]
        raise NetworkFileError.because(
            f"{name} needs {source}",
            got=error.finding,
            allowed="what it was made from, or such a network by load(path, into=model)",
            remedy=remedy,
        ) from None


def _example(network: EditedNetwork, x: Image | None) -> Tensor:
    size = x if x is not None else network.edits.image
    if size is None:
        raise SettingError.because(
            "image size is not known",
            got="a network without a record of it",
            argument="x",
            allowed="an image [N, C, H, W], or its size (C, H, W)",
            remedy="give it: save(network, path, x=(3, 224, 224))",
        )
    return image_for(network.model, size)


def _save_program(network: EditedNetwork, example: Tensor, path: str | os.PathLike[str]) -> None:
    model = network.model
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
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
    extra = {files.METADATA_KEY: json.dumps(network.edits.to_json())}
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file, extra_files=extra)


def _program(path: str | os.PathLike[str], device: Any, trusted: bool) -> nn.Module:
    where, name = device_of(device, meta=False), os.fspath(path)
    try:
        data = BytesIO(read_bytes(path))
    except OSError as error:
        raise files.missing_file(name, error, PROGRAM) from None
    if not trusted:
        raise _untrusted(name, "an exported program, which torch unpickles")
    try:
        with _quiet("torch"):
            program = torch.export.load(data)
    except Exception:
        raise files.unreadable_file(
            name, "no exported program, or only a part of one", "save the network anew"
        ) from None
    moved = program if where.type == "cpu" else move_to_device_pass(program, where)
    return moved.module()


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Log nothing to the handlers of a logger: torch logs the traceback of what it also raises."""
    loggers = [
        child
        for name, child in logging.root.manager.loggerDict.items()
        if isinstance(child, logging.Logger) and f"{name}.".startswith(f"{logger}.")
    ]
    before = [child.disabled for child in loggers]
    for child in loggers:
        child.disabled = True
    try:
        yield
    finally:
        for child, disabled in zip(loggers, before, strict=True):
            child.disabled = disabled
