"""Modules as ONNX files: rolling pointwise layers written out, weights kept as initialisers."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ifspace.catalogue.files import replacing
from ifspace.errors import DeviceError, OutputError
from ifspace.kernels.decompose import decompositions

_NEEDED = ("onnx", "onnxscript")


def export_onnx(module: nn.Module, example: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a module as it is in evaluation, of one input like `example` [N, C, ...], as ONNX.

    The batch size stays open, all other sizes are those of the example. The file has everything in
    it: the weights are its initialisers. The input is called "x", the output "y".

    Raises: DeviceError when the packages for it are missing; OutputError for a path that does not
        end in .onnx or cannot be written.
    """
    if Path(path).suffix.lower() != ".onnx":
        raise OutputError.because(
            "not the name of an ONNX file", got=os.fspath(path),
            allowed="a name that ends in .onnx", remedy="write it like block.onnx", argument="path",
        )  # fmt: skip
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise DeviceError.because(
            "packages for ONNX are missing", got=f"no {', no '.join(missing)}",
            allowed=" and ".join(_NEEDED), remedy="install ifspace[onnx]",
        )  # fmt: skip
    program = exported(module, example)
    with replacing(path) as temporary, _without_noise():
        torch.onnx.export(
            program, f=temporary, dynamo=True, external_data=False, verbose=False,
            input_names=["x"], output_names=["y"], dynamic_shapes=({0: "batch"},),
        )  # fmt: skip


def exported(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return the program of a module in evaluation, free of operators that torch does not have."""
    # A batch of one would be taken for a constant.
    batch = torch.cat([example, example]) if example.shape[0] < 2 else example
    with _evaluated(module), torch.no_grad(), _without_noise():
        program = torch.export.export(
            module, (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        decomposed: torch.export.ExportedProgram = program.run_decompositions(decompositions())
    return decomposed


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    trained = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keep back two remarks of torch 2.13 about itself; all others are let through."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def other(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    log.addFilter(other)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        log.removeFilter(other)
