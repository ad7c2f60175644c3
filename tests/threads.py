"""What tests of small modules share."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """On feature maps of a few pixels a second thread costs more time than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
