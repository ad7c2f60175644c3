"""A fixture for tests of small modules."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Run torch on one thread: on feature maps of a few pixels a second one costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
