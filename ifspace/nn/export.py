"""Modules as ONNX files: rolling pointwise layers in standard operators, weights included."""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ifspace.errors import DeviceError, IfspaceError, KernelError, OutputError, SettingError
from ifspace.kernels.chain.operator import decompositions as chain_decompositions
from ifspace.kernels.rpw.operator import decompositions as rpw_decompositions
from ifspace.nn.block import BlockModule
from ifspace.nn.checks import evaluated, first_line, unwrapped, wrong_type
from ifspace.storage import replacing

_NEEDED = ("onnx", "onnxscript")
# The key of the metadata that says which blocks a file has, for profiles of it.
BLOCKS_KEY: Final = "ifspace_blocks"


def export_onnx(module: nn.Module, example: Tensor, path: str | os.PathLike[str]) -> None:
    """Export a module in evaluation mode as ONNX, for inputs like `example` [N, C, ...].

    The batch size is free; all other sizes are those of the example, so that images of another size
    need another file. The weights are initialisers in the file. The input is called "x", the output
    "y". The metadata say which blocks it has, for `ifspace bench --import`.

    `torch.onnx.export` alone does not know the rolling pointwise operator; here it is first
    decomposed into operators of ONNX.

    Raises: DeviceError if packages are missing; OutputError for a path that does not end in .onnx
        or cannot be written; SettingError for arguments that are no module or no tensor, or are on
        the meta device; KernelError for an example without images, or one that the module does not
        take, and for what torch.onnx does not translate.
    """
    module = unwrapped(module)
    _check_arguments(module, example, path)
    if Path(path).suffix.lower() != ".onnx":
        raise OutputError.because(
            "not the name of an ONNX file",
            got=os.fspath(path),
            allowed="a name that ends in .onnx",
            remedy="write it like block.onnx",
            argument="path",
        )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise DeviceError.because(
            "packages for ONNX are missing",
            got=f"no {', no '.join(missing)}",
            allowed=" and ".join(_NEEDED),
            remedy="install ifspace[onnx]",
        )
    program = exported(module, example)
    with replacing(path) as temporary, _without_noise():
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=["x"],
                output_names=["y"],
                dynamic_shapes=({0: "batch"},),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise _not_in_onnx(error) from error
        # With nothing written `replacing` raises.
        if written is not None:
            written.model.metadata_props[BLOCKS_KEY] = json.dumps(list(_blocks_in(module)))
            written.save(temporary, external_data=False)


def _blocks_in(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a module in their order, each with the full name of its module."""
    for name, part in module.named_modules():
        if isinstance(part, BlockModule) and part.dims == 2 and part.geometry.is_default:
            bottleneck = part.sized.bottleneck
            yield {
                "name": name,
                "block": str(part.sized.block),
                "channels": part.sized.channels,
                "out_channels": part.sized.out_channels,
                "bottleneck": None if bottleneck is None else str(bottleneck),
                "stride": part.stride,
            }


def _not_in_onnx(error: Exception) -> KernelError:
    """Return the error of a module that torch.onnx does not translate, with the first cause."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return KernelError.because(
        "torch.onnx does not translate this module",
        got=f"{type(cause).__name__}: {first_line(cause)}",
        allowed="modules whose operators ONNX has, for any number of images",
        remedy="save it as .pt2, .safetensors or .py",
        argument="module",
    )


def exported(
    module: nn.Module, example: Tensor, open_batch: bool = True
) -> torch.export.ExportedProgram:
    """Return the exported program of a module in evaluation mode, in torch's own operators.

    It takes any number of images, or as many as the example has if `open_batch` is false.

    Raises: KernelError for an example without images, or one that the module does not take.
    """
    if example.dim() == 0 or example.shape[0] == 0:
        raise KernelError.because(
            "example without an image",
            got=list(example.shape),
            allowed="[N, C, ...], N from 1",
            remedy="give one image of the size that the file shall take",
            argument="example",
        )
    # torch.export would take a batch size of one for a constant.
    batch = torch.cat([example, example]) if open_batch and example.shape[0] < 2 else example
    sizes = ({0: torch.export.Dim("batch")},) if open_batch else None
    with evaluated(module), _without_noise():
        try:
            module(batch[:2])  # its errors are clearer than those with a symbolic batch size
            # Decomposed while it is traced: `run_decompositions` would trace the program again.
            with _Decomposed():
                return torch.export.export(module, (batch,), dynamic_shapes=sizes)
        except IfspaceError:
            raise
        except Exception as error:
            raise KernelError.because(
                "module cannot be exported with this example",
                got=f"{list(example.shape)} of {example.dtype} ({first_line(error)})",
                allowed="images that the module takes, of its weights' type and on their device",
                remedy="call the module with the example first",
                argument="example",
            ) from error


class _Decomposed(TorchFunctionMode):
    """Replace the operators of ifspace by those of torch that compute the same."""

    def __init__(self) -> None:
        self._table = rpw_decompositions() | chain_decompositions()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._table.get(func, func)(*args, **(kwargs or {}))


def _check_arguments(module: Any, example: Any, path: Any) -> None:
    if not isinstance(module, nn.Module):
        raise wrong_type("module", module, "a torch.nn.Module", "make one with build")
    if not isinstance(example, Tensor):
        raise wrong_type(
            "example", example, "a torch.Tensor [N, C, ...]", "give torch.randn(1, C, H, W)"
        )
    if not isinstance(path, str | os.PathLike):
        raise wrong_type("path", path, "a str or a Path", "write it like block.onnx")
    state = (example, *module.parameters(), *module.buffers())
    if any(tensor.is_meta for tensor in state):
        raise SettingError.because(
            "nothing to write",
            got="an example or weights on the meta device",
            allowed="a CPU or a GPU",
            remedy="build the module there",
            argument="module",
        )


@contextmanager
def _without_noise() -> Iterator[None]:
    """Suppress two warnings of torch 2.13 about itself."""
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
