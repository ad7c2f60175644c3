"""The published tables that some tests need: inputs beside the repository, never in it."""

import os
from pathlib import Path

import pytest

# The folder of the environment variable, or the one beside the repository.
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDER = Path(os.environ.get("IFSPACE_DATA", _BESIDE))


def published(name: str) -> Path:
    """Return the path of a table; the test is skipped where it is not there."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the repository; name its folder in IFSPACE_DATA")
    return path
