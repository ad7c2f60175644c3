"""The device of the tests as a fixture, and tensors that show what was not written."""

from collections.abc import Iterator

import pytest
import torch
from devices import DEVICE


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
