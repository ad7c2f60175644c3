"""The device of the tests as a fixture."""

import pytest
import torch
from devices import DEVICE


@pytest.fixture(scope="session")
def device() -> torch.device:
    return DEVICE
