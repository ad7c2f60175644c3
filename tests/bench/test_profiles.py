"""Profiles of other runtimes: read from each tool's format, matched to blocks, made a table."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from ifspace.bench.profiles import OnnxNetwork, import_profile, read_profile
from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.latency import Latency, read_latency
from ifspace.nn import build, export_onnx
from ifspace.nn.export import BLOCKS_KEY

# The network: a stem, CONV 3 to 8 at stride 2; DW+PW from 8 to 16, stride 2; PW+DW at 16.
CONVS = (
    ("stem", 3, 8, 3, 1, 2, 8),
    ("0.layer0", 8, 8, 3, 8, 2, 4),
    ("0.layer1", 8, 16, 1, 1, 1, 4),
    ("1.layer0", 16, 16, 1, 1, 1, 4),
    ("1.layer1", 16, 16, 3, 16, 1, 4),
)
BLOCKS = (("0", "DW+PW", 8, 16, 2), ("1", "PW+DW", 16, 16, 1))


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """An ONNX file of the network: each convolution with a ReLU behind it."""
    nodes, weights, sizes = [], [], []
    source = "x"
    for name, c_in, c_out, kernel, groups, stride, side in CONVS:
        weights.append(
            helper.make_tensor(
                f"{name}.weight",
                TensorProto.FLOAT,
                [c_out, c_in // groups, kernel, kernel],
                np.zeros(c_out * c_in // groups * kernel**2, np.float32),
            )
        )
        conv = helper.make_node(
            "Conv",
            [source, f"{name}.weight"],
            [f"{name}.out"],
            f"conv_{name}",
            group=groups,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
        )
        relu = helper.make_node("Relu", [f"{name}.out"], [f"{name}.relu"], f"relu_{name}")
        scopes = ["", name.partition(".")[0], name]
        for node in (conv, relu):
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
            nodes.append(node)
        source = f"{name}.relu"
        sizes.append(side)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", 16, 4, 4])],
        weights,
    )
    model = helper.make_model(graph)
    names = ("name", "block", "channels", "out_channels", "stride")
    blocks = [dict(zip(names, row, strict=True)) | {"bottleneck": None} for row in BLOCKS]
    helper.set_model_props(model, {BLOCKS_KEY: json.dumps(blocks)})
    path = tmp_path / "network.onnx"
    onnx.save(model, path)
    return path


def kernel(name: str, op: str, us: int, dtype: str = "float", batch: int = 2) -> dict[str, Any]:
    """An event of a profile of ONNX Runtime 1.23."""
    args = {"op_name": op, "provider": "CPUExecutionProvider", "node_index": "0"}
    args |= {"input_type_shape": [], "output_type_shape": [{dtype: [batch, 16, 4, 4]}]}
    name += "_kernel_time"
    return {"cat": "Node", "ph": "X", "name": name, "dur": us, "ts": 0, "args": args}


def onnx_runtime(*runs: int, **options: Any) -> str:
    """A profile with runs of so many times the microseconds; fused and reordered as it does."""
    events = [{"cat": "Session", "name": "session_initialization", "dur": 9999, "args": {}}]
    for times in runs:
        for name, op, us in (
            ("conv_stem", "FusedConv", 100),
            ("ReorderInput_token_1", "ReorderInput", 5),
            ("0.layer0.relu_nchwc", "Conv", 30),
            ("0.layer1.relu_nchwc", "Conv", 20),
            ("ReorderOutput", "ReorderOutput", 7),
            ("conv_1.layer0", "Conv", 11),
            ("relu_1.layer0", "Relu", 2),
            ("conv_1.layer1", "FusedConv", 40),
        ):
            events.append(kernel(name, op, us * times, **options))
        events.append({"cat": "Session", "ph": "X", "name": "model_run", "dur": 1, "args": {}})
    return json.dumps(events)


TENSORRT = """[
  { "count" : 50 }
, { "name" : "Reformatting CopyNode for Input Tensor 0 to conv_stem + relu_stem", "timeMs" : 0.5,
    "averageMs" : 0.01, "percentage" : 4 }
, { "name" : "conv_stem + relu_stem", "timeMs" : 5, "averageMs" : 0.1, "percentage" : 40 }
, { "name" : "conv_0.layer0 + relu_0.layer0", "timeMs" : 1.5, "averageMs" : 0.03,
    "medianMs" : 0.035, "percentage" : 12 }
, { "name" : "conv_0.layer1 + relu_0.layer1", "timeMs" : 1, "averageMs" : 0.02, "percentage" : 8 }
, { "name" : "conv_1.layer0 + PWN(relu_1.layer0)", "timeMs" : 0.65, "averageMs" : 0.013,
    "percentage" : 5 }
, { "name" : "conv_1.layer1", "timeMs" : 2, "averageMs" : 0.04, "percentage" : 16 }
, { "name" : "relu_1.layer1", "timeMs" : 0.1, "averageMs" : 0.002, "percentage" : 1 }
]
"""
OPS = (
    ("CONV_2D", 0.1, "relu_stem"),
    ("PAD", 0.004, "pad"),
    ("DEPTHWISE_CONV_2D", 0.03, "a"),
    ("CONV_2D", 0.02, "b"),
    ("CONV_2D", 0.011, "c"),
    ("TRANSPOSE", 0.002, "d"),
    ("DEPTHWISE_CONV_2D", 0.04, "e"),
    ("ADD", 0.003, "f"),
    ("MEAN", 0.1, "g"),
)


def tflite_table(ops: Iterable[tuple[str, float, str]], more: str = "") -> str:
    """A table of benchmark_model of TensorFlow Lite 2.16, or with a further column."""
    columns = ["node type", *[more] * bool(more), "first", "avg ms", "%", "cdf%", "mem KB"]
    lines = ["\t".join(["", *(f"[{x}]" for x in (*columns, "times called", "Name"))])]
    for kind, ms, name in ops:
        cells = [f"{kind:>24}", *["   5.000"] * bool(more), f"    {ms}", f"    {ms}"]
        lines.append("\t".join(["", *cells, " 10.0%", " 10.0%", "     0.000", "   1", f"[{name}]"]))
    return "\n".join(["======= Run Order =======", *lines, ""])


def tflite(ops: Iterable[tuple[str, float, str]] = OPS, more: str = "") -> str:
    """What benchmark_model writes: profiles of the start, of the runs, and again by time."""
    return f"""STARTING!
Log parameter values verbosely: [0]
count=50 first=452 curr=310 min=300 max=452 avg=312.4 std=14

Profiling Info for Benchmark Initialization:
{tflite_table([("AllocateTensors", 0.147, "AllocateTensors/0")], more)}
Operator-wise Profiling Info for Regular Benchmark Runs:
{tflite_table(ops, more)}
{tflite_table([("CONV_2D", 9.9, "relu_stem")], more)}
"""


TFLITE = tflite()


@pytest.fixture
def profile(tmp_path: Path) -> Callable[[str], Path]:
    def profile(text: str) -> Path:
        path = tmp_path / "profile.json"
        path.write_text(text, "utf-8")
        return path

    return profile


def table(run: Callable, profile: Path, network: Path, *options: object) -> dict[str, float]:
    """Import a profile, and read back what `--latency` reads: milliseconds by block."""
    path = profile.with_name("table.csv")
    arguments = ("bench", "--import", profile, "--network", network, "--quiet", "--out", path)
    ended = run(*arguments, *options)
    assert (ended.status, ended.err) == (0, "")
    cases = read_latency(path).cases
    assert {case: side for case, *_, side, _ in cases} == {"CONV": 8, "DW+PW": 4, "PW+DW": 4}
    assert {case: stride for case, *_, stride in cases} == {"CONV": 2, "DW+PW": 2, "PW+DW": 1}
    return {case: round(float(ms), 6) for (case, *_), ms in cases.items()}


def test_onnx_runtime_by_names(run: Callable, profile: Callable, network: Path) -> None:
    # Of three runs the first is left out; of the others the median of each kernel.
    path = profile(onnx_runtime(50, 1, 3))
    expected = {"CONV": 0.1, "DW+PW": 0.005 + 0.03 + 0.02 + 0.007, "PW+DW": 0.011 + 0.002 + 0.04}
    times = {case: pytest.approx(2 * ms) for case, ms in expected.items()}
    assert table(run, path, network) == times
    source = read_latency(path.with_name("table.csv"))
    assert (source.batch, source.dtype, source.device) == (2, "fp32", "other")
    assert source.find(Block.parse("DW+PW").at(8, 16), 4, 2) == Latency.of(2 * 0.062)
    # 12 of 215 microseconds.
    note = "6% of the time is ReorderInput and ReorderOutput, counted for the blocks"
    assert note in run("bench", "--import", path, "--network", network).err


def test_tensorrt_by_names(run: Callable, profile: Callable, network: Path) -> None:
    conditions = ("--batch", 8, "--dtype", "fp16", "--device", "orin")
    times = table(run, profile(TENSORRT), network, *conditions)
    assert times == {"CONV": 0.11, "DW+PW": 0.055, "PW+DW": 0.055}
    source = read_latency(network.with_name("table.csv"))
    assert (source.batch, source.dtype, source.device) == (8, "fp16", "orin")


def test_tflite_in_order(run: Callable, profile: Callable, network: Path) -> None:
    conditions = ("--batch", 1, "--dtype", "int8", "--device", "phone")
    times = table(run, profile(TFLITE), network, *conditions)
    assert times == {"CONV": 0.1, "DW+PW": 0.054, "PW+DW": 0.056}
    ended = run("bench", "--import", profile(TFLITE), "--network", network, *conditions)
    assert "32% of the time is of no block and no convolution" in ended.err


def test_tflite_names_of_xnnpack_and_the_columns_of_older_versions(
    profile: Callable, network: Path
) -> None:
    expected = [ms for _, ms, _ in OPS]
    assert [op.ms for op in read_profile(profile(tflite(more="start"))).ops] == expected
    names = {"CONV_2D": "GEMM", "DEPTHWISE_CONV_2D": "DWConv"}
    ops = [
        (f"Convolution (NHWC, F32) {names[kind]}" if kind in names else kind, ms, name)
        for kind, ms, name in OPS
    ]
    imported = import_profile(
        read_profile(profile(tflite(ops))), OnnxNetwork.read(network), "phone", "fp32", 1
    )
    assert [float(row[8]) for row in imported.table.table.rows] == [0.1, 0.054, 0.056]


def tflite_csv(
    ops: Iterable[tuple[str, float, str]], *, start: bool = False, more: str = ""
) -> str:
    """What benchmark_model writes to --profiling_output_csv_file; older versions have a start."""
    columns = ["node type", *["start"] * start, "first", "avg_ms", "%", "cdf%", "mem KB"]
    head = ", ".join([*columns, "times called", "name"])
    rows = [
        ", ".join([kind, *["5"] * start, f"{ms}", f"{ms}", "10%", "10%", "0", "1", name])
        for kind, ms, name in ops
    ]
    run_order = "\n".join(["===== Run Order =====", head, *rows, ""])
    by_type = (
        "node type, count, avg_ms, avg %, cdf %, mem KB, times called\nCONV_2D, 3, 9, 1%, 1%, 0, 3"
    )
    return f"""Profiling Info for Benchmark Initialization:
===== Run Order =====
{head}
AllocateTensors, {"0, " * start}0.1, 0.147, 100%, 100%, 0, 1, AllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
{run_order}
===== Top by Computation Time =====
{head}
CONV_2D, {"0, " * start}9.9, 9.9, 50%, 50%, 0, 1, relu_stem

Number of nodes executed: 9
===== Summary by node type =====
{by_type}
{more}
"""


@pytest.mark.parametrize("start", [False, True])
def test_tflite_csv(run: Callable, profile: Callable, network: Path, start: bool) -> None:
    conditions = ("--batch", 1, "--dtype", "int8", "--device", "phone")
    named = [(kind, ms, f"{name}, and {name}") for kind, ms, name in OPS]
    times = table(run, profile(tflite_csv(named, start=start)), network, *conditions)
    assert times == {"CONV": 0.1, "DW+PW": 0.054, "PW+DW": 0.056}


def test_operators_inside_a_delegate_that_runs_everything(profile: Callable) -> None:
    delegate = [("TfLiteXNNPackDelegate", 0.4, "all")]
    inside = "Delegate internal: \n" + tflite_csv(OPS).partition("Runs:\n")[2]
    ops = read_profile(profile(tflite_csv(delegate, more=inside))).ops
    assert [op.ms for op in ops] == [ms for _, ms, _ in OPS]


def test_names_of_tensorrt(run: Callable, profile: Callable, network: Path) -> None:
    """Layers side by side, reformatters, and what is fused as a whole."""
    text = """[ { "count" : 50 }
, { "name" : "conv_stem + relu_stem input reformatter 0", "averageMs" : 0.01 }
, { "name" : "conv_stem + relu_stem || relu_stem", "averageMs" : 0.1 }
, { "name" : "{ForeignNode[conv_0.layer0...relu_0.layer1]}", "averageMs" : 0.05 }
, { "name" : "conv_1.layer0 + conv_1.layer1", "averageMs" : 0.04, "medianMs" : 0.06 }
, { "name" : "relu_1.layer1 output reformatter 0", "averageMs" : 0.005 } ]"""
    conditions = ("--batch", 8, "--dtype", "fp16", "--device", "orin")
    times = table(run, profile(text), network, *conditions)
    assert times == {"CONV": 0.11, "DW+PW": 0.05, "PW+DW": 0.065}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither JSON nor the table"),
        (TENSORRT[:-40], "neither JSON nor the table"),
        (TENSORRT.replace("0.013", '"fast"'), "a damaged file (ValueError"),
        (TENSORRT.replace("0.013", "-1"), "a damaged file (ValueError: -1 ms)"),
        ('[{"count": []}, {"name": "conv", "averageMs": 1}]', "a damaged file (TypeError"),
        ('{"Layers": ["conv"], "Bindings": []}', "layers without times"),
        ('[{"startComputeMs": 1, "endComputeMs": 2}]', "times of whole runs"),
        (tflite_csv(OPS).replace("avg_ms", "avg"), "no avg ms: the unit is not known"),
        (tflite_csv(OPS).replace("0.03,", "many,"), "avg ms 'many'"),
        (onnx_runtime(1).replace('"args": {"op_name"', '"args": 5, "x": {"op_name"'), "a damaged"),
        ("{}", "JSON of something else"),
        ("[]", "JSON of something else"),
        ('{"traceEvents": []}', "a trace of another tool, such as the profiler of PyTorch"),
        ('[{"cat": "cpu_op", "name": "aten::conv2d"}]', "JSON without operators"),
        ('[{"count": 5}, {"name": "conv", "time": 3}]', "times without a unit"),
        ('[{"count": 5}]', "no layers"),
        (
            onnx_runtime(1).replace("output_type_shape", "shape"),
            "conv_stem_kernel_time without dur, op_name and output_type_shape",
        ),
        (onnx_runtime(1).replace("model_run", "run"), "no complete run"),
        (TFLITE.replace("[avg ms]", "[avg]"), "no avg ms: the unit is not known"),
        (
            tflite([("TfLiteXNNPackDelegate", 0.3, "y")]),
            "one operator for all, TfLiteXNNPackDelegate",
        ),
    ],
)
def test_files_of_other_tools_and_versions_raise(
    run: Callable, profile: Callable, network: Path, text: str, words: str
) -> None:
    ended = run("bench", "--import", profile(text), "--network", network)
    ended.fails_with(
        "profile.json is no profile that can be imported: got", words, "allowed: a pro"
    )


def test_several_batches_in_a_profile_raise(profile: Callable) -> None:
    events = json.loads(onnx_runtime(1)) + json.loads(onnx_runtime(1, batch=4))
    with pytest.raises(SettingError, match="runs of several batches or types: 2, 4"):
        read_profile(profile(json.dumps(events)))


def test_what_was_run_is_needed_and_compared(
    run: Callable, profile: Callable, network: Path
) -> None:
    def ended(text: str, *options: object) -> Any:
        return run("bench", "--import", profile(text), "--network", network, *options)

    ended(TENSORRT, "--batch", 8).fails_with("does not say its dtype: got no --dtype;")
    ended(TFLITE, "--dtype", "fp32").fails_with("does not say its batch: got no --batch;")
    ended(onnx_runtime(1), "--batch", 1).fails_with("--batch is not that of the profile: got 1")
    ended(onnx_runtime(1), "--dtype", "fp16").fails_with("--dtype is not that of the profile")
    ended(onnx_runtime(1), "--side", 8).fails_with("got --side and --network and --import")
    run("bench", "--network", network).fails_with("got --network; allowed: --import and --network")


def test_a_profile_of_another_network_raises(
    run: Callable, profile: Callable, network: Path, tmp_path: Path
) -> None:
    other = onnx_runtime(1).replace("conv_1.layer1", "conv_x")
    ended = run("bench", "--import", profile(other), "--network", network)
    ended.fails_with("another network than --network: got 4 of 5 convolutions", "conv_1.layer1")
    other = TFLITE.replace("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
    conditions = ("--batch", 1, "--dtype", "fp32")
    ended = run("bench", "--import", profile(other), "--network", network, *conditions)
    ended.fails_with("another network than --network: got 3 convolutions, not 5")
    foreign = tmp_path / "foreign.onnx"
    for content in (b"", b"no protobuf"):
        foreign.write_bytes(content)
        ended = run("bench", "--import", profile(onnx_runtime(1)), "--network", foreign)
        ended.fails_with("foreign.onnx is no --network that a profile can be of")


@pytest.mark.slow
def test_a_real_profile_of_onnx_runtime(run: Callable, tmp_path: Path) -> None:
    """All of the time of the kernels is in the blocks, whether they are fused or not."""
    blocks = [
        build("DW+RPW(2,1/2)+SH(4)+GPW(4)", 16, stride=2, style="mobilenet"),
        build("GC(4)+PW", 16, 32, style="mobilenet"),
    ]
    path = tmp_path / "blocks.onnx"
    export_onnx(torch.nn.Sequential(*blocks), torch.randn(1, 16, 8, 8), path)
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / level)
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(3):
            session.run(None, {"x": np.ones((4, 16, 8, 8), np.float32)})
        profile = Path(session.end_profiling())
        arguments = ("bench", "--import", profile, "--network", path, "--format", "json")
        rows = run(*arguments, "--device", "here").json["rows"]
        shapes = [[row[name] for name in ("block", "C", "F", "side", "stride")] for row in rows]
        assert shapes == [["DW+RPW(2,1/2)+SH(4)+GPW(4)", 16, 16, 4, 2], ["GC(4)+PW", 16, 32, 4, 1]]
        assert {(row["batch"], row["dtype"], row["device"]) for row in rows} == {
            (4, "fp32", "here")
        }
        total = sum(op.ms for op in read_profile(profile).ops)
        assert sum(row["latency_ms"] for row in rows) == pytest.approx(total, abs=1e-5)


def test_options_are_checked_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ifspace.cli.main import main\n"
        "try:\n    main(['bench', '--import', 'a.json', '--side', '8'])\n"
        "finally:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "got --side and --import" in done.stderr
