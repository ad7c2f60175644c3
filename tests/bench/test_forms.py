"""Blocks in other forms: what they compute, which modes are timed, how they are counted."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import SMALL
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ifspace.bench.blocks import NAMES, BlockShape
from ifspace.bench.case import BlockCandidate, Conditions, is_rolling, windows_of_layer
from ifspace.bench.forms import FORMS, Form, find_forms, is_changed, peak_bytes
from ifspace.bench.gate import block_fault
from ifspace.bench.latency import features
from ifspace.bench.machine import Machine
from ifspace.bench.rows import Measurements
from ifspace.bench.session import BenchSettings, BlockBench
from ifspace.block import Block
from ifspace.catalogue import load
from ifspace.errors import SettingError
from ifspace.kernels import launch
from ifspace.kernels.chain import tiles
from ifspace.kernels.chain.triton import chain_launch, pack, plan_of
from ifspace.kernels.launch import Launch
from ifspace.kernels.rpw import triton as rpw
from ifspace.measurements import AS_IS, BOTH_WAYS, COLLAPSED, FORWARD, LEAST, ONE_PASS
from ifspace.nn import build, fuse
from ifspace.nn.block import PLAIN, BlockModule
from ifspace.nn.fuse import Fused

CATALOGUE_64 = Path(__file__).parents[2] / "results" / "catalogue-64.parquet"
CPU = torch.device("cpu")
TEXTS = (
    "DW+RPW(4,0)+RPW(4,0)",
    "GC(4)+SH(4)+GPW(4)",
    "RPW(4,1/2)+DW+GPW(2)+GPW(2)",
    "GPW(8)+SH(2)+GPW(8)+CONV+PW",
    "(DW+RPW(4,0)+PW)x2",
)
Blocks = Callable[..., BlockCandidate]


@pytest.mark.parametrize("style", ["plain", "mobilenet", "fog"])
@pytest.mark.parametrize("text", TEXTS)
def test_layers_of_a_collapsed_block_are_those_of_its_module(
    text: str, style: str, block: Blocks, here: Conditions
) -> None:
    here = replace(here, style=style)
    candidate = block(text, 16, 32, stride=2, form=COLLAPSED)
    module = here.in_form(here.build(candidate).eval(), COLLAPSED)
    weights = [w.numel() for w in module.parameters() if w.dim() > 1]
    projection = 16 * 32 * (style == "fog")
    assert candidate.params(here) == sum(weights) - projection
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(here.draw(*candidate.in_shape))
    macs = candidate.macs_per_pixel(here) * 36 * candidate.batch
    assert counter.get_total_flops() == 2 * (macs + projection * 36 * candidate.batch)


def test_features_of_a_collapsed_block_are_those_of_its_layers(
    block: Blocks, here: Conditions
) -> None:
    collapsed = block("DW+RPW(4,0)+RPW(4,0)", form=COLLAPSED)
    assert features(collapsed, here) == features(block("DW+PW"), here)
    styled = replace(here, style="fog")
    # Batch norm is folded: the sum and the activation behind it are left.
    maps = 2 * 36 * 16 * 4
    assert features(collapsed, styled)["elementwise bytes"] == 2 * 2 * maps
    assert features(replace(collapsed, form=AS_IS), styled)["elementwise bytes"] == 2 * 5 * maps


def test_a_form_with_batch_norm_folded_does_not_train(block: Blocks, here: Conditions) -> None:
    collapsed = block("DW+GPW(4)+PW", form=COLLAPSED)
    assert collapsed.modes(here) == (FORWARD, BOTH_WAYS)
    assert collapsed.modes(replace(here, style="mobilenet")) == (FORWARD,)
    as_is = replace(collapsed, form=AS_IS)
    assert as_is.modes(replace(here, style="mobilenet")) == (FORWARD, BOTH_WAYS)
    assert (collapsed.label, as_is.label) == ("DW+GPW(4)+PW, collapsed", "DW+GPW(4)+PW")


def test_a_fused_block_is_one_pass_for_inference(block: Blocks, here: Conditions) -> None:
    fused = block("DW+RPW(4,0)+PW", 16, 32, form=ONE_PASS, stride=2)
    assert fused.modes(here) == (FORWARD,)
    params = 9 * 16 + 16 * 4 + 16 * 32
    bytes_moved = 4 * (2 * 16 * 12**2 + 2 * 32 * 6**2 + params)
    counts = {"operations": 2 * params * 2 * 6**2, "bytes": bytes_moved, "launches": 1}
    assert features(fused, here) == {f"fused {name}": count for name, count in counts.items()}
    assert features(fused, replace(here, style="mobilenet")) == features(fused, here)
    assert fused.params(here) == params


@pytest.mark.slow
@pytest.mark.parametrize("style", ["plain", "mobilenet", "fog"])
def test_a_fused_block_passes_the_gate(style: str, block: Blocks, here: Conditions) -> None:
    for text in ("DW+RPW(4,0)+GPW(4)", "GPW(4)+SH(4)+DW+GPW(4)"):
        assert block_fault(block(text, form=ONE_PASS), replace(here, style=style)) is None


@pytest.mark.parametrize("text", TEXTS)
def test_a_right_form_passes_the_gate(text: str, block: Blocks, here: Conditions) -> None:
    for style in ("plain", "mobilenet"):
        candidate = block(text, form=COLLAPSED)
        assert block_fault(candidate, replace(here, style=style)) is None


@pytest.mark.usefixtures("quick")
def test_a_form_that_computes_something_else_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, here: Conditions
) -> None:
    def halved(module: nn.Module) -> nn.Module:
        changed = FORMS_COLLAPSED.apply(module)
        with torch.no_grad():
            next(changed.parameters()).mul_(0.5)
        return changed

    FORMS_COLLAPSED = FORMS[COLLAPSED]
    monkeypatch.setitem(FORMS, COLLAPSED, Form(COLLAPSED, halved))
    settings = BenchSettings(
        BlockShape(16, 16, 4, 2), here, 2, repeats=3, calibrate=False, forms=(AS_IS, COLLAPSED)
    )
    machine = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
    rows = Measurements(machine)
    bench = BlockBench(SMALL, settings, machine, rows, lambda: None, lambda done, total: None)
    bench.execute()
    assert [key[0::3] for key in bench.failed] == [("DW+RPW(4,0)+RPW(4,0)", COLLAPSED)]
    assert "output is wrong" in next(iter(bench.failed.values()))
    # DW+PW is collapsed as it is.
    assert [block.label for block in bench.shown] == [
        "DW+RPW(4,0)+RPW(4,0)",
        "DW+RPW(4,0)+RPW(4,0), collapsed",
        "DW+PW",
    ]
    assert [row["form"] for row in rows if row["metric"] == LEAST] == [AS_IS] * 4


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_model_predicts_every_form(here: Conditions) -> None:
    settings = BenchSettings(
        BlockShape(16, 16, 4, 2),
        replace(here, modes=(FORWARD,)),
        2,
        repeats=3,
        baselines=("conv",),
        forms=(AS_IS, COLLAPSED),
    )
    machine = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
    rows = Measurements(machine)
    bench = BlockBench(SMALL, settings, machine, rows, lambda: None, lambda done, total: None)
    bench.execute()
    labels = {block.label for block in bench.predictable()}
    assert {"DW+RPW(4,0)+RPW(4,0)", "DW+RPW(4,0)+RPW(4,0), collapsed"} <= labels
    assert "DW+PW, collapsed" not in labels
    (collapsed,) = (x for x in bench.shown if x.form == COLLAPSED)
    (dw_pw,) = (x for x in bench.shown if x.name == "DW+PW")
    assert bench.predict(collapsed) == pytest.approx(bench.predict(dw_pw))


def test_forms_by_name() -> None:
    assert find_forms(None, CPU) == tuple(FORMS)
    assert find_forms(["As-is"], CPU) == (AS_IS,)
    assert find_forms(None, torch.device("cuda")) == tuple(FORMS)
    with pytest.raises(SettingError, match="no such form on cpu: got 'fastest'; allowed: as-is, "):
        find_forms(["fastest"], CPU)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("text", "stride"), [("PW+DW+PW", 1), ("PW+DW+PW", 2), ("DW+PW", 1)])
def test_a_fused_block_needs_its_input_its_output_and_a_tile(
    text: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine takes while it runs, and less than layer by layer where it widens."""
    sized = Block.parse(text).at(24, bottleneck=6 if text.startswith("PW") else None)
    fused = fuse(build(sized, stride=stride))
    x = torch.ones(1, 24, 56 * stride, 56 * stride)
    taken: list[int] = []

    def recorded(floats: int) -> torch.Tensor:
        taken.append(4 * floats)
        return torch.empty(floats)

    monkeypatch.setattr(tiles, "scratch_memory", recorded)
    with torch.no_grad():
        y = fused(x)
    needed = peak_bytes(ONE_PASS, sized, 56, stride, PLAIN, "fp32")
    assert needed == x.nbytes + y.nbytes + taken[-1]  # the engine is tried before
    layer_by_layer = peak_bytes(AS_IS, sized, 56, stride, PLAIN, "fp32")
    assert layer_by_layer == 4 * 56**2 * sized.peak_per_pixel(stride)
    assert needed is not None
    assert layer_by_layer is not None
    assert (needed < layer_by_layer) == text.startswith("PW")


def test_a_collapsed_block_needs_what_its_layers_need() -> None:
    sized = Block.parse("DW+RPW(8,0)+GPW(8)").at(64, 128)
    assert peak_bytes(COLLAPSED, sized, 8, 1, PLAIN, "fp16") == 2 * 64 * (64 + 128)


def test_a_card_fuses_what_its_kernel_computes() -> None:
    def fuses(text: str, channels: int = 64) -> tuple[bool, bool]:
        how = 1, PLAIN
        return tuple(  # type: ignore[return-value]
            is_changed(ONE_PASS, Block.parse(text).at(channels), *how, device)
            for device in ("cpu", "cuda")
        )

    assert fuses("DW+RPW(16,0)+RPW(16,0)+GPW(16)") == (True, True)
    assert fuses("DW+DW+PW") == (True, False)  # two spatial convolutions
    assert fuses("GPW(4)+DW+GPW(4)", 256) == (True, False)  # it holds 128 channels
    assert fuses("DW+GPW(4)", 256) == (True, True)


@pytest.mark.slow
def test_a_run_on_a_card_compiles_few_tiles(
    here: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all blocks of a run with the defaults, those of the model too: unbounded 236 and more."""
    compiled: list[tuple[str, str]] = []
    monkeypatch.setattr(launch, "interprets", lambda: False)
    monkeypatch.setattr(launch, "target_here", lambda: "sm_90")
    monkeypatch.setattr(launch, "_fastest", {})
    monkeypatch.setattr(launch, "_time_ms", lambda _, config: config.warps)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(
        Launch,
        "compile",
        lambda own, configs: compiled.extend((own.kernel, config.name) for config in configs),
    )
    conditions = replace(here, device=torch.device("cuda"), dtype="bf16", layout="channels_last")
    shape = BlockShape(64, 64, 32, 16)
    machine = Machine("cuda-test", "2.13.0", "3.7.1", "2026-11-21")
    settings = BenchSettings(shape, conditions, baselines=NAMES, forms=tuple(FORMS))
    bench = BlockBench(
        load(CATALOGUE_64), settings, machine, Measurements(machine), lambda: None, lambda *_: None
    )
    bench._choose()
    blocks = (*bench.shown, *bench.calibration.candidates)
    launches = [one for candidate in blocks for one in card_launches(candidate, conditions)]
    problems = {tuple(map(str, (one.kernel, *one.arguments.values()))) for one in launches}
    for one in launches:
        one.choose()
    assert len(problems) > 50
    assert len(compiled) <= 120, Counter(kernel for kernel, _ in compiled)


def card_launches(candidate: BlockCandidate, conditions: Conditions) -> Iterator[Launch]:
    """Yield the launches of Triton kernels of a block, on tensors without storage."""

    def image(channels: int, side: int) -> torch.Tensor:
        shape = candidate.batch, channels, side, side
        x = torch.empty(shape, dtype=conditions.torch_dtype, device="meta")
        return x.contiguous(memory_format=torch.channels_last)

    if candidate.form == ONE_PASS:
        module = conditions.in_form(BlockModule(candidate.sized, candidate.stride), ONE_PASS)
        assert isinstance(module, Fused)
        (chain,) = (segment.run.chain for segment in module.segments if segment.run)
        plan, (_, c_in, side, _) = plan_of(chain), candidate.in_shape
        x, y = image(c_in, side), image(candidate.out_shape[1], candidate.side)
        weights = pack(torch.zeros(chain.weights), None, chain, plan, x.dtype).tensors
        yield chain_launch(x, weights, y, chain, plan, "tf32")
        return
    for layer, _, side in candidate.layers(conditions):
        if is_rolling(layer):
            windows = windows_of_layer(layer)
            x, y = image(layer.c_in, side), image(layer.c_out, side)
            weight = x.new_empty(layer.c_out, launch.filled_width(windows))
            sums = weight.float(), x.new_empty(layer.c_out).float()
            yield rpw.forward_launch(x, weight, None, y, windows, None)
            yield rpw.input_grad_launch(y, weight, x, windows, None)
            yield rpw.weight_grad_launch(y, x, *sums, windows, None, rpw.parts_of(y, windows))
