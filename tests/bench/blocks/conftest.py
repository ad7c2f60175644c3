"""Small blocks and quick runs."""

import pytest
import torch

from ifspace.bench.blocks import (
    Candidate,
    Conditions,
)
from ifspace.block import Block


@pytest.fixture
def here() -> Conditions:
    return Conditions(torch.device("cpu"), "fp32")


@pytest.fixture
def block():
    def block(text: str, channels: int = 16, out: int | None = None, **given) -> Candidate:
        given = {"side": 6, "batch": 2} | given
        return Candidate(Block.parse(text).at(channels, out, given.pop("inside", None)), **given)

    return block


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs measure neither bandwidth nor memory, and leave the allocator as it is."""
    from ifspace.bench import session as run
    from ifspace.bench.machine import Rates

    monkeypatch.setattr(run, "measured_rates", lambda *given: Rates(1e9, {"fp32": 1e9}))
    monkeypatch.setattr(run, "keep_memory", lambda: True)
    monkeypatch.setattr(run, "CALIBRATION_ROUNDS", 3)
    monkeypatch.setattr(run, "peaks", lambda cases, *given: [1 << 20] * len(cases))
