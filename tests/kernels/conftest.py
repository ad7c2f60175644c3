"""Where the tests of the kernels run: `IFSPACE_TEST_DEVICE=cuda` puts them on the card."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(os.environ.get("IFSPACE_TEST_DEVICE", "cpu"))
