"""The device."""

import os

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    return torch.device(os.environ.get("IFSPACE_TEST_DEVICE", "cpu"))
