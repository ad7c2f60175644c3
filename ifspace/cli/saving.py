"""What the commands that write a network share: `--save`, tried before the search, done after."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ifspace.cli.installed import TORCH, check_installed
from ifspace.cli.options import FORMATS, Output

if TYPE_CHECKING:
    from ifspace.stages.layout import Layout

# The same command writes the same weights.
SEED: Final = 0
_ONNX: Final = {"onnx": "onnx", "onnxscript": "onnx"}

save_option: Final = click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the network too, with fresh weights, as FILE.safetensors; needs ifspace[torch].",
)


def check_files(
    output: Output, save: Path | None, suffixes: Sequence[str] = (".safetensors",)
) -> None:
    """Refuse, before a long search, files that could not be written after it.

    `suffixes`: those that `save` may have. Nothing is written by it, nor by a command whose other
    file is refused.

    Raises: OutputError for a wrong suffix or place.
    """
    from ifspace.storage import replacing

    if output.out is not None:
        # The suffix alone: nothing is kept, nothing is printed.
        replace(output, quiet=True).emit(dict.fromkeys(FORMATS, str), keep=False)
        with replacing(output.out, keep=False) as file:
            file.touch()
    if save is not None:
        _check_save(save, suffixes)


def _check_save(path: Path, suffixes: Sequence[str]) -> None:
    instead = ", or leave --save out"
    check_installed(TORCH, "networks are written with torch and safetensors", instead)
    from ifspace.nn.files import check_suffix
    from ifspace.storage import replacing

    if check_suffix(path, suffixes) == ".onnx":
        check_installed(_ONNX, "ONNX files are written with them", instead)
    with replacing(path, keep=False) as file:
        file.touch()


def save_layout(
    output: Output, path: Path | None, layout: "Layout | None", network: str | None
) -> str | None:
    """Write the network of a layout, in the style of the named network, and say so on stderr.

    Returns the path as it was given, or None where nothing was written.

    Raises: OutputError when it cannot be written.
    """
    if path is None or layout is None:
        return None
    from ifspace.nn.files import save
    from ifspace.nn.network import build_network, style_of

    style = None if network is None else style_of(network)
    made = build_network(layout, style, seed=SEED)
    save(made, path)
    output.note(f"saved: {path}, {layout.params:,} parameters, fresh weights of seed {SEED}")
    frame = layout.stem_and_head
    if network is None and not (frame.classifier or frame.batch_norm):
        output.note("no classifier, no batch norm: only a named network has them")
    return str(path)
