"""CUDA graphs: what a process captures first, forward and backward, is what it computes without."""

import subprocess
import sys

import pytest
from devices import only_on_a_card

# Each in a process of its own: the first capture of a process is the one that once failed.
BEGIN = """
import torch
from ifspace.nn import build, fuse

torch.manual_seed(0)
torch.backends.cudnn.benchmark = True
block = build(TEXT, 64).cuda().bfloat16().to(memory_format=torch.channels_last)
x = torch.randn(16, 64, 14, 14, device="cuda").bfloat16()
x = x.to(memory_format=torch.channels_last).requires_grad_()
grad = torch.randn_like(x)


def both_ways():
    y = block(x)
    return y.detach(), *torch.autograd.grad(y, (x, *block.parameters()), grad)


def forward():
    with torch.no_grad():
        return (block(x.detach()),)


def fused():
    with torch.no_grad():
        return (one(x.detach()),)


one = fuse(block.eval())
call = {"both ways": both_ways, "forward": forward, "fused": fused}[WAY]
"""
CAPTURE = """
stream = torch.cuda.Stream()
stream.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(stream):
    for _ in range(3):
        expected = call()
torch.cuda.current_stream().wait_stream(stream)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    outputs = call()
for output in outputs:
    output.fill_(float("nan"))
graph.replay()
torch.cuda.synchronize()
for output, like in zip(outputs, expected, strict=True):
    error = float((output - like).float().norm() / like.float().norm())
    assert error < 1e-2, error
"""
# As the benchmarks do it: a call outside before, and its output kept.
KEPT = "kept = call(), call()\n"
BENCH = """
from ifspace.bench.clock import captured

kept = call(), call()
replay = captured(call, torch.device("cuda"))
replay()
torch.cuda.synchronize()
"""


@only_on_a_card
@pytest.mark.slow
@pytest.mark.parametrize("way", ["forward", "both ways", "fused"])
@pytest.mark.parametrize("text", ["RPW(4,0)", "DW+RPW(16,0)+RPW(16,0)+GPW(16)"])
@pytest.mark.parametrize("body", [CAPTURE, KEPT + CAPTURE, BENCH], ids=["torch", "kept", "bench"])
def test_the_first_capture_of_a_process(body: str, text: str, way: str) -> None:
    code = f"TEXT, WAY = {text!r}, {way!r}\n{BEGIN}{body}"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
