"""The device of the kernel tests: `IFSPACE_TEST_DEVICE=cuda` runs them on the GPU."""

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("IFSPACE_TEST_DEVICE", "cpu"))
ON_CPU = DEVICE.type == "cpu"
IMPLS = ("reference", "cpu", "triton") if ON_CPU else ("reference", "triton")
FUSED_IMPLS = ("reference", "triton")
DOUBLE = tuple(impl for impl in IMPLS if impl != "triton")  # triton has no float64
only_on_a_cpu = pytest.mark.skipif(not ON_CPU, reason="about tensors on a CPU")
# Under the interpreter nothing is captured.
only_on_a_card = pytest.mark.skipif(ON_CPU, reason="needs IFSPACE_TEST_DEVICE=cuda")
