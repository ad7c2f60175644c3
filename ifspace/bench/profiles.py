"""Latencies that another runtime measured: its profile of an ONNX file, as a latency table.

Three formats are read, each as its tool writes it:

- ONNX Runtime, `SessionOptions.enable_profiling` (versions 1.14 to 1.23): JSON, a list of Chrome
  trace events; a kernel is an event of category "Node" whose name ends in "_kernel_time", with
  `dur` in microseconds and `args.op_name` and `args.output_type_shape`; a run ends with the event
  "model_run". The first run, which allocates, is left out where there are more.
- trtexec `--exportProfile` (TensorRT 8 and 10): JSON, a list of `{"count": runs}` and for each
  layer `name`, `averageMs` and in later versions `medianMs`. Names are those of nodes, joined by
  " + " where they are fused and by " || " where they run side by side; what brings a tensor into
  another layout has "input reformatter 0" behind the name of the layer that it serves.
- TensorFlow Lite `benchmark_model --enable_op_profiling=true` (2.4 to 2.17, and LiteRT): the table
  "Run Order" of the regular runs, whose columns are named in its first line; as text, with tabs and
  "[avg ms]" among the columns, or as `--profiling_output_csv_file` has it, with commas and
  "avg_ms". Of a delegate that runs everything the table "Delegate internal" counts.

The ONNX file says what the operators are. `ifspace.nn.export_onnx` writes into its metadata which
blocks it has; each of them is a row of the table, and so is each convolution outside of them. In
the first two formats operators have the names of nodes of the file, or of what these write. A
fused operator has the names of all: where they are of two blocks, its time counts in the first. In
the third they have names of their own: the convolutions are matched in their order.

ONNX Runtime adds operators that bring feature maps into another layout and back. They have no node:
ReorderInput counts for the convolution that follows, ReorderOutput for the one before.
"""

import json
import re
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from ifspace.bench.case import BlockCandidate
from ifspace.bench.forms import convolution
from ifspace.bench.latency import LatencyRows
from ifspace.block import Block, SizedBlock
from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.latency import MEASURED
from ifspace.nn.export import BLOCKS_KEY
from ifspace.storage import check_no_device, read_text, reason
from ifspace.values import counted

ONNX_RUNTIME, TENSORRT, TFLITE = "ONNX Runtime", "TensorRT", "TensorFlow Lite"
TOOLS: Final = (
    "a profile of ONNX Runtime, of trtexec --exportProfile, or of TensorFlow Lite benchmark_model "
    "--enable_op_profiling=true"
)
_KERNEL: Final = "_kernel_time"
_RUN: Final = "model_run"
# Types of numbers, as ONNX Runtime calls them.
_DTYPES: Final = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_TFLITE_RUNS: Final = "Operator-wise Profiling Info for Regular Benchmark Runs"
_TFLITE_DELEGATE: Final = "Delegate internal:"
# The first line of a table of operators, as text or CSV; tables by type have "count" second.
_TFLITE_HEADER: Final = re.compile(
    r"^\s*(\[node type\]|node type,\s*(start|first),)", re.IGNORECASE | re.MULTILINE
)
_TFLITE_AVERAGE: Final = ("avg ms", "avg_ms")
_TFLITE_CONV: Final = re.compile(r"(DEPTHWISE_)?CONV_2D$|Convolution\b", re.IGNORECASE)
# What runs behind the last convolution of a block, and before its first one.
_TFLITE_AFTER: Final = re.compile(r"ADD|RELU|SWISH|LOGISTIC|CLAMP", re.IGNORECASE)
_TFLITE_BEFORE: Final = re.compile(
    r"SLICE|CONCAT|TRANSPOSE|RESHAPE|PAD|GATHER|SPLIT", re.IGNORECASE
)
# What ONNX Runtime puts before a convolution, and behind one.
_BEFORE, _AFTER = "ReorderInput", "ReorderOutput"
_SCOPES: Final = "pkg.torch.onnx.name_scopes"


# Profiles.


@dataclass(frozen=True, slots=True)
class OpTime:
    """An operator of a profile: its name, its type where that is said, its time in a run."""

    name: str
    kind: str
    ms: float


@dataclass(frozen=True, slots=True)
class Profile:
    """The operators of a run in their order; `batch` and `dtype` are None where it does not say."""

    runtime: str
    ops: tuple[OpTime, ...]
    runs: int
    batch: int | None = None
    dtype: str | None = None


def read_profile(path: Path) -> Profile:
    """Return the profile in a file, whichever of the tools wrote it.

    Raises: SettingError for a file of another tool or version, or whose times have no unit.
    """
    try:
        text = read_text(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _foreign(path, reason(error)) from None
    try:
        return _parsed(path, text)
    except IfspaceError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise _foreign(path, f"a damaged file ({type(error).__name__}: {error})") from None


def _parsed(path: Path, text: str) -> Profile:
    try:
        values = json.loads(text)
    except ValueError:
        if _TFLITE_HEADER.search(text):
            return _tflite(path, text)
        raise _foreign(path, "neither JSON nor the table of benchmark_model") from None
    if isinstance(values, dict) and "Layers" in values:
        raise _foreign(path, "layers without times, of trtexec --exportLayerInfo")
    if isinstance(values, dict) and "traceEvents" in values:
        raise _foreign(path, "a trace of another tool, such as the profiler of PyTorch")
    if not (isinstance(values, list) and values and all(isinstance(x, dict) for x in values)):
        raise _foreign(path, "JSON of something else")
    if "startComputeMs" in values[0]:
        raise _foreign(path, "times of whole runs, of trtexec --exportTimes")
    if "count" in values[0]:
        return _tensorrt(path, values)
    if any(event.get("cat") == "Node" for event in values):
        return _onnx_runtime(path, values)
    raise _foreign(path, "JSON without operators")


def _onnx_runtime(path: Path, events: Sequence[Mapping[str, Any]]) -> Profile:
    runs: list[dict[str, OpTime]] = [{}]
    shapes = []
    for event in events:
        name, args = str(event.get("name", "")), event.get("args", {})
        if name == _RUN:
            runs.append({})
        elif event.get("cat") == "Node" and name.endswith(_KERNEL):
            if not {"op_name", "output_type_shape"} <= args.keys() or "dur" not in event:
                raise _foreign(path, f"{name} without dur, op_name and output_type_shape")
            bare = name.removesuffix(_KERNEL)
            kind = str(args["op_name"])
            ms = _milliseconds(float(event["dur"]) / 1e3)
            if bare in runs[-1]:  # a kernel in a loop
                ms += runs[-1][bare].ms
            runs[-1][bare] = OpTime(bare, kind, ms)
            if "conv" in kind.lower() and args["output_type_shape"]:
                shapes += list(args["output_type_shape"][0].items())
    # Kernels behind the last complete run belong to none.
    complete = [run for run in runs[:-1] if run]
    if not complete or not shapes:
        raise _foreign(path, "no complete run" if not complete else "no convolution")
    batches = {shape[0] for _, shape in shapes if shape}
    dtypes = {_DTYPES.get(dtype, dtype) for dtype, _ in shapes}
    if len(batches) > 1 or len(dtypes) > 1:
        several = sorted(map(str, batches if len(batches) > 1 else dtypes))
        raise _foreign(path, f"runs of several batches or types: {', '.join(several)}")
    measured = complete[1:] or complete
    ops = tuple(
        OpTime(op.name, op.kind, median(run[op.name].ms for run in measured if op.name in run))
        for op in measured[-1].values()
    )
    return Profile(ONNX_RUNTIME, ops, len(measured), int(batches.pop()), dtypes.pop())


def _tensorrt(path: Path, entries: Sequence[Mapping[str, Any]]) -> Profile:
    ops = []
    for entry in entries[1:]:
        if "name" not in entry or "averageMs" not in entry:
            unit = "time" in entry or "average" in entry
            got = "times without a unit" if unit else "a layer without name and averageMs"
            raise _foreign(path, got)
        ms = entry.get("medianMs", entry["averageMs"])
        ops.append(OpTime(str(entry["name"]), "", _milliseconds(ms)))
    if not ops:
        raise _foreign(path, "no layers: trtexec ran without --profilingVerbosity or --dumpProfile")
    return Profile(TENSORRT, tuple(ops), int(entries[0]["count"]))


def _tflite(path: Path, text: str) -> Profile:
    regular = text.rpartition(_TFLITE_RUNS)[2]
    primary, _, delegate = regular.partition(_TFLITE_DELEGATE)
    ops = _tflite_ops(path, primary)
    if len(ops) == 1 and "delegate" in ops[0].kind.lower():
        if not _TFLITE_HEADER.search(delegate):
            raise _foreign(path, f"one operator for all, {ops[0].kind}")
        ops = _tflite_ops(path, delegate)
    counts = re.findall(r"count=(\d+)", text)
    if not ops:
        raise _foreign(path, "an empty table of operators")
    return Profile(TFLITE, tuple(ops), int(counts[-1]) if counts else 1)


def _tflite_ops(path: Path, text: str) -> list[OpTime]:
    """Return the operators of the first table, which is in run order."""
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if _TFLITE_HEADER.search(line)), None)
    if start is None:
        raise _foreign(path, "no table of operators in run order")
    header = lines[start]
    separator = "\t" if "[" in header else ","
    columns = [cell.strip(" []").lower() for cell in header.strip("\t \r").split(separator)]
    average = next((n for n, name in enumerate(columns) if name in _TFLITE_AVERAGE), None)
    if average is None or columns[-1] != "name":
        raise _foreign(path, f"columns {', '.join(columns)}, and no avg ms: the unit is not known")
    ops = []
    for line in lines[start + 1 :]:
        # A name may have commas.
        cells = [x.strip() for x in line.strip("\t \r").split(separator, len(columns) - 1)]
        if len(cells) != len(columns):
            break
        try:
            ops.append(OpTime(cells[-1], cells[0], _milliseconds(cells[average])))
        except ValueError:
            raise _foreign(path, f"avg ms {cells[average]!r}") from None
    return ops


def _milliseconds(value: Any) -> float:
    """Return a time that is one.

    Raises: ValueError for text that is no number, and for numbers below 0 or not finite.
    """
    ms = float(value)
    if not 0 <= ms < inf:
        raise ValueError(f"{value} ms")
    return ms


def _foreign(path: Path, got: str) -> SettingError:
    return SettingError.because(
        f"{path.name} is no profile that can be imported",
        got=got,
        allowed=TOOLS,
        remedy="profile the ONNX file with one of them",
        argument="profile",
    )


# Networks.


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table to be: a block at its widths, output side in pixels and stride."""

    sized: SizedBlock
    side: int
    stride: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node of an ONNX file: its name and those of what it writes; the index of its block.

    `conv`: the convolution as a block of one layer; None for another node, or for a convolution
    that no kind is, as a dilated one.
    """

    names: tuple[str, ...]
    is_conv: bool
    block: int | None
    conv: Case | None


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """A block in the metadata of an ONNX file: the full name of its module, widths and stride."""

    name: str
    sized: SizedBlock
    stride: int


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """The nodes of an ONNX file in their order, and the blocks that they are of."""

    nodes: tuple[Node, ...]
    blocks: tuple[BlockEntry, ...]

    @classmethod
    def read(cls, path: Path) -> "OnnxNetwork":
        """Return the network of an ONNX file.

        Raises: SettingError for a file of something else, or without convolutions.
        """
        import onnx

        try:
            check_no_device(path)
            model = onnx.shape_inference.infer_shapes(
                onnx.load(path, load_external_data=False), data_prop=True
            )
            metadata = {entry.key: entry.value for entry in model.metadata_props}
            blocks = tuple(_block_entry(x) for x in json.loads(metadata.get(BLOCKS_KEY, "[]")))
            nodes = tuple(_nodes(model.graph, blocks))
        except (OSError, KeyError, TypeError, ValueError, IfspaceError) as error:
            raise _no_network(path, reason(error)) from None
        except Exception as error:  # protobuf's own, which has no public base class
            raise _no_network(path, type(error).__name__) from None
        if not any(node.is_conv for node in nodes):
            raise _no_network(path, "no convolution")
        return cls(nodes, blocks)

    @property
    def convolutions(self) -> tuple[int, ...]:
        """The indices of the convolutions."""
        return tuple(index for index, node in enumerate(self.nodes) if node.is_conv)

    def case_of(self, block: int) -> Case | None:
        """Return a block as a case; its side is that of its last convolution."""
        convs = [node.conv for node in self.nodes if node.is_conv and node.block == block]
        entry = self.blocks[block]
        last = convs[-1] if convs else None
        return None if last is None else Case(entry.sized, last.side, entry.stride)


def _no_network(path: Path, got: str) -> SettingError:
    return SettingError.because(
        f"{path.name} is no {ARGUMENT} that a profile can be of",
        got=got,
        allowed="the ONNX file that was profiled, as ifspace.nn.export_onnx writes one",
        remedy="give that file",
        argument="network",
    )


def _block_entry(value: Mapping[str, Any]) -> BlockEntry:
    bottleneck = value["bottleneck"]
    sized = Block.parse(value["block"]).at(
        value["channels"], value["out_channels"], bottleneck and Fraction(bottleneck)
    )
    return BlockEntry(value["name"], sized, value["stride"])


def _nodes(graph: Any, blocks: Sequence[BlockEntry]) -> Iterator[Node]:
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output, *graph.input)
    }
    sizes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    block: int | None = None
    for node in graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        if _SCOPES in metadata:
            block = _block_of(literal_eval(metadata[_SCOPES]), blocks)
        # A node that the exporter added is of the block of the one before it.
        is_conv = node.op_type == "Conv"
        conv = _conv_case(node, sizes) if is_conv else None
        yield Node((node.name, *node.output), is_conv, block, conv)


def _block_of(scopes: Sequence[str], blocks: Sequence[BlockEntry]) -> int | None:
    """Return the index of the block whose module is among the scopes, from the root inwards."""
    return next((n for n, entry in enumerate(blocks) if entry.name in scopes), None)


def _conv_case(node: Any, sizes: Mapping[str, Sequence[int]]) -> Case | None:
    attributes = {attribute.name: attribute for attribute in node.attribute}

    def numbers(name: str, default: int) -> tuple[int, ...]:
        return tuple(attributes[name].ints) if name in attributes else (default, default)

    weight, written = sizes.get(node.input[1], ()), sizes.get(node.output[0], ())
    groups = attributes["group"].i if "group" in attributes else 1
    strides, dilations = numbers("strides", 1), numbers("dilations", 1)
    is_square = len(weight) == 4 and weight[2] == weight[3] and len(set(strides)) == 1
    if not is_square or set(dilations) != {1} or len(written) != 4 or written[2] != written[3]:
        return None
    c_out, fan_in, kernel, _ = weight
    try:
        layer = convolution(fan_in * groups, c_out, kernel, groups).layer
        return Case(Block((layer,)).at(fan_in * groups, c_out), written[2], strides[0])
    except IfspaceError:  # such as a kernel of even size
        return None


# Profile and network.


@dataclass(frozen=True, slots=True)
class ImportedLatencies:
    """The table of an imported profile, and what to know of it."""

    table: LatencyRows
    notes: tuple[str, ...]


def import_profile(
    profile: Profile,
    network: OnnxNetwork,
    device: str,
    dtype: str | None = None,
    batch: int | None = None,
) -> ImportedLatencies:
    """Return the latency table of a profile of a network.

    `dtype` and `batch` are needed where the profile does not say them.

    Raises: SettingError for a dtype or a batch that is not that of the profile, or is not known,
        and for a profile of another network.
    """
    dtype = _condition("dtype", dtype, profile.dtype)
    images = int(_condition("batch", batch, profile.batch))
    by_order = profile.runtime == TFLITE
    owners = _in_order(profile, network) if by_order else _by_name(profile, network)
    # Milliseconds of each block, and of each convolution outside of them by its node.
    block_ms: dict[int, float] = {}
    conv_ms: dict[int, float] = {}
    elsewhere_ms = 0.0
    for op, owner in zip(profile.ops, owners, strict=True):
        node = None if owner is None else network.nodes[owner]
        if node is not None and node.block is not None:
            block_ms[node.block] = block_ms.get(node.block, 0.0) + op.ms
        elif owner is not None and node is not None and node.conv is not None:
            conv_ms[owner] = conv_ms.get(owner, 0.0) + op.ms
        else:
            elsewhere_ms += op.ms
    timed = [(network.nodes[index].conv, ms) for index, ms in conv_ms.items()]
    timed += [(network.case_of(block), ms) for block, ms in block_ms.items()]
    times: dict[Case, list[float]] = {}
    for case, ms in timed:
        if case is not None:
            times.setdefault(case, []).append(ms)
    bottlenecks = sum(case.sized.bottleneck is not None for case in times)
    runs = counted(profile.runs, "run")
    table = LatencyRows(device, dtype, f"{profile.runtime}, sum of kernels, {runs}")
    for case, several in times.items():
        candidate = BlockCandidate(case.sized, case.side, images, case.stride)
        table.put(candidate, fmean(several), MEASURED)
    total_ms = sum(op.ms for op in profile.ops)
    notes = [
        f"{counted(len(table), 'case')} of {profile.runtime}, {device}, batch {images}, {dtype}"
    ]
    if not network.blocks:
        notes.append("the file does not say its blocks: only its convolutions are in the table")
    if bottlenecks:
        notes.append(
            f"left out: {counted(bottlenecks, 'block')} with a bottleneck, which no column holds"
        )
    reordering_ms = sum(op.ms for op in profile.ops if op.kind in (_BEFORE, _AFTER))
    if reordering_ms:
        notes.append(
            f"{reordering_ms / total_ms:.0%} of the time is {_BEFORE} and {_AFTER}, counted for "
            "the blocks and convolutions that they serve"
        )
    if elsewhere_ms:
        share = elsewhere_ms / total_ms
        notes.append(f"{share:.0%} of the time is of no block and no convolution")
    return ImportedLatencies(table, tuple(notes))


def _condition(name: str, value: Any, of_profile: Any) -> Any:
    if value is None and of_profile is None:
        raise SettingError.because(
            f"the profile does not say its {name}",
            got=f"no {ARGUMENT}",
            allowed="what was run",
            remedy=f"add {ARGUMENT}",
            argument=name,
        )
    if value is not None and of_profile is not None and value != of_profile:
        raise SettingError.because(
            f"{ARGUMENT} is not that of the profile",
            got=value,
            allowed=of_profile,
            remedy="leave it out",
            argument=name,
        )
    return of_profile if value is None else value


def _by_name(profile: Profile, network: OnnxNetwork) -> list[int | None]:
    """Return of each operator the index of its node: of its first convolution, or its first one.

    An operator that the runtime added, without the name of a node, is of the one before it; of the
    next one if it brings the input into another layout.
    """
    index_of = {
        name: index for index, node in enumerate(network.nodes) for name in node.names if name
    }
    owners: list[int | None] = []
    matched: set[int] = set()
    for op in profile.ops:
        words = re.split(r"[\s+,()\[\]{}]+", op.name)
        words += [word.removesuffix("_nchwc") for word in words]
        indices = sorted(
            {index_of[word] for word in words if word in index_of} | _ranges(words, index_of)
        )
        matched |= set(indices)
        convs = [index for index in indices if network.nodes[index].is_conv]
        if indices and not convs and "conv" in op.kind.lower():
            # Named after the last of what was fused: its convolution is the one before.
            convs = [max(index for index in (0, *network.convolutions) if index <= indices[0])]
        owners.append(next(iter(convs or indices), None))
    # A convolution is matched by its own name, or by what the runtime fused behind it writes.
    convolutions = network.convolutions
    ends = (*convolutions[1:], len(network.nodes))
    missing = [
        start
        for start, end in zip(convolutions, ends, strict=True)
        if not matched & set(range(start, end))
    ]
    if missing:
        raise _other_network(
            f"{len(convolutions) - len(missing)} of "
            f"{counted(len(convolutions), 'convolution')} by name, "
            f"not {network.nodes[missing[0]].names[0]}"
        )
    return _filled(owners, lambda index: profile.ops[index].name.startswith(_BEFORE))


def _ranges(words: Sequence[str], index_of: Mapping[str, int]) -> set[int]:
    """Return the nodes of what TensorRT fuses as a whole, "{ForeignNode[FIRST...LAST]}".

    >>> sorted(_ranges(["a...c"], {"a": 0, "b": 1, "c": 2}))
    [0, 1, 2]
    """
    indices: set[int] = set()
    for word in words:
        first, dots, last = word.partition("...")
        if dots and first in index_of and last in index_of:
            indices |= set(range(index_of[first], index_of[last] + 1))
    return indices


def _filled(owners: list[int | None], is_before: Callable[[int], bool]) -> list[int | None]:
    """Return the owners with those of their neighbours in the place of None."""
    filled = list(owners)
    for index in range(len(filled)):
        if filled[index] is None and index and not is_before(index):
            filled[index] = filled[index - 1]
    for index in reversed(range(len(filled) - 1)):
        if filled[index] is None:
            filled[index] = filled[index + 1]
    return filled


def _in_order(profile: Profile, network: OnnxNetwork) -> list[int | None]:
    """Return of each operator the index of its node, where the convolutions are in one order."""
    convolutions = network.convolutions
    places = [n for n, op in enumerate(profile.ops) if _TFLITE_CONV.match(op.kind)]
    if len(places) != len(convolutions):
        raise _other_network(f"{counted(len(places), 'convolution')}, not {len(convolutions)}")
    owners: list[int | None] = [None] * len(profile.ops)
    for place, index in zip(places, convolutions, strict=True):
        owners[place] = index
    ends = (*places, len(profile.ops))
    for number, (place, end) in enumerate(pairwise(ends)):
        this = convolutions[number]
        after = convolutions[number + 1] if number + 1 < len(convolutions) else None
        block = network.nodes[this].block
        same = after is not None and block is not None and network.nodes[after].block == block
        for between in range(place + 1, end):
            kind = profile.ops[between].kind
            if same or _TFLITE_AFTER.search(kind):
                owners[between] = this
            elif _TFLITE_BEFORE.search(kind):
                owners[between] = after
    first = range(places[0]) if places else range(0)
    for place in first:
        if _TFLITE_BEFORE.search(profile.ops[place].kind):
            owners[place] = convolutions[0]
    return owners


def _other_network(got: str) -> SettingError:
    return SettingError.because(
        f"the profile is of another network than {ARGUMENT}",
        got=got,
        allowed="the ONNX file that was profiled",
        remedy="give that file",
        argument="network",
    )
