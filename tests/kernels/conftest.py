"""The device of the tests as a fixture, and tensors that show what was not written."""

import inspect
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from devices import DEVICE, ON_CPU

# What cuBLAS needs for deterministic algorithms, which fill what is not written.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
if not ON_CPU:
    # Where cuDNN convolves float32 beside ours, it rounds no factor to tf32.
    torch.backends.cudnn.allow_tf32 = False


if ON_CPU:
    # The interpreter looks through all names of triton.language at each call of each function, for
    # a quarter of its time: here it looks at those alone that were operators the first time.
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    @cache
    def _operators(package: Any) -> list[str]:
        return [name for name, member in inspect.getmembers(package) if is_builtin(member)]

    def _patch_operators(package: Any, builder: Any, scope: Any) -> None:
        for name in _operators(package):
            if is_builtin(member := getattr(package, name)):
                interpreter._patch_attr(package, name, member, builder, scope)

    assert inspect.isfunction(interpreter._patch_builtin)
    interpreter._patch_builtin = _patch_operators


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
