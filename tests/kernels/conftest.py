"""The device of the tests as a fixture, and tensors that show what was not written."""

import os
from collections.abc import Iterator

import pytest
import torch
from devices import DEVICE, ON_CPU

# What cuBLAS needs for deterministic algorithms, which fill what is not written.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
if not ON_CPU:
    # Where cuDNN convolves float32 beside ours, it rounds no factor to tf32.
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="session")
def device() -> torch.device:
    return DEVICE


@pytest.fixture
def unwritten_is_nan() -> Iterator[None]:
    """Fill tensors of torch.empty with NaN, inside the functions under test too."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
