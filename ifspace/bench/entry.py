"""A benchmark of blocks from Python: what `ifspace bench` runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from ifspace.bench.blocks import BlockShape, catalogue_shape, find_baselines, parse_shape
from ifspace.bench.case import Conditions
from ifspace.bench.forms import find_forms
from ifspace.bench.machine import Machine, check_choice, find_device, this_machine
from ifspace.bench.record import provenance
from ifspace.bench.results import EarlierResults, ResultFiles, write_results
from ifspace.bench.rows import Measurements
from ifspace.bench.session import BenchSettings, BlockBench, OnProgress
from ifspace.catalogue import Catalogue
from ifspace.errors import SettingError
from ifspace.measurements import MODES
from ifspace.parallel import workers
from ifspace.values import counted

BASELINES: Final = ("conv", "dw+pw", "shufflenet", "clcnet", "resnext", "inverted")


def run_bench(
    catalogue: Catalogue,
    *,
    top: int = 10,
    every_row: bool = False,
    by: str = "params",
    channels: int | None = None,
    out_channels: int | None = None,
    side: int = 32,
    batch: int = 16,
    stride: Literal[1, 2] | None = None,
    style: str = "plain",
    device: str = "cpu",
    dtype: str | None = None,
    layout: str = "channels_last",
    threads: int | None = None,
    compiled: bool = False,
    backward: bool = True,
    baselines: Sequence[str] = BASELINES,
    repeats: int = 25,
    calibrate: bool = True,
    accept_model: bool = False,
    predict: Sequence[str] = (),
    resume: bool = False,
    forms: Sequence[str] | None = None,
    results: Path | None = None,
    command: str = "ifspace.run_bench",
    arguments: Mapping[str, Any] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    on_start: Callable[[int, int, float], None] = lambda shown, sampled, seconds: None,
    on_progress: OnProgress = lambda done, total: None,
) -> BlockBench:
    """Time the best designs of a catalogue beside named blocks; return the run with its results.

    The options are those of `ifspace bench`; `forms` are all of the device if None. `results`: the
    folder that rows, designs, latencies and the catalogue are written into; nothing is written if
    it is None. `command` and `arguments`
    are recorded there. `on_note` is called with what a user should know, `on_start` with the
    number of blocks, of those for the model, and about how many seconds they take. When the run is
    interrupted, what was measured is written before KeyboardInterrupt goes on.

    Raises: SettingError for an unknown option or block, or when nothing can be timed; OutputError
        when the results cannot be written.
    """
    found_device = find_device(device)
    on_cpu = found_device.type == "cpu"
    dtype = dtype or ("fp32" if on_cpu else "bf16")
    check_choice("dtype", dtype, ["fp32", "bf16", "fp16"] + ["tf32"] * (not on_cpu))
    conditions = Conditions(
        found_device,
        dtype,
        layout,
        threads or workers(None),
        style,
        MODES[: 1 + backward],
        compiled,
    )
    own = catalogue_shape(catalogue, side, batch)
    if out_channels is None:
        out_channels = own.out_channels if channels is None else channels
    shape = BlockShape(channels or own.channels, out_channels, side, batch, stride or own.stride)
    find_baselines(baselines)  # raises before the work
    shapes = tuple(parse_shape(text, batch) for text in predict)
    if shapes and not calibrate:
        raise SettingError.because(
            "nothing is predicted without a model",
            got="predict and no calibration",
            allowed="predict with the calibration",
            remedy="leave out --no-calibrate",
            argument="predict",
        )
    settings = BenchSettings(
        shape,
        conditions,
        top,
        by,
        tuple(baselines),
        repeats,
        calibrate,
        shapes,
        resume,
        every_row,
        accept_model,
        find_forms(forms, found_device),
    )
    machine = this_machine(found_device)
    measurements = Measurements(machine)
    if results is None:
        bench = BlockBench(
            catalogue, settings, machine, measurements, lambda: None, on_progress, on_start
        )
        bench.execute()
        return bench
    files = files_of(results, machine, settings)
    files.prepare()
    earlier = EarlierResults.read(files, conditions)
    if earlier.dropped:
        on_note(
            f"not kept: {counted(earlier.dropped, 'latency', 'latencies')} of another layout, "
            "style or threads"
        )
    other_versions = measurements.read(files.rows) if files.rows.exists() else 0
    if other_versions:
        on_note(f"not kept: {counted(other_versions, 'row')} of other versions")
    bench = BlockBench(
        catalogue,
        settings,
        machine,
        measurements,
        lambda: measurements.write(files.rows),
        on_progress,
        on_start,
    )
    try:
        bench.execute()
    except KeyboardInterrupt:
        if bench.has_times:
            write_results(bench, files, arguments or {}, provenance(command), earlier)
            on_note(f"kept: {files.rows}; the same command with --resume goes on")
        else:
            on_note("nothing was timed yet")
        raise
    write_results(bench, files, arguments or {}, provenance(command), earlier)
    return bench


def files_of(results: Path, machine: Machine, settings: BenchSettings) -> ResultFiles:
    """Return the files of a run in a folder of results."""
    dtype, batch = settings.conditions.dtype, settings.shape.batch
    return ResultFiles(results, machine.device, dtype, batch)
