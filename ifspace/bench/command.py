"""`ifspace bench`: how fast the best blocks of a catalogue are here, beside those with a name."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import (
    BLOCKS,
    FILE,
    LIST,
    OneOf,
    Output,
    WholeNumber,
    output_options,
    shared,
    with_options,
)
from ifspace.cli.requirements import ONNX, TORCH, check_installed
from ifspace.values import MAX_BATCH, MAX_ROUNDS, MAX_SIDE, counted

if TYPE_CHECKING:
    from ifspace.bench.results import ResultFiles
    from ifspace.catalogue import Catalogue

DEFAULT_CATALOGUE: Final = Path("results/catalogue-64.parquet")
# Without a catalogue one is enumerated at this width, up to so many layers.
WIDTH, MAX_LEN = 64, 4
BASELINES: Final = "conv,dw+pw,shufflenet,clcnet,resnext,inverted"
NO_BASELINES: Final = ("none",)
README_TITLE: Final = "# Results of record"
# With --import: the device of a profile unless named, and what goes with it.
OTHER_DEVICE: Final = "other"
_FILES_OF_IMPORT: Final = frozenset({"profile", "network"})
_WITH_IMPORT: Final = _FILES_OF_IMPORT | {"device", "dtype", "batch", "format", "out", "quiet"}

_OPTIONS = (
    shared("top", default=10, help="How many of its best designs are timed."),
    shared("all", help="Time blocks that are the same network too."),
    click.option(
        "--by",
        type=OneOf(["params", "macs", "activations", "pareto"]),
        default="params",
        show_default=True,
        help="The amount that the best have least of; pareto: those that no other dominates.",
    ),
    click.option(
        "--channels",
        "-C",
        type=WholeNumber(1),
        metavar="N",
        help="Input channels C; those of the catalogue if not given.",
    ),
    click.option(
        "--out-channels",
        "-F",
        type=WholeNumber(1),
        metavar="N",
        help="Output channels F; C if not given, or those of the catalogue.",
    ),
    click.option(
        "--side",
        type=WholeNumber(1, MAX_SIDE),
        metavar="N",
        default=32,
        show_default=True,
        help="Side of the output feature map, in pixels.",
    ),
    click.option(
        "--batch",
        type=WholeNumber(1, MAX_BATCH),
        metavar="N",
        default=16,
        show_default=True,
        help="Images in a batch.",
    ),
    shared("stride", help="Stride of the first spatial layer; that of the catalogue if not given."),
    click.option(
        "--style",
        type=OneOf(["plain", "mobilenet", "fog"]),
        default="plain",
        show_default=True,
        help="Batch norm, activations and shortcut around the layers.",
    ),
    click.option(
        "--device",
        metavar="cpu|cuda",
        default="cpu",
        show_default=True,
        help="Device to time; with --import any name of the one that was profiled.",
    ),
    click.option(
        "--dtype",
        type=OneOf(["fp32", "tf32", "bf16", "fp16", "int8"]),
        help="Type of the numbers; fp32 if not given, on CUDA bf16. int8 with --import alone.",
    ),
    click.option(
        "--layout",
        type=OneOf(["channels_last", "nchw"]),
        default="channels_last",
        show_default=True,
        help="Memory layout of the feature maps.",
    ),
    click.option(
        "--threads",
        type=WholeNumber(1, 1024),
        metavar="N",
        help="Threads of a CPU; one for each usable core if not given.",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="Time every block by torch.compile too; it takes minutes to compile.",
    ),
    click.option(
        "--backward/--no-backward",
        default=True,
        show_default=True,
        help="Time forward + backward too.",
    ),
    click.option(
        "--baselines",
        type=BLOCKS,
        metavar="LIST",
        default=BASELINES,
        show_default=True,
        help="Named blocks, or blocks in the notation; none for none.",
    ),
    click.option(
        "--repeats",
        type=WholeNumber(3, MAX_ROUNDS),
        metavar="N",
        default=25,
        show_default=True,
        help="Rounds in which all blocks are timed in turn.",
    ),
    click.option(
        "--calibrate/--no-calibrate",
        default=True,
        show_default=True,
        help="Fit a model that predicts the latency of the whole catalogue.",
    ),
    click.option(
        "--accept-model",
        is_flag=True,
        help="Put the model's latencies into the latency table even if it misses its goal.",
    ),
    click.option(
        "--predict",
        type=LIST,
        metavar="LIST",
        default=None,
        help="More shapes CxFxSIDE or CxFxSIDExSTRIDE for the latency table.",
    ),
    click.option(
        "--forms",
        type=LIST,
        metavar="LIST",
        default=None,
        help="Forms of each block: as-is, collapsed, fused; all that the device has if not given.",
    ),
    click.option(
        "--results",
        type=FILE,
        metavar="FOLDER",
        default=Path("results"),
        show_default=True,
        help="Where the rows go: bench/blocks-DEVICE.csv in it, and more.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Blocks that were timed in half of the rounds or more are not timed again.",
    ),
    click.option(
        "--import",
        "profile",
        type=FILE,
        metavar="PROFILE",
        help="Time nothing: read the profile of another runtime into a latency table.",
    ),
    click.option(
        "--network",
        type=FILE,
        metavar="FILE.onnx",
        help="With --import: the network that was profiled.",
    ),
)


@click.command("bench", short_help="Time the best blocks of a catalogue beside named ones.")
@click.argument("catalogue", type=FILE, required=False)
@with_options(_OPTIONS)
@output_options()
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    catalogue: Path | None,
    results: Path,
    profile: Path | None,
    network: Path | None,
    **options: Any,
) -> None:
    """Time the best designs of CATALOGUE here: forward, forward + backward, memory.

    CATALOGUE is a file of `ifspace enumerate --out FILE.parquet`. By default it is
    results/catalogue-64.parquet if there is one; else blocks of up to 4 layers are enumerated. At
    widths other than its own the group counts are solved again. Of designs that are the same
    network, up to the order of channels, one is timed, unless --all is given. A block is checked
    before it is timed: parameters, MACs, field, output, gradients; a block that fails is listed and
    never timed. A block that sees less than the convolution it would replace, as one of your own
    may, is marked and compared with no other.
    Each block is timed as it is; collapsed, where that differs: runs of its linear layers as one
    convolution each; and for inference fused: all of its layers in one pass over tiles.
    Blocks are timed in turn, and the rows are saved after every round: an interrupted run
    continues with --resume. A latency model, fitted to a sample of the catalogue, predicts the
    rest; the table for `ifspace layout --latency` has measured latencies and, if the model
    orders blocks well enough, those of the model. The catalogue is kept beside the rows for
    `ifspace report`.

    With --import nothing is timed: the profile of ONNX Runtime (JSON), of trtexec --exportProfile
    (JSON) or of TensorFlow Lite benchmark_model --enable_op_profiling=true (text) becomes a table
    for --latency of the other commands: with --out TABLE.csv. --network is the ONNX file that was
    profiled, which `ifspace.nn.export_onnx` wrote: each of its blocks is a row, and each
    convolution outside of them. --batch and --dtype are needed where the profile does not say them.

    With the defaults it takes a minute or two on two cores, most of it for
    the model. Rows of other blocks, widths and conditions stay. Exit status 2 when nothing
    could be timed.
    """
    output.check()
    imported = _check_import(context, profile, network)
    check_installed(
        {**TORCH, "ortools": "solver", "psutil": "bench", "scipy": "bench"},
        "blocks are sized and timed, and latencies fitted, with these packages",
        extras="bench",
    )
    if imported is not None:
        _import(output, *imported)
        return
    from ifspace.bench.entry import files_of, run_bench
    from ifspace.bench.machine import find_device
    from ifspace.bench.text import forms, notes
    from ifspace.catalogue.design import permutation_notes
    from ifspace.cli.progress import ProgressBar

    find_device(options["device"])  # raises before the catalogue is enumerated
    loaded = _catalogue(catalogue, options, output)
    for note in permutation_notes(loaded, loaded.designs):
        output.note(note)
    baselines, predict = options.pop("baselines"), options.pop("predict")
    with ProgressBar("measuring", quiet=output.quiet) as progress:
        bench = run_bench(
            loaded,
            **options,
            baselines=() if baselines == NO_BASELINES else baselines,
            predict=predict or (),
            results=results,
            command=_command_line(context),
            arguments={name: _plain(value) for name, value in context.params.items()},
            on_note=output.note,
            on_start=lambda *counts: output.note(_start_text(*counts)),
            on_progress=progress,
        )
    files = files_of(results, bench.machine, bench.settings)
    _list(context, files, loaded)
    for note in notes(bench):
        output.note(note)
    output.emit(forms(bench, files))


def _check_import(
    context: click.Context, profile: Path | None, network: Path | None
) -> "tuple[Path, Path, dict[str, Any]] | None":
    """Return the two files of --import and the other options that were given; None without it.

    It is done before torch is imported. Raises: SettingError for options that do not go with it.
    """
    from ifspace.errors import SettingError

    if profile is None and network is None:
        return None
    written = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    other = sorted(written.keys() - _WITH_IMPORT)
    if profile is None or network is None or other:
        files = sorted(_FILES_OF_IMPORT & written.keys())
        got = [f"--{name.replace('_', '-')}" for name in (*other, *files)]
        raise SettingError.because(
            "options that do not go together",
            got=" and ".join(got).replace("--profile", "--import"),
            allowed="--import and --network, with --device, --dtype, --batch",
            remedy="give both files and leave the others out",
        )
    return profile, network, written


def _import(output: Output, profile: Path, network: Path, written: dict[str, Any]) -> None:
    """Print the profile of another runtime as a latency table."""
    from ifspace.bench.profiles import OnnxNetwork, import_profile, read_profile
    from ifspace.serialize import json_text

    check_installed(ONNX, "networks that were profiled are read with these packages")
    latencies = import_profile(
        read_profile(profile),
        OnnxNetwork.read(network),
        written.get("device", OTHER_DEVICE),
        written.get("dtype"),
        written.get("batch"),
    )
    table = latencies.table.table
    output.emit(
        {
            "table": table.text,
            "json": lambda: json_text(
                {
                    "rows": [
                        row | {"latency_ms": float(row["latency_ms"])} for row in table.records()
                    ]
                }
            ),
            "csv": table.csv,
            "markdown": table.markdown,
        }
    )
    for note in latencies.notes:
        output.note(note)


def _start_text(shown: int, sampled: int, seconds: float) -> str:
    from ifspace.cli.progress import duration_text

    count = counted(shown, "block")
    sampled_text = f" and {sampled} more for the latency model" if sampled else ""
    return f"measuring {count}{sampled_text}, {duration_text(seconds)}"


def _catalogue(path: Path | None, options: dict[str, Any], output: Output) -> "Catalogue":
    """Return the catalogue of a file, or else a new one."""
    from ifspace.catalogue import load

    if path is not None or DEFAULT_CATALOGUE.exists():
        return load(path or DEFAULT_CATALOGUE)
    from ifspace.catalogue.setting import EnumerationSetting
    from ifspace.enumerate.search import enumerate_designs

    width = options["channels"] or WIDTH
    setting = EnumerationSetting(
        channels=width,
        out_channels=options["out_channels"],
        max_len=MAX_LEN,
        stride=options["stride"] or 1,
    )
    output.note(
        f"no {DEFAULT_CATALOGUE}: enumerating blocks of up to {MAX_LEN} layers at {width} channels"
    )
    return enumerate_designs([setting])


def _list(context: click.Context, files: "ResultFiles", catalogue: "Catalogue") -> None:
    """List the files of the run where results are listed."""
    from ifspace.bench.record import list_in_readme

    page = files.results / "README.md"
    if page.exists() and page.read_text(encoding="utf-8").startswith(README_TITLE):
        names = [path.relative_to(files.results).as_posix() for path in files.written(catalogue)]
        list_in_readme(files.results, names, _command_line(context))


def _command_line(context: click.Context) -> str:
    """Return the command as it can be given again."""
    words = ["ifspace", "bench"]
    for param in context.command.params:
        name = param.name or ""
        source = context.get_parameter_source(name)
        value = context.params.get(name)
        if name == "catalogue" and value is not None:
            words.append(shlex.quote(str(value)))
        elif (
            source is click.core.ParameterSource.COMMANDLINE
            and isinstance(param, click.Option)
            and name not in ("format", "out", "quiet")
        ):
            flag = max(
                param.opts if value or not param.secondary_opts else param.secondary_opts, key=len
            )
            words += [flag] if param.is_flag else [flag, shlex.quote(str(_plain(value)))]
    return " ".join(words)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, int | float | str | None) else str(value)
