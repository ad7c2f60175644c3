"""`ifspace bench`: how fast the best blocks of a catalogue are here, beside those with a name."""

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.installed import TORCH, check_installed
from ifspace.cli.options import Output, parts, shared_options, with_options
from ifspace.stages.command import block_list

if TYPE_CHECKING:
    from ifspace.bench.blocks import Place
    from ifspace.bench.results import (
        Earlier,
        Files,
    )
    from ifspace.bench.session import (
        Asked,
        Run,
    )
    from ifspace.catalogue import Catalogue


DEFAULT_CATALOGUE: Final = Path("results/catalogue-64.parquet")
# Where there is no catalogue it is enumerated anew, up to so many layers.
WIDTH, MAX_LEN = 64, 4
BASELINES: Final = "conv,dw+pw,shufflenet,clcnet,resnext,inverted"
NO_BASELINES: Final = ("none",)
# So many of the blocks that are left out are named.
MOST_NAMED: Final = 5
README_TITLE: Final = "# Results of record"

_OPTIONS = (
    click.option(
        "--top",
        type=click.IntRange(1),
        metavar="K",
        default=10,
        show_default=True,
        help="So many of its best designs.",
    ),
    click.option(
        "--by",
        type=click.Choice(["params", "macs", "activations", "pareto"]),
        default="params",
        show_default=True,
        help="What the best have least of; pareto: what no other beats.",
    ),
    click.option(
        "--channels",
        "-C",
        type=click.IntRange(1),
        metavar="N",
        help="Width C that enters a block; that of the catalogue if not given.",
    ),
    click.option(
        "--out-channels",
        "-F",
        type=click.IntRange(1),
        metavar="N",
        help="Width F that leaves it; C if not given, or that of the catalogue.",
    ),
    click.option(
        "--side",
        type=click.IntRange(1),
        metavar="N",
        default=32,
        show_default=True,
        help="Side of the maps that it writes, in pixels.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(1),
        metavar="N",
        default=16,
        show_default=True,
        help="Images at a time.",
    ),
    click.option(
        "--stride",
        type=click.IntRange(1, 2),
        metavar="1|2",
        help="Stride of the first spatial layer; that of the catalogue if not given.",
    ),
    click.option(
        "--style",
        type=click.Choice(["plain", "mobilenet", "fog"]),
        default="plain",
        show_default=True,
        help="Batch norm, activations and shortcut around the layers.",
    ),
    click.option(
        "--device", metavar="cpu|cuda", default="cpu", show_default=True, help="Where it runs."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
        help="Type of the numbers; fp32 if not given, on CUDA bf16.",
    ),
    click.option(
        "--layout",
        type=click.Choice(["channels_last", "nchw"]),
        default="channels_last",
        show_default=True,
        help="How maps lie in memory.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Threads of a CPU; one to each usable core if not given.",
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
        type=block_list,
        metavar="LIST",
        default=BASELINES,
        show_default=True,
        help="Blocks with a name, or in the notation; none for none.",
    ),
    click.option(
        "--repeats",
        type=click.IntRange(3, 100_000),
        metavar="N",
        default=25,
        show_default=True,
        help="Rounds in which all are timed in turn.",
    ),
    click.option(
        "--calibrate/--no-calibrate",
        default=True,
        show_default=True,
        help="Fit a model that predicts the latency of the whole catalogue.",
    ),
    click.option(
        "--predict",
        type=parts,
        metavar="LIST",
        default=None,
        help="More shapes CxFxSIDE or CxFxSIDExSTRIDE for the latency table.",
    ),
    click.option(
        "--results",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        default=Path("results"),
        show_default=True,
        help="Where the rows go: bench/blocks-DEVICE.csv in it, and more.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="What was measured, in half of the rounds or more, is not measured again.",
    ),
)


@click.command("bench", short_help="Time the best blocks of a catalogue beside named ones.")
@click.argument("catalogue", type=click.Path(path_type=Path), required=False)
@with_options(_OPTIONS)
@shared_options()
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    catalogue: Path | None,
    results: Path,
    resume: bool,
    **given: Any,
) -> None:
    """Time the best designs of CATALOGUE here: forward, forward + backward, memory.

    CATALOGUE is a file of `ifspace enumerate --out FILE.parquet`; results/catalogue-64.parquet if
    there is one, else it is enumerated anew up to 4 layers. At other widths than its own the
    groups are solved anew. A block is checked before it is timed: parameters, MACs, field, numbers,
    gradients; what is wrong is listed and never timed. Blocks are timed in turn, and the rows are
    kept after every round: an interrupted run goes on with --resume. A model of latency, fitted to
    a sample of the catalogue, predicts the rest and writes the table for `ifspace layout
    --latency`. At the defaults it takes a minute or two on two cores, most of it for the model.
    Rows of other blocks, widths and conditions stay. Exit status 2 when nothing could be timed.
    """
    check_installed(
        {**TORCH, "ortools": "solver", "scipy": "bench"},
        "blocks are sized, timed and their latencies fitted with them",
        extras="bench",
    )
    from ifspace.bench.machine import find_device
    from ifspace.bench.results import (
        Files,
        earlier,
    )
    from ifspace.bench.rows import Book, this_machine
    from ifspace.bench.session import Run
    from ifspace.bench.text import forms
    from ifspace.cli.progress import ProgressBar
    from ifspace.cli.saving import check_files

    check_files(output, None)
    find_device(given["device"])  # refuses before the work
    known = _catalogue(catalogue, given, output)
    asked = _asked(known, given | {"resume": resume})
    machine = this_machine(asked.conditions.device)
    conditions = asked.conditions
    files = Files(results, machine.device, conditions.dtype, asked.place.batch)
    files.prepare()
    kept, book = earlier(files, conditions), Book(machine)
    if kept.dropped:
        output.note(f"{kept.dropped} latencies of another layout, style or threads are not kept")
    left = book.read(files.rows) if files.rows.exists() else 0
    if left:
        output.note(f"{left} rows of other versions are not kept")
    try:
        with ProgressBar("measuring", quiet=output.quiet) as progress:
            run = Run(known, asked, machine, book, lambda: book.write(files.rows), progress)
            run.execute()
    except KeyboardInterrupt:
        if run.timed:
            _record(context, run, files, kept)
            output.note(f"kept: {files.rows}; the same command with --resume goes on")
        else:
            output.note("nothing was timed yet")
        raise
    _record(context, run, files, kept)
    _notes(output, run)
    output.emit(forms(run, files))


def _catalogue(path: Path | None, given: dict[str, Any], output: Output) -> "Catalogue":
    from ifspace.catalogue import load

    if path is not None or DEFAULT_CATALOGUE.exists():
        return load(path or DEFAULT_CATALOGUE)
    from ifspace.catalogue.setting import EnumerationSetting
    from ifspace.enumerate.search import enumerate_designs

    width = given["channels"] or WIDTH
    setting = EnumerationSetting(
        channels=width,
        out_channels=given["out_channels"],
        max_len=MAX_LEN,
        stride=given["stride"] or 1,
    )
    output.note(
        f"no {DEFAULT_CATALOGUE}: enumerating blocks of up to {MAX_LEN} layers at {width} channels"
    )
    return enumerate_designs([setting])


def _asked(known: "Catalogue", given: dict[str, Any]) -> "Asked":
    from ifspace.bench.blocks import (
        Conditions,
        Place,
        find_baselines,
        first_place,
    )
    from ifspace.bench.machine import (
        check_known,
        find_device,
    )
    from ifspace.bench.rows import (
        BOTH_WAYS,
        FORWARD,
    )
    from ifspace.bench.session import Asked
    from ifspace.errors import SettingError
    from ifspace.parallel import workers

    device = find_device(given["device"])
    on_cpu = device.type == "cpu"
    dtype = given["dtype"] or ("fp32" if on_cpu else "bf16")
    check_known("dtype", dtype, ["fp32", "bf16", "fp16"] + ["tf32"] * (not on_cpu))
    conditions = Conditions(
        device,
        dtype,
        given["layout"],
        given["threads"] or workers(None),
        given["style"],
        (FORWARD, BOTH_WAYS)[: 1 + given["backward"]],
        given["compiled"],
    )
    home = first_place(known, given["side"], given["batch"])
    channels = given["channels"] or home.channels
    out_channels = given["out_channels"]
    if out_channels is None:
        out_channels = home.out_channels if given["channels"] is None else channels
    place = Place(
        channels, out_channels, given["side"], given["batch"], given["stride"] or home.stride
    )
    names = () if given["baselines"] == NO_BASELINES else given["baselines"]
    find_baselines(names)  # refuses before the work
    predict = tuple(_place(text, given["batch"]) for text in given["predict"] or ())
    if predict and not given["calibrate"]:
        raise SettingError.because(
            "nothing is predicted without a model",
            got="predict and no calibration",
            allowed="predict with the calibration",
            remedy="leave out --no-calibrate",
            argument="predict",
        )
    return Asked(
        place,
        conditions,
        given["top"],
        given["by"],
        names,
        given["repeats"],
        given["calibrate"],
        predict,
        given["resume"],
    )


def _place(text: str, batch: int) -> "Place":
    """Return the place that CxFxSIDE or CxFxSIDExSTRIDE means."""
    from ifspace.bench.blocks import Place
    from ifspace.errors import SettingError

    numbers = text.lower().replace("×", "x").split("x")
    if len(numbers) not in (3, 4) or not all(x.isascii() and x.isdigit() for x in numbers):
        raise SettingError.because(
            "no such shape",
            got=repr(text),
            allowed="CxFxSIDE or CxFxSIDExSTRIDE",
            remedy="write 64x128x28x2",
            argument="predict",
        )
    channels, out_channels, side, *stride = map(int, numbers)
    return Place(channels, out_channels, side, batch, *stride)  # type: ignore[arg-type]


def _record(context: click.Context, run: "Run", files: "Files", kept: "Earlier") -> None:
    """Write designs, model and latency table; enter the files where results are listed."""
    from ifspace.bench.record import provenance
    from ifspace.bench.results import record

    words = _words(context)
    arguments = {name: _plain(value) for name, value in context.params.items()}
    written = record(run, files, arguments, provenance(words), kept)
    page = files.results / "README.md"
    if page.exists() and page.read_text(encoding="utf-8").startswith(README_TITLE):
        if find_spec("tabulate") is None:
            return
        from ifspace.bench.record import list_in_readme

        list_in_readme(
            files.results, [path.relative_to(files.results).as_posix() for path in written], words
        )


def _words(context: click.Context) -> str:
    """Return the command as it can be written again."""
    words = ["ifspace", "bench"]
    for param in context.command.params:
        name = param.name or ""
        told = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        value = context.params.get(name)
        if name == "catalogue" and value is not None:
            words.append(shlex.quote(str(value)))
        elif told and isinstance(param, click.Option) and name not in ("format", "out", "quiet"):
            flag = max(
                param.opts if value or not param.secondary_opts else param.secondary_opts, key=len
            )
            words += [flag] if param.is_flag else [flag, shlex.quote(str(_plain(value)))]
    return " ".join(words)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, int | float | str | None) else str(value)


def _notes(output: Output, run: "Run") -> None:
    from ifspace.bench.text import busy

    for name, why in run.left_out[:MOST_NAMED]:
        output.note(f"left out: {name}: {why}")
    if len(run.left_out) > MOST_NAMED:
        output.note(f"left out: {len(run.left_out) - MOST_NAMED:,} more, for reasons such as these")
    for (name, _, _), why in run.red.items():
        output.note(f"red, not timed: {name}: {why}")
    if run.solved:
        place = run.asked.place
        output.note(
            f"groups of {run.solved} designs solved anew from {place.channels} to "
            f"{place.out_channels} channels; enumerate that width to predict its whole catalogue"
        )
    if run.asked.calibrate and not run.models:
        output.note("no model: too few blocks of the catalogue stand here; nothing is predicted")
    for there, count in run.unfit.items():
        if count:
            output.note(
                f"{count} blocks have no groups from {there.channels} to {there.out_channels} "
                "channels: no latency of them is predicted there"
            )
    if (times := busy(run)) is not None:
        output.note(
            f"another program kept this machine busy: medians up to {times:.0f} times the least; "
            "compare the least, or measure again"
        )
    if run.reused:
        output.note(f"{run.reused} measurements were there already")
