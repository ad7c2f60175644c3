"""ONNX files of blocks: they run elsewhere, with equal output, any batch, weights inside."""

import logging
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ifspace.errors import DeviceError, KernelError, OutputError
from ifspace.nn import FOG, MOBILENET, build, export_onnx, fuse
from ifspace.nn.export import exported

# Windows side by side; a dense weight, as 16 windows have 24 filters; a stride and a projection;
# blocked order without and with an overlap.
CASES = [
    ("DW+RPW(4,0,blocked)+RPW(4,1/2,blocked)", 16, {"style": MOBILENET}),
    ("DW+RPW(4,1/2)+SH(4)+GPW(4)", 16, {"style": MOBILENET}),
    ("RPW(4,1/3)+DW(5)", 24, {"style": FOG, "stride": 2}),
]


def trained(text: str, out_channels: int, **options) -> nn.Module:
    """A block whose statistics are not those of a new one."""
    torch.manual_seed(0)
    module = build(text, 16, out_channels, **options)
    module(2 * torch.randn(8, 16, 6, 6))
    return module


@pytest.mark.slow
@pytest.mark.parametrize(("text", "out_channels", "options"), CASES)
def test_an_exported_block_runs_with_equal_output(tmp_path, text, out_channels, options):
    module = trained(text, out_channels, **options)
    path = tmp_path / "block.onnx"
    export_onnx(module, torch.randn(1, 16, 7, 6), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["block.onnx"]
    assert all(part.training for part in module.modules())
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    held = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert held >= module.sized.params
    assert {opset.domain for opset in model.opset_import} == {""}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ends = (*session.get_inputs(), *session.get_outputs())
    assert [(end.name, end.shape[0]) for end in ends] == [("x", "batch"), ("y", "batch")]
    assert ends[0].shape[1:] == [16, 7, 6]
    module.eval()
    for batch in (1, 3):
        x = torch.randn(batch, 16, 7, 6)
        (y,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), module(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_fused_block_is_exported_with_equal_output(tmp_path):
    module = trained("DW+RPW(4,1/2)+SH(4)+GPW(4)", 24, style=FOG, stride=2)
    path = tmp_path / "fused.onnx"
    export_onnx(fuse(module), torch.randn(1, 16, 7, 6), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = torch.randn(3, 16, 7, 6)
    (y,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), module.eval()(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_program_without_foreign_operators_keeps_its_parameters():
    module = trained("DW+RPW(4,1/2)", 16, style=FOG)
    program = exported(module, torch.randn(1, 16, 5, 5))
    assert "ifspace" not in str(program.graph)
    assert set(program.state_dict) == set(module.state_dict())
    x = torch.randn(4, 16, 5, 5)
    torch.testing.assert_close(program.module()(x), module.eval()(x))


def test_modules_in_evaluation_mode_stay_in_it():
    module = trained("DW+PW", 16, style=FOG)
    module.layer0_bn.eval()
    exported(module, torch.randn(2, 16, 5, 5))
    assert [name for name, part in module.named_modules() if not part.training] == ["layer0_bn"]


def test_a_name_that_is_not_of_an_onnx_file_raises(tmp_path):
    with pytest.raises(OutputError, match=r"not the name of an ONNX file: got .*block\.pt; allow"):
        export_onnx(build("DW", 8), torch.ones(1, 8, 4, 4), tmp_path / "block.pt")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("ifspace.nn.export.find_spec", lambda name: None)
    with pytest.raises(
        DeviceError, match=r"got no onnx, no onnxscript; .* install ifspace\[onnx\]"
    ):
        export_onnx(build("DW", 8), torch.ones(1, 8, 4, 4), tmp_path / "block.onnx")


@pytest.mark.slow
def test_a_path_that_cannot_be_written_raises_and_the_older_file_is_kept(tmp_path, monkeypatch):
    older = tmp_path / "block.onnx"
    older.write_text("older")
    module = build("DW", 8)
    with pytest.raises(OutputError, match="output cannot be written"):
        export_onnx(module, torch.ones(1, 8, 4, 4), tmp_path / "none" / "block.onnx")

    def fails(*_, **__):
        raise RuntimeError("half way")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(RuntimeError, match="half way"):
        export_onnx(module, torch.ones(1, 8, 4, 4), older)
    assert older.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["block.onnx"]

    def translates_not(*_, **__):
        try:
            raise ValueError("only 4D queries\nand a trace")
        except ValueError as error:
            raise torch.onnx.errors.OnnxExporterError("step 3/3\nof many") from error

    monkeypatch.setattr(torch.onnx, "export", translates_not)
    with pytest.raises(
        KernelError, match=r"^torch.onnx .* this module: got ValueError: only 4D queries; [^\n]*$"
    ):
        export_onnx(module, torch.ones(1, 8, 4, 4), older)
    assert older.read_text() == "older"


def test_only_the_named_warnings_of_torch_are_suppressed(tmp_path, monkeypatch, caplog):
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def remarks(*_, **__):
        log.warning("torchvision is not installed. Skipping torchvision::nms")
        log.warning("something else")

    there = "torchvision" in sys.modules  # by another test
    monkeypatch.setattr(torch.onnx, "export", remarks)
    monkeypatch.setattr(logging.getLogger("torch"), "propagate", True)
    with pytest.raises(OutputError, match="output cannot be written"):  # nothing was written
        export_onnx(build("DW", 8), torch.ones(1, 8, 4, 4), tmp_path / "block.onnx")
    message = [record.getMessage() for record in caplog.records if record.name == log.name]
    assert message == ["something else"]
    assert not log.filters
    assert ("torchvision" in sys.modules) == there
