"""A fixture for tests of small modules."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Run torch on one thread: on feature maps of a few pixels a second one costs time."""
    import torch  # late: some environments have none

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
