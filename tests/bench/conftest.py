"""One thread, small blocks and quick runs; settings of torch are restored."""

import os
from collections.abc import Iterator

import pytest
import torch

from ifspace.bench import session
from ifspace.bench.case import BlockCandidate, Conditions
from ifspace.bench.machine import Machine, Rates
from ifspace.block import Block


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture
def machine() -> Machine:
    return Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")


@pytest.fixture
def here() -> Conditions:
    return Conditions(torch.device("cpu"), "fp32")


@pytest.fixture
def block():
    def block(text: str, channels: int = 16, out: int | None = None, **fields) -> BlockCandidate:
        fields = {"side": 6, "batch": 2} | fields
        return BlockCandidate(
            Block.parse(text).at(channels, out, fields.pop("inside", None)), **fields
        )

    return block


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs measure neither bandwidth nor memory, and leave the allocator as it is."""
    monkeypatch.setattr(session, "measured_rates", lambda *arguments: Rates(1e9, {"fp32": 1e9}))
    monkeypatch.setattr(session, "keep_memory", lambda: True)
    monkeypatch.setattr(session, "CALIBRATION_ROUNDS", 3)
    monkeypatch.setattr(session, "peak_bytes", lambda calls, *more: [1 << 20] * len(calls))


@pytest.fixture
def device() -> torch.device:
    return torch.device(os.environ.get("IFSPACE_TEST_DEVICE", "cpu"))
